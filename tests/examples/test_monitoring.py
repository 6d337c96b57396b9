"""Dashboard and alert rules: about metrics that exist, and right by Prometheus' own tool where it is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from prometheus_client import CollectorRegistry

from session_reuse._telemetry.metrics import Metrics

FOLDER = Path(__file__).parents[2] / "examples" / "monitoring"
METRIC = re.compile(r"\bsession_(?!reuse\b)[a-z_]+")


def known_metrics() -> set[str]:
    """Return the names of all series that the package can show."""
    registry = CollectorRegistry()
    Metrics(registry)
    names = set()
    for family in registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in suffixes}
    return names


def expressions() -> dict[str, str]:
    """Return all queries of the dashboard and the rules, by where they stand."""
    found = {}
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            found[f"panel {panel['title']} {target['refId']}"] = target["expr"]
    rules = (FOLDER / "alerts.yml").read_text()
    for alert, expression in re.findall(r"- alert: (\w+)\n +expr: (\|\n(?: {10,}.*\n)+|.*\n)", rules):
        found[f"alert {alert}"] = expression.removeprefix("|")
    return found


def test_every_expression_is_promql() -> None:
    """Names, brackets and types are right. Grafana's variables stand for a value of their kind."""
    for place, expression in expressions().items():
        text = re.sub(r"\$__(rate_interval|range)", "5m", expression)
        try:
            promql_parser.parse(text)
        except ValueError as error:
            pytest.fail(f"{place}: {error}")


def test_every_metric_that_is_asked_for_exists() -> None:
    """An alert over a metric that no one exports never fires."""
    for place, expression in expressions().items():
        named = set(METRIC.findall(expression))
        assert named, place
        assert named <= known_metrics(), place


def test_every_metric_is_on_the_dashboard() -> None:
    """What is measured can be seen."""
    shown = "\n".join(text for place, text in expressions().items() if place.startswith("panel"))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known_metrics()}
    assert {name for name in families if name not in shown} == set()


def test_label_values_are_those_of_the_code() -> None:
    """A query for a reason that does not exist shows nothing forever."""
    from session_reuse._telemetry.metrics import BREAKER_STATES, Operation
    from session_reuse.outcome import Liveness, Outcome, SaveOutcome

    allowed: dict[str, set[str]] = {
        "op": {each.value for each in Operation},
        "reason": {each.value for each in Outcome},
        "outcome": {each.value for each in SaveOutcome},
        "verdict": {each.value for each in Liveness},
        "state": set(BREAKER_STATES),
    }
    for place, expression in expressions().items():
        for label, value in re.findall(r'(\w+)!?="([^"$]*)"', expression):
            assert value in allowed[label], place


def test_panels_do_not_lie_on_each_other() -> None:
    """Each panel has a place and its own id."""
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place: Any = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool, a part of Prometheus, is not installed; syntax and names of the rules are checked without it",
)
@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")])
def test_prometheus_accepts_the_rules(arguments: tuple[str, ...]) -> None:
    """The rules load, and fire when they should and only then."""
    finished = subprocess.run(
        ["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=30, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_every_alert_is_documented_by_a_test_or_trivial() -> None:
    """A rule with arithmetic in it has a test beside it."""
    tested = set(re.findall(r"alertname: (\w+)", (FOLDER / "alerts_test.yml").read_text()))
    alerts = {place.removeprefix("alert ") for place in expressions() if place.startswith("alert ")}
    assert tested <= alerts
    assert alerts - tested == {"SessionRestoreSlow", "SessionSaveSlow", "SessionUnderReplicated"}

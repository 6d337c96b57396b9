"""The verdicts of the long run. The run itself is `python -m tests.chaos.hours`: it needs minutes and real browsers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.hours.report import Report, Struck

VISIT = {
    "kind": "visit",
    "host": 0,
    "outcome": "reused",
    "stale": False,
    "known": True,
    "entered": 0.01,
    "lag": 0.0,
    "left": 0.02,
}


def report(*events: dict[str, Any], faults: list[Struck] | None = None) -> Report:
    """Return the report of a run of two minutes that began at 1,000."""
    visits = [{**VISIT, "t": 1000.0 + second, "saved": "saved", "problems": []} for second in range(120)]
    memory = [
        {
            "kind": "memory",
            "host": 0,
            "t": 1000.0 + second,
            "python": 50 * 2**20,
            "browser": 1,
            "driver": 1,
            "pending": 0,
        }
        for second in range(0, 120, 5)
    ]
    return Report({"agents": 1}, 1000.0, [*visits, *memory, *events], faults or [])


def older(at: float) -> dict[str, Any]:
    """Return an item that was confirmed at a moment and found older later."""
    return {
        "kind": "older",
        "host": 0,
        "t": 1100.0,
        "name": "shop",
        "key": "agent-1",
        "found": 1,
        "confirmed": 2,
        "at": at,
    }


def test_a_quiet_run_has_not_failed() -> None:
    """The checks have nothing against a run in which nothing happened."""
    assert not report().failed


def test_a_confirmed_item_that_is_gone_is_lost() -> None:
    """Also when a fault was on that replaces no primary, and when the fault was over long before."""
    assert report(older(1050.0)).lost
    assert report(older(1050.0), faults=[Struck("delay", 1049.0, 1055.0)]).lost
    assert report(older(1050.0), faults=[Struck("kill_server", 1010.0, 1020.0, may_lose=True)]).failed


def test_a_replaced_primary_may_take_confirmed_items_with_it() -> None:
    """Redis replicates asynchronously: such items are counted apart."""
    found = report(older(1050.0), faults=[Struck("kill_server", 1051.0, 1055.0, may_lose=True)])
    assert not found.lost
    assert found.numbers()["taken by a primary that was replaced"] == 1
    assert not found.failed


@pytest.mark.parametrize("kind", ["wrong", "lost"])
def test_what_a_host_reports_fails_the_run(kind: str) -> None:
    """A wrong state, and a save that was given up."""
    assert report(
        {"kind": kind, "host": 0, "t": 1001.0, "what": "a state of another", "name": "shop", "why": "full"}
    ).failed


def test_memory_that_grows_fails_the_run() -> None:
    """By the difference of medians, so that one peak says nothing."""
    grown = report()
    for number, event in enumerate(grown.of("memory")):
        event["python"] += number * 3 * 2**20
    assert grown.growth[0] > 30 * 2**20
    assert grown.failed


def test_the_report_is_written_with_a_picture(tmp_path: Path) -> None:
    """Numbers as JSON, and reuse, faults, latencies and memory over time as a picture."""
    report(faults=[Struck("part", 1020.0, 1030.0, may_lose=True)]).write(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["reuse"] == 1.0
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")

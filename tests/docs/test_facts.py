"""Numbers that pages state are those of the code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scorecard
from session_reuse import Config
from session_reuse._browser import limits
from session_reuse._browser.options import Settings
from session_reuse._session import changes, guarded_store
from session_reuse._state import compression, header
from session_reuse._store.redis import batching

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
UNITS = {
    "": 1,
    "s": 1,
    "minutes": 60,
    "hour": 3600,
    "h": 3600,
    "days": 86400,
    "KB": 1024,
    "MB": 1024**2,
    "MiB": 1024**2,
}
NUMBER = r"(\d[\d.]*) ?([A-Za-z]*)"
DAY = 86400

DEFAULTS: dict[str, Any] = {
    field.name: getattr(made, field.name) for made in (Config(), Settings()) for field in fields(made)
}

POLICY = guarded_store.STORE_POLICY
FACTS: list[tuple[str, str, Callable[[], float]]] = [
    ("README.md", r"A start waits at most ([\d.]+) s", lambda: Config().restore_timeout),
    ("docs/concepts.md", r"`restore_timeout` \(([\d.]+) s\)", lambda: Config().restore_timeout),
    ("docs/_static/sequence.svg", r"one command, ([\d.]+) s at most", lambda: Config().restore_timeout),
    ("docs/_static/breaker.svg", r"Open for ([\d.]+) s the first time", lambda: POLICY.open_for),
    ("docs/_static/breaker.svg", r"doubled up to ([\d.]+) s", lambda: POLICY.open_cap),
    ("docs/_static/breaker.svg", r"(\d+) failures in a row", lambda: POLICY.consecutive),
    ("docs/_static/breaker.svg", r"half of the last (\d+)", lambda: POLICY.window),
    ("docs/_static/breaker.svg", r"Rejected credentials: (\d+) s", lambda: guarded_store._CREDENTIALS_SPAN),
    ("docs/troubleshooting.md", r"not used for (\d+) seconds after", lambda: guarded_store._CREDENTIALS_SPAN),
    ("docs/explanation/sharing.md", r"A tombstone is kept for (\d+) days", lambda: changes.TOMBSTONE_TTL / DAY),
    ("docs/explanation/sharing.md", r"held it for more than (\d+) days", lambda: changes.HOLD_LIMIT / DAY),
    ("docs/reference/stored-form.md", r"last invalidation.*\| (\d+) days", lambda: changes.TOMBSTONE_TTL / DAY),
    ("docs/reference/stored-form.md", r"header \((\d+) bytes\)", lambda: header.LENGTH),
    ("docs/reference/stored-form.md", r"compression \(from (\d+) bytes", lambda: compression.THRESHOLD),
    ("docs/explanation/architecture.md", r"the (\d+) bytes of the header", lambda: header.LENGTH),
    ("docs/how-to/many-workers.md", r"one for values over (\d+) KiB", lambda: batching.LARGE / 1024),
    ("docs/explanation/browsers.md", r"A capture takes (\d+) s at most", lambda: limits.CAPTURE),
    ("docs/explanation/browsers.md", r"closing the context of Playwright (\d+) s", lambda: limits.CONTEXT),
    ("docs/how-to/browser-use.md", r"within (\d+) seconds", lambda: limits.START),
]
"""Place, pattern with the number, and the value in the code. A constant that was moved fails one test only."""


@pytest.mark.parametrize(
    ("place", "pattern", "value"), FACTS, ids=[f"{place}: {pattern}" for place, pattern, _ in FACTS]
)
def test_a_number_in_a_page_is_that_of_the_code(place: str, pattern: str, value: Callable[[], float]) -> None:
    """A constant that changes takes its page along."""
    found = re.findall(pattern, (ROOT / place).read_text(encoding="utf-8"))
    assert found, f"{place} no longer says {pattern}"
    assert {float(each) for each in found} == {value()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_default_that_a_page_names_is_that_of_the_code(page: Path) -> None:
    """Text of the form `restore_timeout` (0.5 s) states the default."""
    for name, number, unit in re.findall(rf"`(\w+)` \({NUMBER}[,)]", page.read_text(encoding="utf-8")):
        if name in DEFAULTS:
            assert float(number) * UNITS[unit] == DEFAULTS[name], name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_that_shows_a_number_exists(page: Path) -> None:
    """The program is there, and knows the options and the rows that the page names."""
    for command in re.findall(r"`(python [^`]*)`", page.read_text(encoding="utf-8")):
        _, *words = shlex.split(command)
        path = ROOT / (f"{words.pop(1).replace('.', '/')}" if words[0] == "-m" else words[0])
        source = "".join(
            file.read_text(encoding="utf-8")
            for file in (path, path.with_suffix(".py"), path / "__main__.py")
            if file.is_file()
        )
        assert source, command
        assert [word for word in words[1:] if word.startswith("--") and f'"{word}"' not in source] == [], command
        if "--only" in words:
            assert set(words[words.index("--only") + 1].split(",")) <= {row.name for row in scorecard.ROWS}, command


@pytest.mark.parametrize("page", ["how-to/timeouts.md"])
def test_a_table_of_settings_shows_their_defaults(page: str) -> None:
    """A reader who tunes a time-out starts from the true one."""
    rows = re.findall(r"^\| `(\w+)` \| ([\w.]+)(?: s)? \|", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 10
    for name, shown in rows:
        default = getattr(Config(), name)
        expected = {None: "none", True: "true", False: "false"}.get(default, default)
        assert float(shown) == expected if isinstance(expected, float) else shown == expected, name

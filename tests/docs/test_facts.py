"""Numbers that pages state in prose are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from session_reuse import Config
from session_reuse._resilience.guard import STORE_POLICY

DOCS = Path(__file__).parents[2] / "docs"


def test_the_breaker_opens_for_as_long_as_the_diagram_says() -> None:
    """An operator who waits for an agent to come back has to know for how long."""
    diagram = (DOCS / "_static" / "breaker.svg").read_text(encoding="utf-8")
    assert f"Open for {STORE_POLICY.open_for:g} s the first time, doubled up to {STORE_POLICY.open_cap:g} s" in diagram
    assert f"{STORE_POLICY.consecutive} failures in a row" in diagram


@pytest.mark.parametrize("page", ["how-to/timeouts.md"])
def test_a_table_of_settings_shows_their_defaults(page: str) -> None:
    """Who tunes a time-out starts from the true one."""
    rows = re.findall(r"^\| `(\w+)` \| ([\w.]+)(?: s)? \|", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 10
    for name, shown in rows:
        default = getattr(Config(), name)
        expected = {None: "none", True: "true", False: "false"}.get(default, default)
        assert float(shown) == expected if isinstance(expected, float) else shown == expected, name

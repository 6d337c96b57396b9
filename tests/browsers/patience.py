"""A busy machine may stop a browser for longer than our limits allow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from session_reuse._browser import limits

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PATIENCE = 3.0
TEST_LIMIT = 180
"""Seconds that one test may take: 1 to 10 on an idle machine."""
SCALED = ("COMMAND", "SCRIPT", "BLANK_PAGE", "ATTACH", "CLOSE", "FILL", "REVISIT", "CAPTURE", "START")


def be_patient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the limits, but for tests marked `alone`: those are about the default ones."""
    if request.node.get_closest_marker("alone") is None:
        for name in SCALED:
            monkeypatch.setattr(limits, name, PATIENCE * getattr(limits, name))


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return to the default limits of what a page may take to answer, for tests of pages that never do.

    Such a test lasts as long as the limit, and a page in an endless loop keeps a core busy meanwhile.
    """
    for name in ("COMMAND", "ATTACH"):
        monkeypatch.setattr(limits, name, getattr(limits, name) / PATIENCE)


def set_limit(monkeypatch: pytest.MonkeyPatch, name: str, seconds: float) -> None:
    """Change one limit for a test."""
    monkeypatch.setattr(limits, name, seconds)


def limit(name: str) -> float:
    """Return the present value of a limit, in seconds."""
    return float(getattr(limits, name))


def raise_test_limits(items: Iterable[pytest.Item], folder: Path) -> None:
    """Raise the limit of time of the tests in a folder."""
    for item in items:
        if folder in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_LIMIT))


def scale_limits(factor: float) -> None:
    """Multiply the limits for the rest of this process."""
    for name in SCALED:
        setattr(limits, name, factor * getattr(limits, name))

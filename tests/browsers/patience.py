"""A busy machine may stop a browser for longer than our limits allow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_reuse._browser import limits

if TYPE_CHECKING:
    import pytest

PATIENCE = 3.0
SCALED = ("COMMAND", "SCRIPT", "BLANK_PAGE", "ATTACH", "CLOSE", "FILL", "REVISIT", "CAPTURE", "START")


def be_patient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the limits, but for tests marked `alone`: those are about the default ones."""
    if request.node.get_closest_marker("alone") is None:
        for name in SCALED:
            monkeypatch.setattr(limits, name, PATIENCE * getattr(limits, name))


def scale_limits(factor: float) -> None:
    """Multiply the limits for the rest of this process."""
    for name in SCALED:
        setattr(limits, name, factor * getattr(limits, name))

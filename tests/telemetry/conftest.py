"""Fixtures for the tests of the instruments."""

from __future__ import annotations

import pytest

from session_reuse._telemetry import guard


@pytest.fixture(autouse=True)
def nothing_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test sees the first failure of an instrument as a new process does."""
    monkeypatch.setattr(guard, "_reported", {})

"""The local sites and browsers of the browser tests."""

from __future__ import annotations

from tests.browsers.conftest import browser, launch, playwright, sites

__all__ = ["browser", "launch", "playwright", "sites"]

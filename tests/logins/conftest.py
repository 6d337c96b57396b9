"""The local sites and browsers of the browser tests, and the command line."""

from __future__ import annotations

from tests.browsers.conftest import browser, launch, playwright, sites
from tests.cli.conftest import alice, cli

__all__ = ["alice", "browser", "cli", "launch", "playwright", "sites"]

"""The local sites and browsers of the browser tests, the command line, and the servers of the tests of sharing."""

from __future__ import annotations

from tests.browsers.conftest import browser, launch, playwright, sites
from tests.cli.conftest import alice, cli
from tests.sharing.conftest import cluster, servers, shared_cluster

__all__ = ["alice", "browser", "cli", "cluster", "launch", "playwright", "servers", "shared_cluster", "sites"]

"""The site and the store of memory of the client tests, and runs on a real store."""

from __future__ import annotations

import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.agents.runs import Runs, store
from tests.clients.conftest import (
    agent_leftovers,
    keeper,
    localhost_names,
    logged_in,
    login_state,
    quiet_agents,
    running_site,
    site,
)
from tests.harness.polling import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.clients.keeper import StubKeeper
    from tests.harness.servers import RedisServer

__all__ = [
    "agent_leftovers",
    "keeper",
    "localhost_names",
    "logged_in",
    "login_state",
    "quiet_agents",
    "running_site",
    "site",
]


@pytest.fixture
def runs(redis_server: RedisServer) -> Iterator[Runs]:
    """Runs on the shared server. Nothing may be left of them."""
    with tempfile.TemporaryDirectory(prefix="sr-", dir="/tmp") as folder:
        started = Runs(redis_server.url, folder)
        yield started
        wait_until(lambda: not started.leftovers, message="something of a browser was left behind")


@pytest.fixture
def logged_in_runs(runs: Runs, redis_server: RedisServer, logged_in: StubKeeper) -> Runs:
    """Runs on a server with a stored login that the site knows."""
    assert logged_in.stored is not None
    store(redis_server.url, logged_in.stored)
    return runs


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that has no room for a profile."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs the rights of root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)

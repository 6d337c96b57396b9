"""Servers and managers for tests of sharing. A server here is in good health when a test gets it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from session_reuse import SessionManager
from tests.harness.servers import RedisCluster, RedisServer
from tests.sharing.traces import MakeManager, flush
from tests.sharing.worker import SETTINGS


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[RedisCluster]:
    """One real Cluster for all tests that leave it in good health. A frozen node is not replaced for half a minute."""
    with RedisCluster(node_timeout=30.0, args=("--cluster-require-full-coverage", "no")) as cluster:
        yield cluster


@pytest.fixture(params=["standalone", pytest.param("cluster", marks=pytest.mark.cluster)])
def servers(request: pytest.FixtureRequest) -> RedisServer | RedisCluster:
    """Standalone, then Cluster, each empty."""
    found: RedisServer | RedisCluster
    found = request.getfixturevalue("redis_server" if request.param == "standalone" else "cluster")
    return found


@pytest.fixture
def cluster(shared_cluster: RedisCluster) -> Iterator[RedisCluster]:
    """The shared Cluster, whole and empty. Nodes that a test freezes go on afterwards."""
    shared_cluster.settle()
    flush(shared_cluster)
    yield shared_cluster
    for node in shared_cluster.nodes:
        node.resume()


@pytest.fixture
async def make_manager() -> AsyncIterator[MakeManager]:
    """Make managers with patient time-outs that are closed with the test."""
    async with AsyncExitStack() as stack:

        async def make(url: str, **config: object) -> SessionManager:
            return await stack.enter_async_context(SessionManager(url, **(SETTINGS | config)))

        yield make

"""Proxies and managers with default settings, which is what these tests are about."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.harness.fault_proxy import FaultProxy
from tests.harness.lag import Lag
from tests.harness.servers import HOST, RedisServer
from tests.sharing.conftest import cluster, servers, shared_cluster

__all__ = ["cluster", "lag", "proxy", "servers", "shared_cluster"]


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[FaultProxy]:
    """A proxy before the shared server, which is empty."""
    async with FaultProxy((HOST, redis_server.port)) as proxy:
        yield proxy


@pytest.fixture
async def lag() -> AsyncIterator[Lag]:
    """How late the machine is, measured all the time."""
    lag = Lag()
    async with lag.watched():
        yield lag

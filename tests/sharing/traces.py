"""What stands in the servers, seen past our own code."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

import redis

from session_reuse import BrowserSession, SaveOutcome, SessionManager
from tests.harness.servers import RedisCluster, RedisServer


class MakeManager(Protocol):
    """Makes managers that are closed with the test."""

    async def __call__(self, url: str, **config: object) -> SessionManager:
        """Return a manager with patient time-outs, for machines under load."""


def primaries(servers: RedisServer | RedisCluster) -> list[RedisServer]:
    """Return the servers that hold data of their own."""
    if isinstance(servers, RedisServer):
        return [servers]
    return [node for node in servers.nodes if node.running and _is_primary(node)]


def _is_primary(node: RedisServer) -> bool:
    with node.client() as client:
        return bool(client.info("replication")["role"] == "master")


def flush(servers: RedisServer | RedisCluster) -> None:
    """Remove everything."""
    for node in primaries(servers):
        with node.client() as client:
            client.flushall()


def kinds(servers: RedisServer | RedisCluster) -> Counter[str]:
    """Return how many keys of each kind there are. Of the index, how many entries."""
    found: Counter[str] = Counter()
    for node in primaries(servers):
        with node.client() as client:
            for key in client.scan_iter(count=2000):
                kind = key.decode().split(":")[1]
                found[kind] += int(client.zcard(key)) if kind == "deadlines" else 1
    return found


def raw(servers: RedisServer | RedisCluster, key: str) -> redis.Redis:
    """Return a client of the server that a key lives on. Close it."""
    node = servers if isinstance(servers, RedisServer) else servers.primary_of(key)
    return node.client()


def config_set(servers: RedisServer | RedisCluster, name: str, value: str) -> None:
    """Change a setting of all servers."""
    for node in [servers] if isinstance(servers, RedisServer) else servers.nodes:
        with contextlib.suppress(redis.ConnectionError), node.client() as client:
            client.config_set(name, value)


async def save_many(manager: SessionManager, names: Iterable[str], at_once: int = 100) -> None:
    """Save one small session for each name, by its own agent, and see that it is stored."""
    gate = asyncio.Semaphore(at_once)

    async def save(name: str) -> SaveOutcome:
        async with gate:
            return await manager.save(BrowserSession(name, f"agent-of-{name}", data={"name": name}))

    outcomes = await asyncio.gather(*map(save, names))
    assert set(outcomes) <= {SaveOutcome.SAVED}, Counter(outcomes)

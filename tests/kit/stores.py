"""A store of each kind with a back door to its server. For tests only."""

from __future__ import annotations

from typing import Any

from fakeredis.aioredis import FakeRedis

from session_reuse._store.redis.store import RedisStore
from session_reuse.testing import MemoryStore
from tests.harness.stored import KEYS


class Kit:
    """A store, and a back door to its server.

    Args:
        store: the store.
        client: a client of the same server.
    """

    def __init__(self, store: RedisStore, client: Any) -> None:
        self.store = store
        self.client = client
        self.keys = KEYS

    async def plant(self, fingerprint: str, value: Any) -> None:
        """Put any value under a session's key. What is not bytes becomes a list."""
        key = self.keys.session(fingerprint)
        await self.client.delete(key)
        await (self.client.set(key, value) if isinstance(value, bytes) else self.client.lpush(key, "an item"))

    async def value(self, fingerprint: str) -> bytes | None:
        """Return what stands under a session's key."""
        found: bytes | None = await self.client.get(self.keys.session(fingerprint))
        return found

    async def set_aside(self, fingerprint: str) -> bytes | None:
        """Return the damaged value that was set aside."""
        found: bytes | None = await self.client.get(self.keys.of(fingerprint).quarantine)
        return found

    async def time_to_live(self, fingerprint: str) -> float:
        """Return how many seconds a session has left."""
        left: int = await self.client.pttl(self.keys.session(fingerprint))
        return left / 1000

    async def expire(self, fingerprint: str, seconds: float) -> None:
        """Set how many seconds a session has left, as if the rest had passed."""
        await self.client.pexpire(self.keys.session(fingerprint), round(seconds * 1000))


def redis_kit(client: Any) -> Kit:
    """Return a kit over a client of a real server."""
    return Kit(RedisStore(client, KEYS), client)


def memory_kit() -> Kit:
    """Return a kit over a store in memory."""
    store = MemoryStore()
    return Kit(store, FakeRedis(server=store.server))

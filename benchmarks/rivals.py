"""Other libraries that could keep a session in Redis, where they are installed.

None of them has versions, leases or encryption. Each is used as its documentation shows.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.contestants import ENOUGH_CONNECTIONS, PATIENT_CLIENT, TTL, Contestant, change


class _KeyValue(ABC):
    """A library with a get and a set."""

    state: dict[str, Any]

    async def cycle(self, task: int) -> None:
        """Get, change, set."""
        state = await self.load(task) or copy.deepcopy(self.state)
        change(state)
        await self.save(task, state)

    @abstractmethod
    async def load(self, task: int) -> dict[str, Any] | None:
        """Return the stored state."""

    @abstractmethod
    async def save(self, task: int, state: dict[str, Any]) -> None:
        """Store a state."""


class Cashews(_KeyValue):
    """cashews: pickle by default."""

    async def open(self, url: str, state: dict[str, Any]) -> None:
        """Connect."""
        from cashews import Cache

        self.state = state
        self.cache: Any = Cache()
        self.cache.setup(url, max_connections=ENOUGH_CONNECTIONS, **PATIENT_CLIENT)
        await self.cache.init()

    async def load(self, task: int) -> dict[str, Any] | None:
        """Get."""
        found: dict[str, Any] | None = await self.cache.get(f"cashews:{task}")
        return found

    async def save(self, task: int, state: dict[str, Any]) -> None:
        """Set."""
        await self.cache.set(f"cashews:{task}", state, expire=TTL)

    async def close(self) -> None:
        """Disconnect."""
        await self.cache.close()


class Aiocache(_KeyValue):
    """aiocache with its JSON serializer."""

    async def open(self, url: str, state: dict[str, Any]) -> None:
        """Connect."""
        from aiocache import RedisCache
        from aiocache.serializers import JsonSerializer

        self.state = state
        place = urlsplit(url)
        self.cache: Any = RedisCache(
            endpoint=place.hostname,
            port=place.port,
            pool_max_size=ENOUGH_CONNECTIONS,
            serializer=JsonSerializer(),
            create_connection_timeout=60.0,
            timeout=60.0,
        )

    async def load(self, task: int) -> dict[str, Any] | None:
        """Get."""
        found: dict[str, Any] | None = await self.cache.get(f"aiocache:{task}")
        return found

    async def save(self, task: int, state: dict[str, Any]) -> None:
        """Set."""
        await self.cache.set(f"aiocache:{task}", state, ttl=TTL)

    async def close(self) -> None:
        """Disconnect."""
        await self.cache.close()


class Starsessions(_KeyValue):
    """starsessions: its Redis store with its JSON serializer, without a web framework."""

    async def open(self, url: str, state: dict[str, Any]) -> None:
        """Connect."""
        from redis.asyncio import Redis
        from starsessions.serializers import JsonSerializer
        from starsessions.stores.redis import RedisStore

        self.state = state
        self.client = Redis.from_url(url, max_connections=ENOUGH_CONNECTIONS, **PATIENT_CLIENT)
        self.store, self.serializer = RedisStore(connection=self.client), JsonSerializer()

    async def load(self, task: int) -> dict[str, Any] | None:
        """Read."""
        value = await self.store.read(f"starsessions:{task}", TTL)
        return self.serializer.deserialize(value) if value else None

    async def save(self, task: int, state: dict[str, Any]) -> None:
        """Write."""
        await self.store.write(f"starsessions:{task}", self.serializer.serialize(state), TTL, TTL)

    async def close(self) -> None:
        """Disconnect."""
        await self.client.aclose()


PEERS: Final[dict[str, type[Contestant]]] = {
    "cashews": Cashews,
    "aiocache": Aiocache,
    "starsessions": Starsessions,
}
"""By the name of the package, which is also that of the module."""


def installed_peers() -> tuple[dict[str, type[Contestant]], list[str]]:
    """Return the peers that are installed, and the names of those that are not."""
    there = {name: kind for name, kind in PEERS.items() if find_spec(name) is not None}
    return there, [name for name in PEERS if name not in there]

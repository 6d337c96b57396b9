"""Other libraries that could keep a session in Redis, where they are installed.

None of them has versions, leases or encryption; each is used as its documentation shows.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from benchmarks.contestants import ENOUGH_CONNECTIONS, TTL, Contestant, change


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


class ValkeyGlide(_KeyValue):
    """valkey-glide: a core in Rust that multiplexes one connection."""

    async def open(self, url: str, state: dict[str, Any]) -> None:
        """Connect."""
        from glide import ExpirySet, ExpiryType, GlideClient, GlideClientConfiguration, NodeAddress

        self.state = state
        place = urlsplit(url)
        addresses = [NodeAddress(place.hostname or "", place.port or 6379)]
        self.client = await GlideClient.create(
            GlideClientConfiguration(addresses, request_timeout=5000, inflight_requests_limit=ENOUGH_CONNECTIONS)
        )
        self.expiry = ExpirySet(ExpiryType.SEC, TTL)

    async def load(self, task: int) -> dict[str, Any] | None:
        """GET."""
        value = await self.client.get(f"glide:{task}")
        return orjson.loads(value) if value else None

    async def save(self, task: int, state: dict[str, Any]) -> None:
        """SET."""
        await self.client.set(f"glide:{task}", orjson.dumps(state), expiry=self.expiry)

    async def close(self) -> None:
        """Disconnect."""
        await self.client.close()


class Coredis(_KeyValue):
    """coredis."""

    async def open(self, url: str, state: dict[str, Any]) -> None:
        """Connect."""
        from coredis import Redis

        self.state = state
        self.client: Any = Redis.from_url(url)
        await self.client.__aenter__()

    async def load(self, task: int) -> dict[str, Any] | None:
        """GET."""
        value = await self.client.get(f"coredis:{task}")
        return orjson.loads(value) if value else None

    async def save(self, task: int, state: dict[str, Any]) -> None:
        """SET."""
        await self.client.set(f"coredis:{task}", orjson.dumps(state), ex=TTL)

    async def close(self) -> None:
        """Disconnect."""
        await self.client.__aexit__(None, None, None)


class Cashews(_KeyValue):
    """cashews: pickle by default."""

    async def open(self, url: str, state: dict[str, Any]) -> None:
        """Connect."""
        from cashews import Cache

        self.state = state
        self.cache: Any = Cache()
        self.cache.setup(url, max_connections=ENOUGH_CONNECTIONS)
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
            endpoint=place.hostname, port=place.port, pool_max_size=ENOUGH_CONNECTIONS, serializer=JsonSerializer()
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
        self.client = Redis.from_url(url, max_connections=ENOUGH_CONNECTIONS)
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


class OpenaiAgents(_KeyValue):
    """openai-agents `RedisSession`: a list of messages; one is read and one of the state's size appended."""

    async def open(self, url: str, state: dict[str, Any]) -> None:
        """Connect."""
        from agents.extensions.memory.redis_session import RedisSession
        from redis.asyncio import Redis

        self.state = state
        self.client = Redis.from_url(url, max_connections=ENOUGH_CONNECTIONS)
        self.make: Any = RedisSession

    async def load(self, task: int) -> dict[str, Any] | None:
        """Read the last message."""
        found = await self.make(f"openai:{task}", redis_client=self.client, ttl=TTL).get_items(1)
        return orjson.loads(found[0]["content"]) if found else None

    async def save(self, task: int, state: dict[str, Any]) -> None:
        """Append one."""
        message = {"role": "user", "content": orjson.dumps(state).decode()}
        await self.make(f"openai:{task}", redis_client=self.client, ttl=TTL).add_items([message])

    async def close(self) -> None:
        """Disconnect."""
        await self.client.aclose()


_RIVALS: Final[dict[str, tuple[str, type[Contestant]]]] = {
    "valkey-glide": ("glide", ValkeyGlide),
    "coredis": ("coredis", Coredis),
    "cashews": ("cashews", Cashews),
    "aiocache": ("aiocache", Aiocache),
    "starsessions": ("starsessions", Starsessions),
    "openai-agents": ("agents.extensions.memory", OpenaiAgents),
}
PEERS: Final = ("cashews", "aiocache", "starsessions", "openai-agents")
"""Those that keep sessions or caches; the others are clients."""


def installed_rivals() -> tuple[dict[str, type[Contestant]], list[str]]:
    """Return the rivals that are installed, and the names of those that are not."""
    there = {name: kind for name, (module, kind) in _RIVALS.items() if _importable(module)}
    return there, [name for name in _RIVALS if name not in there]


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False

"""A store of each kind with a back door to it. Must never be used but by tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from session_reuse.store.interface import Store
from session_reuse.store.keys import Keys
from session_reuse.store.memory import MemoryStore
from session_reuse.store.redis_store import RedisStore

Plant = Callable[[str, Any], Any]


class Kit:
    """A store, and a back door to put any value under a session's key."""

    def __init__(self, store: Store, plant: Plant, set_aside: Callable[[str], Any]) -> None:
        self.store = store
        self.plant = plant
        self.set_aside = set_aside


def redis_kit(client: Any) -> Kit:
    """Return a kit over a Redis client, real or fake."""
    keys = Keys()

    async def plant(fingerprint: str, value: Any) -> None:
        key = keys.session(fingerprint)
        await client.delete(key)
        await (client.set(key, value) if isinstance(value, bytes) else client.lpush(key, "an item"))

    async def set_aside(fingerprint: str) -> Any:
        return await client.exists(keys.of(fingerprint).quarantine)

    return Kit(RedisStore(client, keys), plant, set_aside)


def memory_kit() -> Kit:
    """Return a kit over a store in memory."""
    store = MemoryStore()

    async def plant(fingerprint: str, value: Any) -> None:
        store.put(fingerprint, value)

    async def set_aside(fingerprint: str) -> Any:
        return fingerprint in store.set_aside

    return Kit(store, plant, set_aside)

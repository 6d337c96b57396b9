"""One store of each kind, and a manager over it: what holds for one must hold for all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis.asyncio

from session_reuse import SessionManager
from session_reuse.testing import Store
from tests.kit.stores import Kit, memory_kit, redis_kit

PATIENT = {"attempt_timeout": 20.0, "restore_timeout": 60.0, "save_timeout": 60.0}
"""Budgets of tests that are not about budgets: a busy machine takes seconds."""


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def kit(request: pytest.FixtureRequest) -> AsyncIterator[Kit]:
    """Each kind of store in turn, empty."""
    if request.param == "memory":
        made = memory_kit()
    else:
        server = request.getfixturevalue("redis_server")
        made = redis_kit(redis.asyncio.Redis.from_url(server.url, protocol=2))
    yield made
    await made.store.aclose()
    await made.client.aclose()


@pytest.fixture
def store(kit: Kit) -> Store:
    """The store alone."""
    return kit.store


@pytest.fixture
async def over(store: Store) -> AsyncIterator[Callable[..., SessionManager]]:
    """Make managers over the store. They are closed at the end."""
    made: list[SessionManager] = []

    def make(**config: Any) -> SessionManager:
        made.append(SessionManager(store, **{"registry": None, **PATIENT, **config}))
        return made[-1]

    yield make
    for manager in made:
        await manager.aclose()


@pytest.fixture
def manager(over: Callable[..., SessionManager]) -> SessionManager:
    """A manager over the store with the defaults."""
    return over()

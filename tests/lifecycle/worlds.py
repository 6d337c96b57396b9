"""Two processes over one store, whose way to it can be cut for each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from session_reuse import BrowserSession, SessionManager, reusable_session
from session_reuse.testing import Fault, FaultyStore, MemoryStore, memory_manager, state_with_cookie

NAME = "shop.example/alice"


class Process:
    """A manager with its own way to the store.

    Args:
        memory: the store.
        config: fields of `session_reuse.Config`.

    Attributes:
        lost: what `on_lost` was called with.
    """

    def __init__(self, memory: MemoryStore, **config: Any) -> None:
        self.memory = memory
        self.way = FaultyStore(memory)
        self.lost: list[tuple[str, str]] = []
        settings = {"close_timeout": 0.2, "on_lost": lambda *told: self.lost.append(told), **config}
        self.manager: SessionManager = memory_manager(self.way, **settings)

    def cut(self) -> None:
        """Have the store out of reach of this process."""
        self.way.fail = Fault.UNAVAILABLE

    def heal(self) -> None:
        """Have it back."""
        self.way.heal()

    def enter(self, name: str = NAME, agent: str | None = None, **options: Any) -> reusable_session:
        """Enter a session of this process."""
        return reusable_session(name, agent, manager=self.manager, **options)

    async def log_in(self, value: str = "first", name: str = NAME, **data: Any) -> None:
        """Leave a stored session with one login cookie."""
        async with self.enter(name) as session:
            session.storage_state = state_with_cookie(value=value)
            session.data.update(data)
        assert session.save_outcome in {"saved", "merged"}, session.save_outcome


@asynccontextmanager
async def processes(memory: MemoryStore, count: int = 2, **config: Any) -> AsyncIterator[list[Process]]:
    """Run so many processes over one store. They are closed at the end."""
    made = [Process(memory, **config) for _ in range(count)]
    try:
        yield made
    finally:
        for process in made:
            await process.manager.aclose()


def login_of(session: BrowserSession | None) -> str:
    """Return the value of the login cookie. Empty for none."""
    cookies = session.storage_state["cookies"] if session is not None else []
    return str(cookies[0]["value"]) if cookies else ""


def stored(memory: MemoryStore, name: str = NAME) -> BrowserSession:
    """Return the stored session, which must be there."""
    value = memory.peek(name)
    assert value is not None
    return BrowserSession.import_(value)

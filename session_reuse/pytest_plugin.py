"""Fixtures for users' own tests.

Every test run loads this module, so it imports nothing but pytest until a fixture is used.

`session_reuse_store` is a `MemoryStore`, `session_reuse_manager` a manager over it, `session_reuse_events` a list of the log events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from session_reuse._manager import SessionManager
    from session_reuse.testing import MemoryStore


class LoggedEvent(NamedTuple):
    """One log event: its name from the reference of log events, its level as in `logging`, its fields."""

    event: str
    level: int
    fields: dict[str, object]


@pytest.fixture
def session_reuse_store() -> MemoryStore:
    """An empty store in memory that behaves as Redis does."""
    from session_reuse.testing import MemoryStore

    return MemoryStore()


@pytest.fixture
def session_reuse_manager(session_reuse_store: MemoryStore) -> SessionManager:
    """A manager over `session_reuse_store`, for `reusable_session(manager=...)`.

    For synchronous code, make `session_reuse.blocking.SessionManager(session_reuse_store)`.
    """
    from session_reuse.testing import memory_manager

    return memory_manager(session_reuse_store)


@pytest.fixture
def session_reuse_events(monkeypatch: pytest.MonkeyPatch) -> list[LoggedEvent]:
    """The log events of this package during the test, in order, with any configuration of logging."""
    from session_reuse._telemetry import logs, store_health

    monkeypatch.setattr(store_health, "_stores", {})  # else an outage known from an earlier test is not logged again
    events: list[LoggedEvent] = []
    write = logs.Log._write  # noqa: SLF001  (of the same package)

    def captured(log: logs.Log, level: int, event: logs.Event, fields: dict[str, object]) -> None:
        events.append(LoggedEvent(event.value, level, dict(fields)))
        write(log, level, event, fields)

    monkeypatch.setattr(logs.Log, "_write", captured)
    return events

"""Read-only looks behind a manager, for what no public name shows. The only place of the tests that knows its parts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from session_reuse._browser_session import wiring_of
from session_reuse._manager import runtime_of

if TYPE_CHECKING:
    from session_reuse import BrowserSession, SessionManager, reusable_session
    from session_reuse._resilience.breaker import CircuitBreaker
    from session_reuse._session.composition import Runtime
    from session_reuse._session.replica import Replica


def runtime(manager: SessionManager) -> Runtime:
    """Return the parts of a manager that has been used."""
    found = manager._runtime
    assert found is not None, "the manager was not used"
    return found


async def parts_of(manager: SessionManager) -> Runtime:
    """Return the parts of a manager, which it makes at its first use."""
    return await runtime_of(manager)


def waiting_of(manager: SessionManager) -> list[Replica]:
    """Return the sessions whose changes wait for the store."""
    return list(runtime(manager).writer.replicas.waiting())


async def files_are_written(manager: SessionManager, fingerprint: str) -> None:
    """Wait until the spool has tried to write all that it is to write of a session."""
    disk = runtime(manager).writer.disk
    assert disk is not None, "the manager has no spool_dir"
    await disk.written(fingerprint, 60.0)


def reading_of_folder(manager: SessionManager) -> asyncio.Task[None]:
    """Have a manager read what is in its spool, and return the task that does."""
    disk = runtime(manager).writer.disk
    assert disk is not None, "the manager has no spool_dir"
    disk.replay()
    assert disk._replaying is not None
    return disk._replaying


def was_used(manager: SessionManager) -> bool:
    """Return whether a manager has parts."""
    return manager._runtime is not None


def breakers_of(manager: SessionManager) -> Sequence[CircuitBreaker]:
    """Return the breakers for reads and for writes of the store as a whole."""
    breakers = runtime(manager).guarded.at()
    return breakers.read, breakers.write


def has_probe_out(breaker: CircuitBreaker) -> bool:
    """Return whether a half-open breaker waits for the result of a probe."""
    return breaker._probe_is_out


def pool_of(manager: SessionManager) -> Any:
    """Return the connection pool of redis-py."""
    connection = runtime(manager).connection
    assert connection is not None, "the store has no connection"
    return connection.client.connection_pool


def in_use(pool: Any) -> int:
    """Return how many connections of a pool are taken."""
    return len(pool._in_use_connections)


def connections_of(node: Any) -> list[Any]:
    """Return the connections of redis-py to a node of a Cluster."""
    return list(node._connections)


def fencing_token(visit: reusable_session) -> int | None:
    """Return the fencing token of a session that is entered. None without a lease."""
    scope = visit._scope
    holder = scope._lease if scope is not None else None
    return holder.lease.token if holder is not None and holder.lease is not None else None


def idle(pool: Any) -> list[Any]:
    """Return the connections of a pool that are free."""
    return list(pool._available_connections)


def captures_of(session: BrowserSession) -> list[Any]:
    """Return the captures that are bound to a session."""
    return list(wiring_of(session).captures)


def capture_reason_of(session: BrowserSession) -> str | None:
    """Return why what was captured last is not saved. None if it is."""
    return wiring_of(session).capture_reason


def serve_by(session: BrowserSession, backend: Any) -> None:
    """Let an object of a test carry out the saves of a session."""
    wiring_of(session).backend = backend


def keeper_of(session: BrowserSession) -> Any:
    """Return what carries out the saves of a session."""
    return wiring_of(session).backend

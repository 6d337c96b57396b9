"""Report and close managers that were not closed before their event loop, process or last reference ended."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet, ref

if TYPE_CHECKING:
    from session_reuse._manager import SessionManager
    from session_reuse._session.changes import Change
    from session_reuse._session.replica import Replicas
    from session_reuse._telemetry import Telemetry
    from session_reuse.config import LostCallback

managers: Final[WeakSet[SessionManager]] = WeakSet()
"""All managers of this process."""
_NOT_CLOSED: Final = "the manager was not closed"
_parents: Final[list[Any]] = []
"""What a forked child has from its parent. Freed, it would take the parent's sockets out of an epoll that both share."""


def _report_all_lost() -> None:
    for manager in list(managers):
        manager._report_lost_saves()  # noqa: SLF001


def _start_anew_in_child() -> None:
    for manager in list(managers):
        _parents.extend((vars(manager).copy(), forget_connections(manager._given)))  # noqa: SLF001
        if not manager.closed:
            manager._start_anew()  # noqa: SLF001


atexit.register(_report_all_lost)  # at import, so that the hooks of `_background` and of applications run first
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_in_child)


def report_lost(
    replicas: Replicas,
    telemetry: Telemetry,
    process: int,
    on_disk: Mapping[str, Mapping[str, Change]],
    on_lost: LostCallback | None = None,
) -> None:
    """Count and log the changes that still wait, when their manager is collected or at interpreter exit.

    Args:
        replicas: what waits. No argument may refer to the manager, which would then live until the process ends.
        telemetry: of the manager.
        process: whose changes they are. A forked child has them as well, and reports nothing.
        on_disk: fingerprint -> name -> change of those that are in `spool_dir`, and are not lost.
        on_lost: the application's function. None when the manager is collected: it may refer to the manager.
    """
    if process != os.getpid():
        return
    for replica in replicas.waiting():
        held = on_disk.get(replica.fingerprint, {})
        for change in [each for each in replica.outbox if held.get(each.name) is not each]:
            replicas.remove(replica, [change])
            if change.has_content:
                telemetry.lost(replica.fingerprint, _NOT_CLOSED, on_lost)
    telemetry.pending(0)
    telemetry.close()


async def until_loop_ends(manager: ref[SessionManager]) -> AsyncIterator[None]:
    """Tell a manager that its event loop ends: `asyncio.run` closes the asynchronous generators that are left."""
    try:
        yield
    finally:
        if (left := manager()) is not None:
            await left._loop_ends()  # noqa: SLF001


def close_sockets(client: object) -> None:
    """Close the connections of a redis-py client whose event loop has ended, without asking the loop."""
    for connection in _connections(client):
        transport: Any = getattr(getattr(connection, "_writer", None), "transport", None)
        connection._writer = connection._reader = None  # noqa: SLF001
        # asyncio closes a transport by a callback, which a closed loop does not take. uvloop has closed it already.
        transport = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None) or transport
        socket = getattr(transport, "_sock", None)
        if socket is not None:
            with contextlib.suppress(OSError):
                socket.close()
            transport._sock = None  # noqa: SLF001


def forget_connections(client: object) -> list[Any]:
    """Take the connections of the parent process out of a client, in a forked child, and return them."""
    parents = list(_connections(client))
    for pool in _pools(client):
        pool.reset()
    for node in _nodes(client):
        node._connections.clear()  # noqa: SLF001
        node._free.clear()  # noqa: SLF001
    return parents


def _connections(client: object) -> Iterator[Any]:
    for pool in _pools(client):
        yield from [*getattr(pool, "_available_connections", ()), *getattr(pool, "_in_use_connections", ())]
    for node in _nodes(client):
        yield from list(node._connections)  # noqa: SLF001


def _pools(client: object) -> Iterator[Any]:
    """Yield the pool of a client, and those to the sentinels that it asks for the primary."""
    pool = getattr(client, "connection_pool", None)
    if pool is not None:
        yield pool
    for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
        yield from _pools(sentinel)


def _nodes(client: object) -> list[Any]:
    manager = getattr(client, "nodes_manager", None)
    known = [getattr(manager, name, {}) for name in ("nodes_cache", "startup_nodes")]
    return list({id(node): node for nodes in known for node in nodes.values()}.values())  # two of a name are equal

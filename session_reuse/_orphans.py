"""Report and close managers that were not closed before their event loop, process or last reference ended."""

from __future__ import annotations

import atexit
import os
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet, ref

from session_reuse._store.redis.redis_py import forget_connections

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
os.register_at_fork(after_in_child=_start_anew_in_child)


def report_lost(
    replicas: Replicas,
    telemetry: Telemetry,
    process: int,
    on_disk: Mapping[str, Mapping[str, Change]],
    on_lost: LostCallback | None = None,
) -> None:
    """Count and log the changes that are not settled, when their manager is collected or at interpreter exit.

    Args:
        replicas: what waits. No argument may refer to the manager, which would then live until the process ends.
        telemetry: of the manager.
        process: whose changes they are. A forked child has them as well, and reports nothing.
        on_disk: fingerprint -> name -> change of those that are in `spool_dir`, and are not lost.
        on_lost: the application's function. None when the manager is collected: it may refer to the manager.
    """
    if process != os.getpid():
        return
    for replica in replicas.unsettled():  # in a loop that was only closed, also what was on its way
        held = on_disk.get(replica.fingerprint, {})
        for change in [each for each in replica.unsettled if held.get(each.name) is not each]:
            replicas.remove(replica, [change])
            if change.has_content:
                telemetry.lost(replica.fingerprint, _NOT_CLOSED, on_lost)
    telemetry.pending(0)
    telemetry.close()


async def until_loop_ends(manager: ref[SessionManager]) -> AsyncGenerator[None]:
    """Tell a manager that its event loop ends: `asyncio.run` closes the asynchronous generators that are left."""
    try:
        yield
    finally:
        if (left := manager()) is not None:
            await left._loop_ends()  # noqa: SLF001

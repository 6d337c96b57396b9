"""What all visits of one manager share. Must hold no state of a single visit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from session_reuse._telemetry import Operation, Telemetry
from session_reuse.outcome import Outcome
from session_reuse.resilience.failure import Failure
from session_reuse.resilience.guard import Guard
from session_reuse.resilience.pending import PendingSaves
from session_reuse.state.codec import Codec
from session_reuse.store.interface import Store
from session_reuse.store.keys import Keys

if TYPE_CHECKING:
    from session_reuse.config import Config
    from session_reuse.lifecycle.request import SaveRequest
    from session_reuse.lifecycle.spooling import Spooler


_REMEMBERED_AGENTS: Final = 4096


class Turn(asyncio.Lock):
    """A lock that knows how many hold it or wait for it."""

    users = 0


class Leaving:
    """Visits that leave at this moment in the caller's task, so that a close can wait for them."""

    __slots__ = ("_count", "_over")

    def __init__(self) -> None:
        self._count = 0
        self._over: asyncio.Event | None = None

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if self._over is not None and not self._count:
            self._over.set()

    def __bool__(self) -> bool:
        return self._count > 0

    async def over(self) -> None:
        """Wait until nobody leaves."""
        self._over = asyncio.Event()
        if self._count:
            await self._over.wait()


@dataclass(slots=True, kw_only=True)
class Services:
    """The store and the ways to it, the codec, the waiting saves, telemetry, background tasks."""

    config: Config
    keys: Keys
    store: Store
    guard: Guard
    codec: Codec
    telemetry: Telemetry
    pending: PendingSaves[SaveRequest]
    spooler: Spooler | None = None
    on_pending: Callable[[], None] = lambda: None
    on_failure: Callable[[Failure], None] = lambda _: None
    wall_clock: Callable[[], float] = time.time
    last_fingerprints: dict[str, str] = field(default_factory=dict)
    """The last fingerprint of agents seen in this process, for when the store cannot be asked."""
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    leaving: Leaving = field(default_factory=Leaving)
    _turns: dict[str, Turn] = field(default_factory=dict)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run work in a task of its own that lives until it is done or the manager is closed."""
        task = asyncio.get_running_loop().create_task(work, name=f"session_reuse:{name}")
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def server_of(self, fingerprint: str) -> str:
        """Return which server a session lives on, so that another one's trouble is not its own."""
        return self.store.server_of(self.keys.session(fingerprint))

    def queue_up(self, fingerprint: str) -> Turn:
        """Return the lock that puts this process's saves of one session in a row; to be given back by `step_back`."""
        turn = self._turns.get(fingerprint)
        if turn is None:
            turn = self._turns[fingerprint] = Turn()
        turn.users += 1
        return turn

    def step_back(self, fingerprint: str, turn: Turn) -> None:
        """Forget a turn that nobody waits for."""
        turn.users -= 1
        if not turn.users:
            del self._turns[fingerprint]

    def remember_fingerprint(self, agent_id: str, fingerprint: str) -> None:
        """Note an agent's last fingerprint; the oldest notes give way."""
        self.last_fingerprints.pop(agent_id, None)
        self.last_fingerprints[agent_id] = fingerprint
        if len(self.last_fingerprints) > _REMEMBERED_AGENTS:
            del self.last_fingerprints[next(iter(self.last_fingerprints))]

    def degraded(self, operation: Operation | str, failure: Failure, fingerprint: str) -> Outcome:
        """Count and log that the store did not do something, and return the reason."""
        self.telemetry.degraded(operation, failure.error, code=failure.code, fingerprint=fingerprint)
        self.on_failure(failure)
        return failure.error.outcome

    def note_failure(self, operation: Operation | str, failure: Failure, fingerprint: str) -> None:
        """Log a failure that is counted elsewhere."""
        self.telemetry.store_failed(operation, failure.error, code=failure.code, fingerprint=fingerprint)
        self.on_failure(failure)

"""Pools: one of many identities for each agent, the one that rested longest first."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from session_reuse._browser_session import BrowserSession
from session_reuse._resilience.failure import AttemptFailed, store_errors
from session_reuse._session.composition import Runtime
from session_reuse._session.guarded_store import Access, Request
from session_reuse._session.options import ResolvedOptions
from session_reuse._session.scope import SessionScope
from session_reuse._state.header import Header, judge
from session_reuse._store.interface import PassedMember, PoolEdit, PoolMember, SessionEntry
from session_reuse._store.keys import checked, is_name
from session_reuse._stored_form import new_save_id
from session_reuse._telemetry import Event, Operation, log
from session_reuse.errors import CorruptStateError, SessionBusyError, SessionReuseError
from session_reuse.outcome import Outcome

T = TypeVar("T")

_POLL: Final = (0.02, 0.1)
"""Shortest and longest pause between two calls for a member, in seconds."""
_RESERVATION: Final = 2.0
"""Seconds for a reservation to become a lease. A lost one costs no more, and one that ends early costs others a look."""
_HELD_PAUSE: Final = 2.0
"""Seconds after which a member in use is looked at again: a holder from outside of the pool, such as a probe, frees its lease only."""
_UNWANTED_PAUSE: Final = 1.0
"""Seconds after which an agent looks again at a member that it does not want, such as one past its `max_age`: a new login may be there."""
_RETIRED_PAUSE: Final = 60.0
"""Seconds after which a retired member is looked at again: it may have been evicted meanwhile, for a new login.

Nothing but a cooldown keeps a member for longer. One that is free later has seen a server whose clock was ahead.
"""


def fingerprint_in(pool: str, member: str) -> str:
    """Return the fingerprint of a member."""
    return f"{pool}/{member}"


def members_of(runtime: Runtime, pool: str) -> Awaitable[list[PoolMember]]:
    """Return the members of a pool, the next one to be used first. Await it at once.

    Raises:
        AttemptFailed: the store is away.
    """
    return runtime.guarded.run_on(
        Access.READ, runtime.keys.pool(pool)[0], runtime.config.save_timeout,
        lambda store, timeout: store.pool_members(pool, timeout=timeout),
    )  # fmt: skip


class Pool:
    """The members of one pool: `manager.pool("shop.example")`."""

    def __init__(self, name: str, runtime: Callable[[], Awaitable[Runtime]]) -> None:
        self.name = checked(name, "pool")
        self._runtime = runtime

    async def add(self, *members: str) -> int:
        """Add identities. Return how many are new. The fingerprint of `alice` in `shop.example` is `shop.example/alice`.

        Raises:
            StoreError: the store did not do it.
        """
        for member in members:
            checked(fingerprint_in(self.name, checked(member, "member")), "fingerprint")
        return await self._edit("add", members)

    async def remove(self, *members: str) -> int:
        """Remove identities. Return how many were there. Their sessions stay stored, and agents that have one keep it.

        Raises:
            StoreError: the store did not do it.
        """
        for member in members:
            checked(member, "member")
        return await self._edit("remove", members)

    async def members(self) -> list[str]:
        """Return the names of the members, in order.

        Raises:
            StoreError: the store is away.
        """
        runtime = await self._runtime()
        with store_errors(runtime.telemetry.named):
            return sorted(member.name for member in await members_of(runtime, self.name))

    async def _edit(self, edit: PoolEdit, members: tuple[str, ...]) -> int:
        runtime = await self._runtime()
        if not members:
            return 0
        request_id = new_save_id(runtime.clock.chance)
        with store_errors(runtime.telemetry.named):
            return await runtime.guarded.run_on(
                Access.WRITE, runtime.keys.pool(self.name)[0], runtime.config.save_timeout,
                lambda store, timeout: store.edit_pool(self.name, edit, members, request_id, timeout=timeout),
            )  # fmt: skip


class Turn:
    """One agent's way to a member: queue, reservation, lease, and the way back."""

    def __init__(
        self, runtime: Runtime, pool: str, agent_id: str | None, options: ResolvedOptions,
        session_class: type[BrowserSession],
    ) -> None:  # fmt: skip
        self._runtime = runtime
        self._pool = checked(pool, "pool")
        self._agent_id = agent_id
        self._options = options
        self._session_class = session_class
        self._waiter = secrets.token_hex(8)
        self._arrival = 0
        self._member = ""
        self._reserved_until = 0
        self._others: Sequence[tuple[str, str]] = ()
        self._passed: list[PassedMember] = []
        """Members that will not do, for the next call."""
        self._unwanted: dict[str, float] = {}
        """Members that others may want, and until when they are not looked at again."""
        self._fit: set[str] = set()
        self._deadline = 0.0

    @property
    def _budget(self) -> float:
        """Seconds for a request: at most `restore_timeout`, which for all of them is on top of the wait."""
        return min(self._runtime.config.restore_timeout, self._deadline - self._runtime.guarded.time())

    async def enter(self) -> tuple[BrowserSession, SessionScope]:
        """Return an entered session of a member. A fresh one that is not saved when none is free in time.

        Raises:
            SessionBusyError: none is free in time, and `on_busy="raise"`.
            StoreError: with `strict`.
        """
        try:
            return await self._enter()
        except BaseException:  # whatever ends it, neither a reservation nor a place in the queue stays behind
            self._give_up()
            raise

    async def _enter(self) -> tuple[BrowserSession, SessionScope]:
        clock, give_up = self._runtime.clock, self._runtime.clock.elapsed() + self._options.wait
        self._deadline = self._runtime.guarded.time() + self._options.wait + self._runtime.config.restore_timeout
        while True:
            try:
                left = await self._reserve()
            except AttemptFailed as failure:
                telemetry, error = self._runtime.telemetry, failure.error
                telemetry.store_failed(Operation.RESTORE, error, code=failure.code, fingerprint=self._pool)
                return self._without(error.outcome, telemetry.named(error) if self._options.strict else None)
            if self._member:
                entered = await self._enter_member()
                if entered is not None:
                    return entered
                if self._budget > 0:
                    continue
                left = 0.0
            until = give_up - clock.elapsed()
            if left is None or until <= 0:
                self._give_up()
                return self._nobody(is_empty=left is None)
            pause = min(until, max(_POLL[0], min(left, _POLL[1])))
            await asyncio.sleep(pause * clock.chance.uniform(0.5, 1.0))

    async def _reserve(self) -> float | None:
        """Reserve a member, if it is this agent's turn. Return the seconds until one may be free, None without any."""
        now = self._runtime.clock.elapsed()
        self._unwanted = {name: until for name, until in self._unwanted.items() if until > now}
        passed = [*(PassedMember(name, "-1", 0.0) for name in self._unwanted), *self._passed]
        reply = await self._run(
            Access.READ, self._budget,
            lambda store, timeout: store.take_from_pool(
                self._pool, self._waiter, self._arrival, _RESERVATION, _RETIRED_PAUSE, passed, timeout=timeout
            ),
        )  # fmt: skip
        self._arrival, self._member, self._reserved_until = reply.arrival, reply.member, reply.reserved_until
        self._others, self._passed = reply.others, []
        return reply.left

    async def _enter_member(self) -> tuple[BrowserSession, SessionScope] | None:
        """Enter the session of the reserved member. If it will not do, look at all others that are free, and return None."""
        runtime, member, score = self._runtime, self._member, str(self._reserved_until)
        if member not in self._fit and not await self._is_fit(member, score):
            # At once: on a far store, one after the other would take longer than an enter may.
            looks = await asyncio.gather(*(self._is_fit(*other) for other in self._others))
            self._fit = {name for (name, _), is_fit in zip(self._others, looks, strict=True) if is_fit}
            return None
        session, scope = self._scope(
            fingerprint_in(self._pool, member), spent=runtime.config.restore_timeout - self._budget
        )
        await scope.enter()
        if session.outcome is Outcome.BUSY:  # another agent was faster
            self._fit.discard(member)
            self._passed.append(PassedMember(member, score, _HELD_PAUSE))
            return None
        if self._agent_id is not None:
            runtime.writer.replicas.remember_fingerprint(self._agent_id, session.fingerprint)
        if not self._options.counted_later:
            scope.count()
        scope.on_left = lambda cooldown: self._return(member, cooldown, 0)
        return session, scope

    async def _is_fit(self, member: str, score: str) -> bool:
        """Return whether a free member will do. If not, note that for the next call."""
        name, pause = fingerprint_in(self._pool, member), _RETIRED_PAUSE
        if is_name(name):  # `add` refuses others, another program does not
            try:
                found = await self._runtime.guarded.run(
                    Access.READ, name, self._budget,
                    lambda store, timeout: store.member_facts(self._pool, member, name, score, timeout=timeout),
                )  # fmt: skip
            except AttemptFailed:
                return True  # the enter says what is wrong
            unfit = self._unfit(found)
            if unfit is None:
                return True
            pause = unfit
        if pause == 0:
            self._unwanted[member] = self._runtime.clock.elapsed() + _UNWANTED_PAUSE
        if pause > 0 or member == self._member:  # what is not reserved is free for others as it is
            self._passed.append(PassedMember(member, score, pause))
        return False

    def _unfit(self, found: SessionEntry | None) -> float | None:
        """Return for how long a member need not be looked at again: 0 for one that others may want, None for one that will do."""
        if found is None:  # its last holder has given it back, and it may cool down
            return _HELD_PAUSE
        if found.holder:
            return min(max(_POLL[0], found.lease_left), _HELD_PAUSE)
        try:
            header = Header.decode(found.head)
        except CorruptStateError:
            return None
        verdict = partial(
            judge, header, now=self._runtime.clock.wall(), retire_after_bad=self._runtime.config.retire_after_bad
        )
        if verdict() is not Outcome.REUSED:
            return _RETIRED_PAUSE
        wanted = verdict(max_age=self._options.max_age, max_uses=self._options.max_uses) is Outcome.REUSED
        return None if wanted else 0.0

    def _give_up(self) -> None:
        """Free what is reserved, and the place in the queue, in the background."""
        if self._member:
            self._runtime.spawn(self._return(self._member, 0.0, self._reserved_until), "release")
        self._runtime.spawn(self._leave_queue(), "release")

    async def _return(self, member: str, cooldown: float, reserved_until: int) -> None:
        """Free a member after a pause. While the store is away, a cooldown is tried again until it is over."""
        clock, retry = self._runtime.clock, 0.05
        until = clock.elapsed() + cooldown
        while True:
            try:
                return await self._run(
                    Access.WRITE, self._runtime.config.save_timeout,
                    lambda store, timeout: store.return_to_pool(
                        self._pool, member, max(0.0, until - clock.elapsed()), reserved_until, timeout=timeout
                    ),
                )  # fmt: skip
            except AttemptFailed as failure:
                error, code = failure.error, failure.code
                self._runtime.telemetry.degraded(Operation.LEASE, error, code=code, fingerprint=self._pool)
            if reserved_until or until - clock.elapsed() <= retry:  # its reservation and its lease end by themselves
                return None
            await asyncio.sleep(retry)
            retry = min(2 * retry, 5.0)

    def _run(self, access: Access, budget: float, request: Request[T]) -> Awaitable[T]:
        return self._runtime.guarded.run_on(access, self._runtime.keys.pool(self._pool)[0], budget, request)

    async def _leave_queue(self) -> None:
        try:
            await self._run(
                Access.WRITE, self._runtime.config.save_timeout,
                lambda store, timeout: store.leave_pool(self._pool, self._waiter, timeout=timeout),
            )  # fmt: skip
        except AttemptFailed as failure:  # its place ends by itself, as it does not call any more
            log.debug(Event.DEGRADED, operation="pool", error=failure.code)

    def _nobody(self, *, is_empty: bool) -> tuple[BrowserSession, SessionScope]:
        if is_empty:
            log.warning(Event.POOL_EMPTY, fingerprint=self._pool, remedy="session-reuse pool add")
        why = "has no members" if is_empty else "has no member that is free"
        error = SessionBusyError(f"the pool {self._pool!r} {why}") if self._options.on_busy == "raise" else None
        return self._without(Outcome.BUSY, error)

    def _without(self, outcome: Outcome, error: SessionReuseError | None) -> tuple[BrowserSession, SessionScope]:
        """Return a fresh session that is not saved, as it belongs to no identity. Raise an error in its place, if any."""
        if error is not None:
            self._runtime.telemetry.entered(self._pool, outcome, 0.0)
            raise error from None
        session, scope = self._scope(self._pool, exclusive=False)
        scope.enter_without(outcome)
        return session, scope

    def _scope(self, name: str, *, exclusive: bool = True, spent: float = 0.0) -> tuple[BrowserSession, SessionScope]:
        """Return a session and its scope: it does not wait, and what fails is seen to here."""
        inner = replace(self._options, exclusive=exclusive, wait=0.0, on_busy="fresh", counted_later=True)
        session = self._session_class(name, self._agent_id)
        return session, self._runtime.scope(session, inner, spent=spent)

"""Pools of identities: who is free, and who waits, in one slot of a Cluster for each pool."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final

from session_reuse._store.interface import PassedMember, PoolEdit, PoolMember, PoolReply, SessionEntry
from session_reuse._store.keys import Keys
from session_reuse._store.redis.failures import checked
from session_reuse._store.redis.listing import entry_from, facts_of
from session_reuse._store.redis.redis_py import Command, Replies
from session_reuse._store.redis.scripts import call, milliseconds, text

_GONE_US: Final = 5_000_000
"""A waiter that has not called for so long is gone. Waiters call at least ten times a second."""


class Pools(ABC):
    """The pools of a store.

    Attributes:
        keys: the names.
        server_of: returns which primary of a Cluster a key lives on, as far as is known now. Empty where there is only one.
    """

    keys: Keys
    server_of: Callable[[str], str]

    @abstractmethod
    async def send(self, *commands: Command, timeout: float, size: int = 0) -> Replies:
        """Send commands in one write to each server, and return their replies."""

    async def take_from_pool(
        self, pool: str, waiter: str, arrival: int, hold: float, longest: float, passed: Sequence[PassedMember] = (), *,
        timeout: float,
    ) -> PoolReply:  # fmt: skip
        """Reserve a member for `hold` seconds, none of the `passed`, or keep the place in the queue since `arrival`.

        A member that is free in more than `longest` seconds, and does not cool down, counts as free.
        """
        command = call(
            "pool_take", self.keys.pool(pool), waiter, arrival, round(hold * 1e6), _GONE_US, round(longest * 1e6),
            *(word for name, score, pause in passed for word in (name, score, round(pause * 1e6))),
        )  # fmt: skip
        (reply,) = await self.send(command, timeout=timeout)
        member, arrived, left, until, others = checked(reply)
        pairs = tuple(zip(map(text, others[::2]), map(text, others[1::2]), strict=True))
        return PoolReply(text(member), int(arrived), None if left < 0 else left / 1000, int(until), pairs)

    async def leave_pool(self, pool: str, waiter: str, *, timeout: float) -> None:
        """Remove a waiter from the queue."""
        _, waiters, seen = self.keys.pool(pool)
        await self.send(("ZREM", waiters, waiter), ("ZREM", seen, waiter), timeout=timeout)

    async def return_to_pool(
        self, pool: str, member: str, cooldown: float, reserved_until: int = 0, *, timeout: float
    ) -> None:  # fmt: skip
        """Free a member after `cooldown` seconds, if it is one still, and if this reservation stands (0: in any case)."""
        ms = milliseconds(cooldown) if cooldown > 0 else 0
        command = call("pool_return", self.keys.pool(pool)[:1], member, ms, reserved_until)
        checked((await self.send(command, timeout=timeout))[0])

    async def member_facts(
        self, pool: str, member: str, fingerprint: str, score: str | None = None, *, timeout: float
    ) -> SessionEntry | None:  # fmt: skip
        """Return what a listing shows of a member's session, without a head when there is none.

        None when the member has another score by now, if one is given: it was removed, or its last holder has given it back.
        """
        # The score comes last: a holder that has released the lease by then has set the cooldown before.
        key = self.keys.pool(pool)[0]
        commands: list[Command] = [facts_of(self.keys, fingerprint), ("ZSCORE", key, member)]
        if self.server_of(key) == self.server_of(self.keys.session(fingerprint)):
            found, stands = await self.send(*commands, timeout=timeout)
        else:  # two servers answer one request in any order
            found, stands = [(await self.send(each, timeout=timeout))[0] for each in commands]
        if score is not None and (checked(stands) is None or float(stands) != float(score)):
            return None
        return entry_from(fingerprint, found)

    async def edit_pool(
        self, pool: str, edit: PoolEdit, members: Sequence[str], request_id: str, *, timeout: float
    ) -> int:
        """Add or remove members, once for each request. Return how many. A new one is the first to be used."""
        names = (self.keys.pool(pool)[0], self.keys.pool_once(pool, request_id))
        commands: list[Command] = [call("pool_edit", names, edit, *members)]
        if edit == "add":
            commands.append(("ZADD", self.keys.pools, 0, pool))
        replies = [checked(reply) for reply in await self.send(*commands, timeout=timeout)]
        return int(replies[0])

    async def pool_members(self, pool: str, *, timeout: float) -> list[PoolMember]:
        """Return the members, the next one to be used first."""
        key = self.keys.pool(pool)[0]
        look, reply = await self.send(
            call("look", (self.keys.pool(pool)[1],)),
            ("ZRANGE", key, 0, -1, "WITHSCORES"),
            timeout=timeout,
        )
        now, found = int(checked(look)[0]), checked(reply)
        # RESP3 returns pairs, RESP2 a flat list.
        pairs = found if found and isinstance(found[0], list) else zip(found[::2], found[1::2], strict=True)
        return [PoolMember(text(name), max(0.0, (float(score) - now) / 1e6)) for name, score in pairs]

    async def pools(self, *, timeout: float) -> list[str]:
        """Return the names of all pools that ever had members."""
        (reply,) = await self.send(("ZRANGE", self.keys.pools, 0, -1), timeout=timeout)
        return [text(name) for name in checked(reply, self.keys.pools)]

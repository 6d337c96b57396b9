"""Pools of identities: who is free, and who waits, in one slot of a Cluster for each pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from session_reuse._store.interface import PoolMember, PoolReply
from session_reuse._store.keys import Keys
from session_reuse._store.redis.failures import checked
from session_reuse._store.redis.redis_py import Send
from session_reuse._store.redis.scripts import call, milliseconds, text

_GONE_US: Final = 5_000_000
"""A waiter that has not called for so long is gone. Waiters call at least ten times a second."""


class Pools:
    """The pools of one store.

    Args:
        keys: the names.
        send: sends commands.
    """

    def __init__(self, keys: Keys, send: Send) -> None:
        self._keys = keys
        self._send = send

    async def take(self, pool: str, waiter: str, arrival: int, hold: float, timeout: float) -> PoolReply:
        """Reserve a member, or take a place in the queue."""
        command = call("pool_take", self._keys.pool(pool), waiter, arrival, round(hold * 1e6), _GONE_US)
        (reply,) = await self._send(command, timeout=timeout)
        member, arrived, left, until = checked(reply)
        return PoolReply(text(member), int(arrived), None if left < 0 else left / 1000, int(until))

    async def leave(self, pool: str, waiter: str, timeout: float) -> None:
        """Remove a waiter from the queue."""
        _, waiters, seen = self._keys.pool(pool)
        await self._send(("ZREM", waiters, waiter), ("ZREM", seen, waiter), timeout=timeout)

    async def give_back(
        self, pool: str, member: str, cooldown: float, reserved_until: int, timeout: float
    ) -> None:  # fmt: skip
        """Free a member after so many seconds."""
        ms = milliseconds(cooldown) if cooldown > 0 else 0
        command = call("pool_return", self._keys.pool(pool)[:1], member, ms, reserved_until)
        checked((await self._send(command, timeout=timeout))[0])

    async def edit(self, pool: str, add: Sequence[str], remove: Sequence[str], timeout: float) -> int:
        """Add and remove members. Return how many were added or removed. A new one is the first to be used."""
        key = self._keys.pool(pool)[0]
        commands: list[tuple[str | int, ...]] = []
        if add:
            commands.append(("ZADD", key, "NX", *(part for member in add for part in (0, member))))
            commands.append(("ZADD", self._keys.pools, 0, pool))
        if remove:
            commands.append(("ZREM", key, *remove))
        replies = [checked(reply) for reply in await self._send(*commands, timeout=timeout)]
        return int(replies[0]) if add else int(replies[-1])

    async def members(self, pool: str, timeout: float) -> list[PoolMember]:
        """Return the members, the next one to be used first."""
        key = self._keys.pool(pool)[0]
        look, reply = await self._send(
            call("look", (self._keys.pool(pool)[1],)),
            ("ZRANGE", key, 0, -1, "WITHSCORES"),
            timeout=timeout,
        )
        now, found = int(checked(look)[0]), checked(reply)
        # RESP3 returns pairs, RESP2 a flat list.
        pairs = found if found and isinstance(found[0], list) else zip(found[::2], found[1::2], strict=True)
        return [PoolMember(text(name), max(0.0, (float(score) - now) / 1e6)) for name, score in pairs]

    async def names(self, timeout: float) -> list[str]:
        """Return the names of all pools that ever had members."""
        (reply,) = await self._send(("ZRANGE", self._keys.pools, 0, -1), timeout=timeout)
        return [text(name) for name in checked(reply)]

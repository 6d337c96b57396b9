"""Connections that the lanes keep, from redis-py's pool. Must never hand out one with a reply still on its way.

redis-py opens, authenticates, packs and parses. Left out is what its pipeline does besides for each batch: a lock and a
check of the pool, a task for the write, a timer for each reply, a shielded task to give the connection back. That was
90 of 180 µs for one cycle (measured 2026-11).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from session_reuse._cancellation import SwallowedCancellation
from session_reuse.store.batching import Command, Replies

try:
    from hiredis import pack_command as _pack
except ImportError:
    _pack = None  # type: ignore[assignment]


class LaneConnections:
    """As many connections as there are lanes at work, and no more than the pool has.

    Args:
        pool: a connection pool of asyncio redis-py.
        lanes: how many may be at work, the one for large values included.
    """

    def __init__(self, pool: Any, lanes: int) -> None:
        self._pool = pool
        most = getattr(pool, "max_connections", lanes)
        self._room = asyncio.Semaphore(most) if most < lanes else None
        """Who gives us a pool that is smaller than our lanes has them wait for each other."""
        self._idle: list[Any] = []
        self._generation = 0
        self._timeout: float | None = None
        """What the pool's connections have set, to be given back with it."""

    async def send(self, commands: Sequence[Command]) -> Replies:
        """Send commands in one write and return their replies, errors of single commands in their place.

        The caller sets the deadline, by cancelling.
        """
        if self._room is None:
            return await self._send(commands)
        async with self._room:
            return await self._send(commands)

    async def _send(self, commands: Sequence[Command]) -> Replies:
        connection = await self._ready()
        generation = self._generation
        try:
            await connection.send_packed_command(_packed(connection, commands), check_health=False)
            replies = [await _reply(connection) for _ in commands]
        except BaseException:
            await self._part_with(connection)
            raise
        if generation == self._generation:
            self._idle.append(connection)
        else:
            await self._part_with(connection)
        return replies

    async def _ready(self) -> Any:
        """Return a connection that is open, as far as one can know, and has nothing left to read."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_connected and not await connection.can_read():
                return connection
            await self._part_with(connection)
        cancellation = SwallowedCancellation()
        connection = await self._pool.get_connection()
        try:
            cancellation.raise_again()
        except asyncio.CancelledError:
            await self._pool.release(connection)
            raise
        # The lane has a deadline of its own; this one would start a task for each write.
        self._timeout, connection.socket_timeout = connection.socket_timeout, None
        return connection

    async def renew(self) -> None:
        """Part with all connections, with those at work when they are done: they lead to the wrong server."""
        self._generation += 1
        while self._idle:
            await self._part_with(self._idle.pop())

    async def _part_with(self, connection: Any) -> None:
        connection.socket_timeout = self._timeout
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)

    async def release(self) -> None:
        """Give the connections that are not in use back to the pool."""
        while self._idle:
            connection = self._idle.pop()
            connection.socket_timeout = self._timeout
            await self._pool.release(connection)


def _packed(connection: Any, commands: Sequence[Command]) -> list[bytes]:
    """Return commands as they go over the wire; by hiredis in a fifth of the time, as redis-py's synchronous client."""
    if _pack is not None:
        return [_pack(command) for command in commands]
    packed: list[bytes] = connection.pack_commands(commands)
    return packed


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error

"""One raw connection to each server of a store. Must never send a command that changes something.

Raw, because a question in the middle of MULTI has an answer that redis-py's clients do not expect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from session_reuse.resilience.failure import Failure
from session_reuse.store.failures import failure_from

ANSWER_LIMIT: Final = 3.0
"""Seconds for one answer."""


class Wire:
    """A connection to one server.

    Args:
        connection: of redis-py, not connected yet.
        name: of the server, where there are several.
    """

    def __init__(self, connection: Any, name: str = "") -> None:
        self._connection = connection
        self.name = name

    async def ask(self, *words: str | int) -> Any:
        """Send a command and return the answer as it came.

        Raises:
            Failure: there was none, or it was an error.
        """
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                if not self._connection.is_connected:
                    await self._connection.connect()
                await self._connection.send_command(*words, check_health=False)
                return await self._connection.read_response()
        except Exception as error:  # noqa: BLE001  (redis-py raises more than RedisError: see store/failures.py)
            raise failure_from(error) from None

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.disconnect(nowait=True)


def is_refused(failure: Failure) -> bool:
    """Return whether the user lacks a right. redis-py names it by its class or by the server's code."""
    return "NOPERM" in failure.code or "NoPermission" in failure.code


def is_elsewhere(failure: Failure) -> bool:
    """Return whether another server of the Cluster has the key: the way to ask was right."""
    return "MOVED" in failure.code.upper()


@asynccontextmanager
async def wires(client: Any) -> AsyncIterator[list[Wire]]:
    """Open a connection to the server, or to each primary of a Cluster.

    Raises:
        Failure: there is no server.
    """
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.aclose)
        opened = [Wire(*each) for each in await _connections(client)]
        for wire in opened:
            stack.push_async_callback(wire.aclose)
        yield opened


async def _connections(client: Any) -> list[tuple[Any, str]]:
    try:
        async with asyncio.timeout(ANSWER_LIMIT):
            if not hasattr(client, "get_primaries"):
                return [(client.connection_pool.make_connection(), "")]
            await client.initialize()
            return [(node.acquire_connection(), node.name) for node in client.get_primaries()]
    except Exception as error:  # noqa: BLE001  (as above)
        raise failure_from(error) from None

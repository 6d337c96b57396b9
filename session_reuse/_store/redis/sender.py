"""Groups of commands and scripts for the store; what goes wrong comes back as a `Failure`."""

from __future__ import annotations

from typing import Any, Final

from redis.exceptions import NoScriptError

from session_reuse._store.redis.failures import failure_from
from session_reuse._store.redis.redis_py import Command, Replies
from session_reuse._store.redis.scripts import script
from session_reuse._store.redis.topology import Topology

_SCRIPTS: Final = (
    "acquire", "commit", "count_use", "due", "facts", "forget_affinity", "index", "invalidate", "look", "note_liveness",
    "release", "renew", "settle", "slide", "take_agents",
)  # fmt: skip


class Sender:
    """Sends groups of commands; scripts go by name.

    Args:
        topology: where to.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._loaded: set[str] = set()

    async def send(self, *commands: Command, timeout: float, size: int = 0) -> Replies:
        """Send commands in one write to each server, and return their replies.

        Errors of single commands stand in their place; look at each with `checked`.

        Raises:
            Failure: nothing came through.
        """
        try:
            replies = await self._topology.execute(*commands, timeout=timeout, size=size)
            for command, reply in zip(commands, replies, strict=True):
                if isinstance(reply, NoScriptError):
                    await self._send_with_sources(commands, replies, timeout, size)
                    break
                if command[0] == "EVAL":
                    self._loaded.add(command[1])
        except Exception as error:  # noqa: BLE001  (redis-py raises more than RedisError: see failures.py)
            raise failure_from(error) from None
        return replies

    async def _send_with_sources(
        self, commands: tuple[Command, ...], replies: Replies, timeout: float, size: int
    ) -> None:  # fmt: skip
        """Send those scripts again that the server did not know; what was done is not done twice."""
        missed = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        again = [_with_source(commands[place]) for place in missed]
        if commands[-1][0] == "WAIT":
            missed.append(len(commands) - 1)
            again.append(commands[-1])
        for place, reply in zip(missed, await self._topology.execute(*again, timeout=timeout, size=size), strict=True):
            replies[place] = reply

    def script(self, name: str, keys: tuple[str, ...], *arguments: Any) -> Command:
        """Return the command that runs a script: EVAL, which also loads it, until it was answered once, then EVALSHA."""
        lua = script(name)
        if lua.source in self._loaded:
            return ("EVALSHA", lua.sha, len(keys), *keys, *arguments)
        return ("EVAL", lua.source, len(keys), *keys, *arguments)


def checked(reply: Any) -> Any:
    """Return a reply, or raise the Failure that stands in its place."""
    if isinstance(reply, Exception):
        raise failure_from(reply) from None
    return reply


def milliseconds(seconds: float) -> int:
    """Return a duration as Redis wants it; never 0, which it refuses."""
    return int(seconds * 1000 + 0.5) or 1


def text(reply: Any) -> str:
    """Return a reply as text."""
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def _with_source(command: Command) -> Command:
    source = next(lua.source for lua in map(script, _SCRIPTS) if lua.sha == command[1])
    return ("EVAL", source, *command[2:])

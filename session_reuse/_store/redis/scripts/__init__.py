"""The server-side scripts, as package data read once. Payloads stay out of them: Lua copies every byte."""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final

from session_reuse._store.redis.redis_py import Argument, Command

sources: Final[dict[str, str]] = {}
"""SHA-1, by which a server caches a script -> its source."""


@cache
def sha_of(name: str) -> str:
    """Return the SHA-1 of the script `<name>.lua`."""
    source = files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
    sha = sha1(source.encode(), usedforsecurity=False).hexdigest()
    sources[sha] = source
    return sha


def call(name: str, keys: tuple[str, ...], *arguments: Argument) -> Command:
    """Return the command that runs a script."""
    return ("EVALSHA", sha_of(name), len(keys), *keys, *arguments)


def with_source(command: Command) -> Command:
    """Return the command that runs the same script on a server that does not have it, and loads it."""
    return ("EVAL", sources[str(command[1])], *command[2:])


def milliseconds(seconds: float) -> int:
    """Return a duration as Redis takes it. It rejects 0."""
    return int(seconds * 1000 + 0.5) or 1


def text(reply: bytes | float | str) -> str:
    """Return a reply as text, whatever another program has written."""
    return reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)

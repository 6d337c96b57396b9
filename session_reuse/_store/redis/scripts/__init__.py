"""The server-side scripts, as package data read once. Payloads stay out of them: Lua copies every byte."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from hashlib import sha1
from importlib.resources import files

from session_reuse._store.redis.redis_py import Argument, Command

_known: dict[str, Script] = {}


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script and its SHA-1, by which the server caches it."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        """Compute the name that the server gives it."""
        object.__setattr__(self, "sha", sha1(self.source.encode(), usedforsecurity=False).hexdigest())


@cache
def script(name: str) -> Script:
    """Return the script `<name>.lua`."""
    lua = Script(files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8"))
    _known[lua.sha] = lua
    return lua


def call(name: str, keys: tuple[str, ...], *arguments: Argument) -> Command:
    """Return the command that runs a script."""
    return ("EVALSHA", script(name).sha, len(keys), *keys, *arguments)


def with_source(command: Command) -> Command:
    """Return the command that runs the same script on a server that does not have it, and loads it."""
    return ("EVAL", _known[str(command[1])].source, *command[2:])


def milliseconds(seconds: float) -> int:
    """Return a duration as Redis takes it. It rejects 0."""
    return int(seconds * 1000 + 0.5) or 1


def text(reply: bytes | float | str) -> str:
    """Return a reply as text, whatever another program has written."""
    return reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)

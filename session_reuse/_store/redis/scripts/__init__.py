"""The server-side scripts, as package data read once. Must never be given a payload: Lua pays for every byte."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script and its SHA-1, by which the server caches it."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        """Work out the name the server gives it."""
        object.__setattr__(self, "sha", sha1(self.source.encode(), usedforsecurity=False).hexdigest())


@cache
def script(name: str) -> Script:
    """Return the script `<name>.lua`."""
    return Script(files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8"))

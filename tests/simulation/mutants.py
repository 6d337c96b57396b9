"""Known faults, to be put back one by one: a simulator that does not find them proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault.

    Attributes:
        what: what goes wrong.
        apply: puts it into the code, for as long as the process lives.
    """

    what: str
    apply: Callable[[], None]


MUTANTS: dict[str, Mutant] = {}

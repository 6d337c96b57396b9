"""How the records of the hot path are made: nobody may change one, as far as type checkers can see. Must never be hashed.

A frozen dataclass sets each field through `object.__setattr__`. A cycle makes ten records with 95 fields: frozen ones
would cost as much as everything the SDK puts around the store (8 µs, measured 2026-11).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """Make a dataclass with slots; its instances are changed by `dataclasses.replace` only."""
    return dataclass(slots=True, kw_only=kw_only)

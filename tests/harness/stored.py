"""What a session leaves in Redis: the names of its keys, and the header of its value."""

from __future__ import annotations

from typing import Final

from session_reuse._state.header import Header
from session_reuse._store.keys import Keys

KEYS: Final = Keys()
"""The names of all keys under the default prefix."""


def header_in(value: object) -> Header:
    """Return the header of a stored value."""
    assert isinstance(value, bytes), "nothing is stored"
    return Header.decode(value)

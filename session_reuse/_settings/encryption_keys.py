"""Encryption keys: their forms in settings and in the environment. No error quotes a key."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from session_reuse.errors import ConfigurationError

KeySource: TypeAlias = "tuple[bytes, ...] | Callable[[], Iterable[bytes | str]]"

_LENGTH: Final = 32
_MAKE_A_KEY: Final = "make one with: openssl rand -base64 32"


def checked_source(keys: object) -> KeySource:
    """Return the setting `encryption_keys` in the form of `Config`: a callable, or a tuple of keys."""
    return keys if callable(keys) else key_list(keys)


def key_list(keys: object) -> tuple[bytes, ...]:
    """Return the keys of a list or of a single key.

    Raises:
        ConfigurationError: no list, an empty list, or a wrong key.
    """
    given = (keys,) if isinstance(keys, str | bytes) else keys
    if not isinstance(given, Iterable):
        raise ConfigurationError("encryption_keys must be a list of keys or a callable that returns one")
    listed = tuple(_key(key) for key in given)
    if len(listed) > 1 and isinstance(given, Mapping | set | frozenset):
        raise ConfigurationError("encryption_keys must be in order, such as a list: the first key seals")
    if not listed:
        # An empty list from a secret store that did not answer would switch encryption off.
        raise ConfigurationError(
            "encryption_keys holds no key, and sessions would be stored in plain: leave it out (None) to store them so"
        )
    return listed


def _key(key: object) -> bytes:
    if isinstance(key, str):
        key = _key_of_text(key.strip())
    if not isinstance(key, bytes) or len(key) != _LENGTH:
        raise ConfigurationError(
            f"encryption_keys: each key must be 32 bytes, or those in base64 or in 64 hex digits: {_MAKE_A_KEY}"
        )
    return key


def _key_of_text(text: str) -> bytes:
    try:
        if len(text) == 2 * _LENGTH:
            return bytes.fromhex(text)
        # Both alphabets of base64, with or without padding: what secret stores hand out.
        return base64.b64decode(text.translate(str.maketrans("-_", "+/")) + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(
            f"encryption_keys: a key is neither base64 nor 64 hex digits (pass phrases are not keys): {_MAKE_A_KEY}"
        ) from None

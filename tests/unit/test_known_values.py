"""A value that a process knows is not opened again: `Codec.decode(known=...)` accepts the very same bytes only."""

from __future__ import annotations

import pytest

from session_reuse._state.codec import Codec
from session_reuse._state.header import LENGTH, Header
from session_reuse.errors import CorruptStateError

KEY = "browser:session:shop.example/alice"
DOCUMENT = b'{"fingerprint":"shop.example/alice","storage_state":{"cookies":[],"origins":[]},"data":{"n":1}}'
HEADER = Header(save_ids=("0123456789ab",), created_at=1, saved_at=2)
SET_BY_SCRIPTS = {*range(16, 56), *range(130, 144), *range(158, LENGTH)}
"""Bytes of the header that the server's scripts change in place, and no seal covers."""


def both(codec: Codec) -> tuple[bytes, tuple[bytes, bytes]]:
    """Return a value, and what a process knows that has sealed it."""
    value = codec.encode(DOCUMENT, "o", HEADER, KEY)
    return value, (value, DOCUMENT)


@pytest.mark.parametrize("keys", [(), (b"k" * 32,)], ids=["checksum", "encrypted"])
def test_a_known_value_does_not_replace_the_seal(keys: tuple[bytes, ...]) -> None:
    """A value in which one bit is wrong is refused, although the process knows the right one."""
    codec = Codec(keys=keys)
    value, known = both(codec)
    assert codec.decode(value, KEY, known).trusted
    for place in set(range(len(value))) - SET_BY_SCRIPTS:
        damaged = bytearray(value)
        damaged[place] ^= 1
        with pytest.raises(CorruptStateError):
            codec.decode(bytes(damaged), KEY, known)
    assert codec.decode(value, KEY, known).document == DOCUMENT


def test_what_scripts_set_in_the_header_is_read_anew() -> None:
    """Invalidation, token, time of the save, uses, score and ttl come from the server's copy, not from memory."""
    codec = Codec()
    sealed, known = both(codec)
    value = bytearray(sealed)
    value[130:144] = b"00000000000009"
    value[158:174] = b"000000070015000a"
    decoded = codec.decode(bytes(value), KEY, known)
    header = decoded.header
    assert decoded.trusted
    assert (header.saved_at, header.uses, header.score, header.ttl) == (9, 7, 15, 600)


def test_a_known_value_moved_to_another_key_is_corrupt() -> None:
    """A copy under another fingerprint stays corrupt, although the process knows its bytes."""
    codec = Codec()
    value, known = both(codec)
    with pytest.raises(CorruptStateError):
        codec.decode(value, "browser:session:shop.example/mallory", known)


def test_another_known_value_is_no_answer() -> None:
    """What a process knows is compared, not assumed: a newer save is opened."""
    codec = Codec()
    _, known = both(codec)
    newer = DOCUMENT.replace(b'"n":1', b'"n":2')
    value = codec.encode(newer, "o", HEADER, KEY)
    decoded = codec.decode(value, KEY, known)
    assert decoded.document == newer
    assert not decoded.trusted


def test_a_value_that_another_process_has_sealed_without_keys_is_not_trusted() -> None:
    """A checksum can be made by anybody, so its document is checked. With keys its shape was checked before it was sealed."""
    value, _ = both(Codec())
    assert not Codec().decode(value, KEY).trusted
    keys = (b"k" * 32,)
    assert Codec(keys=keys).decode(Codec(keys=keys).encode(DOCUMENT, "o", HEADER, KEY), KEY).trusted

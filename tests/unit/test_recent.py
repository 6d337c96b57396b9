"""What a process remembers of its own saves: never an answer for anything but the very same bytes, never too much."""

from __future__ import annotations

import pytest

from session_reuse.errors import CorruptStateError
from session_reuse.state.codec import Codec
from session_reuse.state.header import LENGTH, Header
from session_reuse.state.recent import RecentDocuments

KEY = "browser:session:shop.example/alice"
DOCUMENT = b'{"fingerprint":"shop.example/alice","storage_state":{"cookies":[],"origins":[]},"data":{"n":1}}'
HEADER = Header(save_ids=("0123456789ab",), created_at=1, saved_at=2)
SETTLED_BY_SCRIPTS = {*range(16, 56), *range(158, LENGTH)}
"""Bytes of the head that the server's scripts change in place, and no seal covers."""


@pytest.mark.parametrize("keys", [(), (b"k" * 32,)], ids=["checksum", "encrypted"])
def test_memory_does_not_stand_in_for_the_seal(keys: tuple[bytes, ...]) -> None:
    """A value in which one bit is wrong is refused, however well the process remembers the right one."""
    codec = Codec(keys=keys, recent_bytes=1 << 20)
    value = codec.encode(DOCUMENT, "o", HEADER, KEY)
    assert codec.decode(value, KEY).trusted
    for place in set(range(len(value))) - SETTLED_BY_SCRIPTS:
        damaged = bytearray(value)
        damaged[place] ^= 1
        with pytest.raises(CorruptStateError):
            codec.decode(bytes(damaged), KEY)
    assert codec.decode(value, KEY).document == DOCUMENT


def test_what_scripts_settle_in_the_head_is_read_anew() -> None:
    """Epoch, token, uses and score come from the server's copy, not from memory."""
    codec = Codec(recent_bytes=1 << 20)
    value = bytearray(codec.encode(DOCUMENT, "o", HEADER, KEY))
    value[158:170] = b"000000070015"
    decoded = codec.decode(bytes(value), KEY)
    assert (decoded.trusted, decoded.header.uses, decoded.header.score) == (True, 7, 15)


def test_a_value_moved_to_another_key_is_not_known() -> None:
    """Memory goes by the name as well: a copy under another fingerprint stays corrupt."""
    codec = Codec(recent_bytes=1 << 20)
    value = codec.encode(DOCUMENT, "o", HEADER, KEY)
    with pytest.raises(CorruptStateError):
        codec.decode(value, "browser:session:shop.example/mallory")


def test_memory_is_bounded_and_can_be_switched_off() -> None:
    """However many sessions a process serves, it remembers no more bytes of them than it was told to."""
    recent = RecentDocuments(10_000)
    for number in range(1000):
        recent.note(str(number).encode(), b"s" * 400, b"", b"d" * (number % 700))
        assert sum(one.size for one in recent._opened.values()) == recent._size <= 10_000
    assert recent.find(b"999", b"s" * 400, b"") is not None
    assert recent.find(b"0", b"s" * 400, b"") is None
    none = RecentDocuments(0)
    none.note(b"name", b"sealed", b"", b"document")
    assert none.find(b"name", b"sealed", b"") is None


def test_without_keys_a_stranger_is_looked_at() -> None:
    """A checksum can be made by anybody: what this process has not seen before is not trusted."""
    value = Codec().encode(DOCUMENT, "o", HEADER, KEY)
    assert not Codec(recent_bytes=1 << 20).decode(value, KEY).trusted
    keys = (b"k" * 32,)
    assert Codec(keys=keys).decode(Codec(keys=keys).encode(DOCUMENT, "o", HEADER, KEY), KEY).trusted

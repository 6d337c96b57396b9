"""The fixed-width header of a stored value, which scripts read without the body.

It is text, so that `redis-cli GETRANGE key 0 175` can be read by people. Positions are shared with `_store/redis/scripts/*.lua`,
and a test compares them. The seal of the body covers the header except what scripts set: `invalidated_at`, `token`, `saved_at`,
`uses`, `score` and `ttl`.
"""

from __future__ import annotations

import re
from struct import Struct
from typing import Final

from session_reuse._state.record import record
from session_reuse.errors import CorruptStateError, UnreadableStateError

MAGIC: Final = b"SRS1"
"""Session of session_reuse, schema 1."""
LENGTH: Final = 176
TTL_UNIT: Final = 60
"""Seconds per step of the `ttl` field: four hexadecimal digits reach 45 days."""
SAVE_ID_LENGTH: Final = 12
REMEMBERED_SAVES: Final = 4
SERVER_STAMPED: Final = "t"
"""Fourth flag of a value whose `saved_at` the commit script has set, so that its seal does not cover that field."""
_FIELDS: Final = Struct("4x 4s 8s 20s 20s 12s 48s 14s 14s 14s 8s 4s 4s")
_SAVE_ID: Final = re.compile("[^-]{12}")


@record(kw_only=True)
class Header:
    """What is known of a stored value without opening it.

    Attributes:
        flags: four characters: compression, encryption, JSON dialect, `t` when the server has set `saved_at`.
        key_id: eight hex digits that name the encryption key; zeros without one.
        invalidated_at: server time in µs of the last invalidation before this state; 0 if there was none.
        token: highest fencing token that has written, in µs of server time; 0 if none has.
        version: number of saves since the session was made.
        save_ids: the last saves, newest first; a repeated save is recognised by them.
        created_at: first save, unix milliseconds.
        saved_at: this save, unix milliseconds by the server's clock.
        retire_at: when the session is retired whatever its use, unix milliseconds; 0 for never.
        uses: how often it was reused by agents that count uses.
        score: error score in tenths: ten for each bad mark, minus five for each good one.
        ttl: the longest time to live that a save has asked for, in seconds; 0 when it is not known.
    """

    flags: str = "----"
    key_id: str = "00000000"
    invalidated_at: int = 0
    token: int = 0
    version: int = 1
    save_ids: tuple[str, ...]
    created_at: int
    saved_at: int
    retire_at: int = 0
    uses: int = 0
    score: int = 0
    ttl: int = 0

    @property
    def revision(self) -> str:
        """Version and the last save ids: the first 24 characters are equal only for the very same save."""
        return f"{self.version:012d}{''.join(self.save_ids)}"

    def encode(self, flags: str = "", key_id: str = "") -> bytes:
        """Return the head as bytes of length `LENGTH`, with other flags and another key where they are given."""
        ids = "".join(self.save_ids).ljust(SAVE_ID_LENGTH * REMEMBERED_SAVES, "-")
        head = (
            f"SRS1{flags or self.flags}{key_id or self.key_id}{self.invalidated_at:020d}{self.token:020d}{self.version:012d}{ids}"
            f"{self.created_at:014d}{self.saved_at:014d}{self.retire_at:014d}{self.uses:08d}{self.score:04d}"
            f"{min(self.ttl // TTL_UNIT, 0xFFFF):04x}"
        )
        return head.ljust(LENGTH - 2).encode("ascii") + b"\r\n"

    @classmethod
    def decode(cls, value: bytes) -> Header:
        """Read the head of a stored value.

        Raises:
            CorruptStateError: the value is too short, or does not start as ours do.
        """
        if value[:3] == MAGIC[:3] and value[3:4].isdigit() and value[:4] != MAGIC:
            raise UnreadableStateError("of a schema that a newer version has written")
        if len(value) < LENGTH or value[:4] != MAGIC:
            raise CorruptStateError("not a session of this schema")
        (
            flags, key_id, invalidated_at, token, version, ids, created_at, saved_at, retire_at, uses, score, ttl,
        ) = _FIELDS.unpack_from(value)  # fmt: skip
        try:
            return cls(
                flags=flags.decode("ascii"),
                key_id=key_id.decode("ascii"),
                invalidated_at=int(invalidated_at),
                token=int(token),
                version=int(version),
                save_ids=tuple(_SAVE_ID.findall(ids.decode("ascii"))),
                created_at=int(created_at),
                saved_at=int(saved_at),
                retire_at=int(retire_at),
                uses=int(uses),
                score=int(score),
                ttl=int(ttl, 16) * TTL_UNIT if ttl != b"    " else 0,
            )
        except (ValueError, UnicodeDecodeError):
            raise CorruptStateError("the header is damaged") from None


def may_shorten(value: bytes, ttl: float) -> bool:
    """Return whether a stored value asks for a longer time to live than this, or retires at some time.

    It looks at two fields, for each restore: decoding the header takes ten times as long.
    """
    return value[144:158] != b"0" * 14 or value[170:174] > b"%04x" % min(int(ttl) // TTL_UNIT, 0xFFFF)


def authenticated_part(head: bytes) -> bytes:
    """Return the bytes of the header that the seal of the body covers: what only a writer of the body may set."""
    if head[7:8] == b"t":
        return head[:16] + head[56:130] + head[144:158]
    return head[:16] + head[56:158]

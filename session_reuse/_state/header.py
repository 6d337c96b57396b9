"""The fixed-width header of a stored value, which scripts read without the body, and the verdict on it.

It is text, so that `redis-cli GETRANGE key 0 175` is readable. The scripts in `_store/redis/scripts` use the same
positions, and a test compares them. The seal of the body covers the header except what scripts set: `invalidated_at`, `token`, `saved_at`,
`uses`, `score` and `ttl`.
"""

from __future__ import annotations

import re
from struct import Struct
from typing import Final

from session_reuse._state.record import record
from session_reuse.errors import CorruptStateError, UnreadableStateError
from session_reuse.outcome import Outcome

MAGIC: Final = b"SRS1"
"""Session of session_reuse, schema 1."""
LENGTH: Final = 176
TTL_UNIT: Final = 60
"""Seconds per step of the `ttl` field: four hexadecimal digits reach 45 days."""
LATEST: Final = 99_999_999_999_999
"""The latest unix milliseconds that a field holds. Sites set cookies that expire in the year 9999, after that."""
SAVE_ID_LENGTH: Final = 12
REMEMBERED_SAVES: Final = 4
SERVER_STAMPED: Final = "t"
"""Fourth flag of a value whose `saved_at` the commit script has set, so that its seal does not cover that field."""
BAD_MARK: Final = 10
GOOD_MARK: Final = -5
"""Changes of the error score, in tenths."""
_LAST_FLAGS: Final = f"-{SERVER_STAMPED}".encode()
_FIELDS: Final = Struct("4x 4s 8s 20s 20s 12s 48s 14s 14s 14s 8s 4s 4s")
_SAVE_ID: Final = re.compile("[^-]{12}")


@record(kw_only=True)
class Header:
    """The part of a stored value that is readable without opening it.

    Attributes:
        flags: four characters: compression, encryption, encoding of the JSON, `t` if the server has set `saved_at`.
        key_id: eight hex digits that name the encryption key, or zeros.
        invalidated_at: server time in µs of the last invalidation before this state, or 0.
        token: highest fencing token of a writer, in µs of server time, or 0.
        version: number of saves since the session was made.
        save_ids: the last saves, newest first, each with those of its changes that were on disk. They tell a repeated save.
        created_at: first save, unix milliseconds.
        saved_at: this save, unix milliseconds by the server's clock.
        retire_at: when the session is retired, in unix milliseconds, or 0.
        uses: how often it was reused by agents that count uses.
        score: error score in tenths: ten for each bad mark, minus five for each good one.
        ttl: the longest time to live of all saves in seconds, rounded down to a minute, or 0 if it is not known.
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
        """Version and the last save ids. The first 24 characters are equal for the same save only."""
        return f"{self.version:012d}{''.join(self.save_ids)}"

    def contains(self, other: Header) -> bool:
        """Return whether the last save of another header is one of the last saves here."""
        return bool(other.save_ids) and other.save_ids[0] in self.save_ids

    def encode(self, flags: str = "", key_id: str = "") -> bytes:
        """Return the header as `LENGTH` bytes, with these flags and this key."""
        ids = "".join(self.save_ids).ljust(SAVE_ID_LENGTH * REMEMBERED_SAVES, "-")
        text = (
            f"SRS1{flags or self.flags}{key_id or self.key_id}{self.invalidated_at:020d}{self.token:020d}{self.version:012d}{ids}"
            f"{self.created_at:014d}{self.saved_at:014d}{self.retire_at:014d}{self.uses:08d}{self.score:04d}"
            f"{min(self.ttl // TTL_UNIT, 0xFFFF):04x}"
        )
        return text.ljust(LENGTH - 2).encode("ascii") + b"\r\n"

    @classmethod
    def decode(cls, value: bytes) -> Header:
        """Return the header of a stored value.

        Raises:
            UnreadableStateError: the value has a newer schema or flag.
            CorruptStateError: the value is no session.
        """
        if value[:3] == MAGIC[:3] and value[3:4].isdigit() and value[:4] != MAGIC:
            raise UnreadableStateError("written by a newer version, with another schema")
        if len(value) < LENGTH or value[:4] != MAGIC:
            raise CorruptStateError("not a session of this schema")
        if value[7:8] not in _LAST_FLAGS:  # such a flag may change what the seal covers: it would pass for damage
            raise UnreadableStateError("written by a newer version, with a flag that is not known here")
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


def judge(
    header: Header,
    *,
    now: float,
    retire_after_bad: int,
    max_age: float | None = None,
    max_uses: int | None = None,
    uses: int | None = None,
) -> Outcome:
    """Return REUSED or RETIRED.

    Args:
        header: of the stored value.
        now: unix seconds.
        retire_after_bad: how many bad marks retire it.
        max_age: seconds since the first save after which it is retired.
        max_uses: number of reuses after which it is retired.
        uses: reuses before this one. Default: the count in the header.
    """
    now_ms = now * 1000
    used = header.uses if uses is None else uses
    is_retired = (
        header.score >= retire_after_bad * BAD_MARK
        or (header.retire_at and now_ms >= header.retire_at)
        or (max_age is not None and now_ms - header.created_at >= max_age * 1000)
        or (max_uses is not None and used >= max_uses)
    )
    return Outcome.RETIRED if is_retired else Outcome.REUSED


def may_shorten(value: bytes, ttl: float) -> bool:
    """Return whether a stored value has a longer time to live than this, or a time of retirement."""
    # Two fields only, at each restore: to decode the header takes ten times as long (2026-11).
    return value[144:158] != b"0" * 14 or value[170:174] > b"%04x" % min(int(ttl) // TTL_UNIT, 0xFFFF)


def authenticated_part(header: bytes) -> bytes:
    """Return the bytes of a header that the seal of the body covers."""
    # Scripts set 16 to 56 (`invalidated_at`, `token`), 130 to 144 (`saved_at`) and all behind 158.
    if header[7:8] == SERVER_STAMPED.encode():
        return header[:16] + header[56:130] + header[144:158]
    return header[:16] + header[56:158]

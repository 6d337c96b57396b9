"""The fixed-width head of a stored value, which scripts read without touching the body. Must never hold a secret.

Text, so that `redis-cli GETRANGE key 0 175` can be read by people. Positions are shared with `store/scripts/*.lua`;
a test compares them. The part before `uses` is authenticated together with the body, except `epoch` and `token`, which
the commit script settles; the part from `uses` on is changed in place by scripts.
"""

from __future__ import annotations

import re
from struct import Struct
from typing import Final

from session_reuse.errors import CorruptStateError
from session_reuse.state.record import record

MAGIC: Final = b"SRS1"
"""Session of session_reuse, schema 1."""
LENGTH: Final = 176
SAVE_ID_LENGTH: Final = 12
REMEMBERED_SAVES: Final = 4
_FIELDS: Final = Struct("4x 4s 8s 20s 20s 12s 48s 14s 14s 14s 8s 4s")
_SAVE_ID: Final = re.compile("[^-]{12}")


@record(kw_only=True)
class Header:
    """What is known of a stored value without opening it.

    Attributes:
        flags: four characters: compression, encryption, JSON dialect, reserved.
        key_id: eight hex digits that name the encryption key; zeros without one.
        epoch: server time in µs of the last invalidation before this state; 0 if there was none.
        token: highest fencing token that has written, in µs of server time; 0 if none has.
        version: number of saves since the session was made.
        save_ids: the last saves, newest first; a repeated save is recognised by them.
        created_at: first save, unix milliseconds.
        saved_at: this save, unix milliseconds.
        retire_at: when the session is retired whatever its use, unix milliseconds; 0 for never.
        uses: how often it was reused by agents that count uses.
        score: error score in tenths: ten for each bad mark, minus five for each good one.
    """

    flags: str = "----"
    key_id: str = "00000000"
    epoch: int = 0
    token: int = 0
    version: int = 1
    save_ids: tuple[str, ...]
    created_at: int
    saved_at: int
    retire_at: int = 0
    uses: int = 0
    score: int = 0

    @property
    def revision(self) -> str:
        """Version and save id: equal only for the very same save."""
        return f"{self.version:012d}{self.save_ids[0]}"

    def encode(self, flags: str = "", key_id: str = "") -> bytes:
        """Return the head as bytes of length `LENGTH`, with other flags and another key where they are given."""
        ids = "".join(self.save_ids).ljust(SAVE_ID_LENGTH * REMEMBERED_SAVES, "-")
        head = (
            f"SRS1{flags or self.flags}{key_id or self.key_id}{self.epoch:020d}{self.token:020d}{self.version:012d}{ids}"
            f"{self.created_at:014d}{self.saved_at:014d}{self.retire_at:014d}{self.uses:08d}{self.score:04d}"
        )
        return head.ljust(LENGTH - 2).encode("ascii") + b"\r\n"

    @classmethod
    def decode(cls, value: bytes) -> Header:
        """Read the head of a stored value.

        Raises:
            CorruptStateError: the value is too short, or does not start as ours do.
        """
        if len(value) < LENGTH or value[:4] != MAGIC:
            raise CorruptStateError("not a session of this schema")
        flags, key_id, epoch, token, version, ids, created_at, saved_at, retire_at, uses, score = _FIELDS.unpack_from(
            value
        )
        try:
            return cls(
                flags=flags.decode("ascii"),
                key_id=key_id.decode("ascii"),
                epoch=int(epoch),
                token=int(token),
                version=int(version),
                save_ids=tuple(_SAVE_ID.findall(ids.decode("ascii"))),
                created_at=int(created_at),
                saved_at=int(saved_at),
                retire_at=int(retire_at),
                uses=int(uses),
                score=int(score),
            )
        except (ValueError, UnicodeDecodeError):
            raise CorruptStateError("the header is damaged") from None


def authenticated_part(head: bytes) -> bytes:
    """Return the bytes of the head that the body's seal covers: what only a writer of the body may set."""
    return head[:16] + head[56:158]

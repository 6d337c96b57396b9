"""The fixed-width head of a stored value, which scripts read without touching the body. Must never hold a secret.

Text, so that `redis-cli GETRANGE key 0 175` can be read by people. Positions are shared with `store/scripts/*.lua`;
a test compares them. The part before `uses` is authenticated together with the body, except `epoch` and `token`, which
the commit script settles; the part from `uses` on is changed in place by scripts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from session_reuse.errors import CorruptStateError

MAGIC: Final = b"SRS1"
"""Session of session_reuse, schema 1."""
LENGTH: Final = 176
SAVE_ID_LENGTH: Final = 12
REMEMBERED_SAVES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
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

    def encode(self) -> bytes:
        """Return the head as bytes of length `LENGTH`."""
        ids = "".join(self.save_ids).ljust(SAVE_ID_LENGTH * REMEMBERED_SAVES, "-")
        head = (
            f"SRS1{self.flags}{self.key_id}{self.epoch:020d}{self.token:020d}{self.version:012d}{ids}"
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
        try:
            text = value[:LENGTH].decode("ascii")
            ids = text[68:116]
            return cls(
                flags=text[4:8],
                key_id=text[8:16],
                epoch=int(text[16:36]),
                token=int(text[36:56]),
                version=int(text[56:68]),
                save_ids=tuple(
                    ids[start : start + SAVE_ID_LENGTH]
                    for start in range(0, len(ids), SAVE_ID_LENGTH)
                    if ids[start] != "-"
                ),
                created_at=int(text[116:130]),
                saved_at=int(text[130:144]),
                retire_at=int(text[144:158]),
                uses=int(text[158:166]),
                score=int(text[166:170]),
            )
        except (ValueError, UnicodeDecodeError):
            raise CorruptStateError("the header is damaged") from None


def authenticated_part(head: bytes) -> bytes:
    """Return the bytes of the head that the body's seal covers: what only a writer of the body may set."""
    return head[:16] + head[56:158]

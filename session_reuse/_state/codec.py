"""The stored form of a session: header, key name, sealed body.

    header (176 bytes) | length of the key name (4 digits) | key name | sealed(compressed(JSON document))

Writing goes JSON -> compress -> seal, reading the other way: nothing is parsed or inflated before its seal is checked.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from session_reuse._state import header as head
from session_reuse._state.compression import THRESHOLD, compressor, decompress
from session_reuse._state.header import Header
from session_reuse._state.sealing import UNSEALED, Seal, seal
from session_reuse.errors import CorruptStateError, StateTooLargeError

OFFLOAD_THRESHOLD: Final = 200_000
"""From this many bytes on, coding is done in a thread, so that the event loop is not held up (measured 2026-11)."""


Known = tuple[bytes, bytes]
"""A stored value and the document that it holds."""


class Decoded(NamedTuple):
    """A stored value, opened.

    Attributes:
        header: its head.
        key: the name it was sealed under.
        document: its JSON.
        trusted: the document was looked at before: by this process, or by another holder of our keys before it sealed it.
    """

    header: Header
    key: str
    document: bytes
    trusted: bool


class Codec:
    """Encodes and decodes stored values with one configuration. Values over `OFFLOAD_THRESHOLD` in any thread."""

    def __init__(
        self,
        *,
        compression: str = "auto",
        keys: tuple[bytes, ...] = (),
        max_bytes: int = 8 * 1024 * 1024,
    ) -> None:
        self._compressor = compressor(compression)
        self._plain = compressor("none")
        self._seal: Seal = seal(keys)
        self._max_bytes = max_bytes

    @property
    def key_id(self) -> str:
        """Name of the key that encrypts, or zeros."""
        return self._seal.key_id

    def check_size(self, document: bytes) -> None:
        """Raise StateTooLargeError for a document that must not be stored."""
        if len(document) > self._max_bytes:
            raise StateTooLargeError(
                f"the session is {len(document)} bytes of JSON; the limit max_state_bytes is {self._max_bytes}"
            )

    @property
    def seal(self) -> Seal:
        """What seals the bodies; the spool seals its files with it as well."""
        return self._seal

    def encode(self, document: bytes, dialect: str, header: Header, key: str) -> bytes:
        """Return the stored form of a JSON document.

        Raises:
            StateTooLargeError: larger than `max_bytes`.
        """
        self.check_size(document)
        packer = self._compressor if len(document) >= THRESHOLD else self._plain
        flags = f"{packer.flag}{self._seal.flag}{dialect}{head.SERVER_STAMPED}"
        front = header.encode(flags, self._seal.key_id)
        name = key.encode()
        associated = head.authenticated_part(front) + name
        sealed = self._seal.close(packer.compress(document), associated)
        return b"%b%04d%b%b" % (front, len(name), name, sealed)

    def decode(self, value: bytes, key: str | None = None, known: Known | None = None) -> Decoded:
        """Open a stored value.

        Args:
            value: what stands in the store.
            key: the name it was found under; None takes it from the value.
            known: a value of this key that this process has sealed or opened before, and its document. Comparing the
                sealed bytes takes a twentieth of opening them (0.7 of 16 µs at 20 KB, measured 2026-11).

        Raises:
            UnreadableStateError: whole, but larger than our limit, or sealed or packed in a way that we cannot undo.
            CorruptStateError: damaged, forged, or of another key.
        """
        header = Header.decode(value)
        name, sealed = _split(value)
        if key is not None and name != key.encode():
            raise CorruptStateError("the value belongs to another key")
        covered = head.authenticated_part(value[: head.LENGTH])
        if (
            known is not None
            and known[0][head.LENGTH :] == value[head.LENGTH :]
            and covered == head.authenticated_part(known[0][: head.LENGTH])
        ):
            return Decoded(header, name.decode(), known[1], trusted=True)
        associated = covered + name
        packing, sealing = header.flags[0], header.flags[1]
        body = self._seal.open(sealing, header.key_id, sealed, associated)
        document = decompress(packing, body, self._max_bytes)
        return Decoded(header, name.decode(), document, trusted=sealing != UNSEALED)


def _split(value: bytes) -> tuple[bytes, bytes]:
    digits = value[head.LENGTH : head.LENGTH + 4]
    if len(digits) != 4 or not digits.isdigit():
        raise CorruptStateError("the key name is damaged")
    start = head.LENGTH + 4
    end = start + int(digits)
    if end > len(value):
        raise CorruptStateError("the value is cut off")
    return value[start:end], value[end:]

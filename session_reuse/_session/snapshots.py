"""`Snapshots`: opens stored values, seals new ones, and does so in a thread when they are large."""

from __future__ import annotations

import hmac
from functools import partial
from typing import Final

from session_reuse._session.changes import NEVER_HEARD, Snapshot, StoredKind
from session_reuse._session.clock import elapsed
from session_reuse._session.tasks import in_thread
from session_reuse._state import header as head
from session_reuse._state.codec import OFFLOAD_THRESHOLD, Codec
from session_reuse._state.document import Body
from session_reuse._state.header import Header
from session_reuse._state.sealing import AesGcm
from session_reuse._state.shapes import Document
from session_reuse._store.keys import Keys, is_name
from session_reuse._stored_form import decode_document
from session_reuse._telemetry import Event, log
from session_reuse.errors import CorruptStateError, UnreadableStateError

_SEPARATOR: Final = "\n"
"""Between the fingerprint and its seal in an affinity entry."""
_TAG_LENGTH: Final = 32


class Snapshots:
    """Stored values in both directions, for one codec."""

    def __init__(self, codec: Codec, keys: Keys) -> None:
        self.codec = codec
        self._keys = keys

    async def decode(
        self, fingerprint: str, value: bytes | None, heard_at: float, base: Snapshot = NEVER_HEARD,
        invalidated_at: int | None = None,
    ) -> tuple[Snapshot, Document | None, CorruptStateError | None]:  # fmt: skip
        """Open a value that the store has returned.

        Args:
            fingerprint: whose session.
            value: the stored bytes. None for nothing.
            heard_at: `elapsed()` at the request.
            base: what this process knows of the session: a value that it knows need not be opened again.
            invalidated_at: last invalidation, server time in µs; None when it is not known.

        Returns:
            What it is, its document if it is one, and why not if it cannot be used.
        """
        lost = base.last_held
        if value is None:
            absent = Snapshot(
                kind=StoredKind.ABSENT, heard_at=heard_at, invalidated_at=invalidated_at, answered_at=elapsed(), lost=lost
            )  # fmt: skip
            return absent, None, None
        try:
            key = self._keys.session(fingerprint)
            known = (base.value, base.body.data) if base.value else None
            if len(value) < OFFLOAD_THRESHOLD:
                decoded = self.codec.decode(value, key, known)
            else:
                decoded = await in_thread(partial(self.codec.decode, value, key, known))
            body = Body(decoded.document, decoded.header.flags[2])
            document = decode_document(*body, fingerprint, trusted=decoded.trusted)
        except CorruptStateError as error:
            unreadable = isinstance(error, UnreadableStateError)
            kind = StoredKind.UNREADABLE if unreadable else StoredKind.CORRUPT
            log.warning(Event.CORRUPT, fingerprint=fingerprint, why=str(error))
            damaged = value[: head.LENGTH]
            snapshot = Snapshot(kind=kind, heard_at=heard_at, invalidated_at=invalidated_at, damaged=damaged, lost=lost)
            return snapshot, None, error
        header = decoded.header
        last = max(header.invalidated_at, invalidated_at or 0)
        snapshot = Snapshot(
            kind=StoredKind.PRESENT, heard_at=heard_at, invalidated_at=last, header=header, body=body, value=value,
            answered_at=elapsed(),
        )  # fmt: skip
        return snapshot, document, None

    async def encode(self, fingerprint: str, body: Body, header: Header) -> bytes:
        """Return the stored form of a document.

        Raises:
            StateTooLargeError: larger than `max_state_bytes`.
        """
        arguments = (body.data, body.json_encoding, header, self._keys.session(fingerprint))
        if len(body.data) < OFFLOAD_THRESHOLD:
            return self.codec.encode(*arguments)
        return await in_thread(partial(self.codec.encode, *arguments))

    def affinity_value(self, agent_id: str, fingerprint: str) -> str:
        """Return the affinity entry of an agent. With keys it is sealed, so that no writer without a key redirects it."""
        seal = self.codec.seal
        if not isinstance(seal, AesGcm):  # a line feed of its own would be taken for the start of a seal
            return fingerprint if _SEPARATOR not in fingerprint else f"{fingerprint}{_SEPARATOR}{'0' * _TAG_LENGTH}"
        return f"{fingerprint}{_SEPARATOR}{seal.alias(_affinity_text(agent_id, fingerprint))}"

    def resealed_affinity(self, agent_id: str, entry: str) -> str | None:
        """Return the same entry, sealed with the first key. None for one that cannot be trusted."""
        fingerprint = self.affinity_of(agent_id, entry)
        return None if fingerprint is None else self.affinity_value(agent_id, fingerprint)

    def affinity_of(self, agent_id: str, entry: str | None) -> str | None:
        """Return the fingerprint in an affinity entry; None when there is none that can be trusted."""
        if entry is None:
            return None
        fingerprint, _, tag = entry.rpartition(_SEPARATOR)
        if len(tag) != _TAG_LENGTH or not fingerprint:
            fingerprint, tag = entry, ""
        if not is_name(fingerprint):
            return None
        seal = self.codec.seal
        if not isinstance(seal, AesGcm):
            return fingerprint
        tags = seal.aliases(_affinity_text(agent_id, fingerprint))
        return fingerprint if any(hmac.compare_digest(tag.encode(), one.encode()) for one in tags) else None


def _affinity_text(agent_id: str, fingerprint: str) -> str:
    return f"affinity{_SEPARATOR}{agent_id}{_SEPARATOR}{fingerprint}"

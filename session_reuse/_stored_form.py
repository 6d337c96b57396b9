"""The stored form of sessions that no manager holds, for files and other tools."""

from __future__ import annotations

import os
import random
import time
from typing import Any, TypeVar

from session_reuse._browser_session import BrowserSession, wiring_of
from session_reuse._state import document
from session_reuse._state.codec import Codec
from session_reuse._state.header import SAVE_ID_LENGTH, Header
from session_reuse._state.shapes import Document
from session_reuse._state.storage_state import check_values, validate_storage_state
from session_reuse._store.keys import Keys, encoded
from session_reuse.config import Config, configured_keys
from session_reuse.errors import CorruptStateError, InvalidStateError
from session_reuse.outcome import Outcome

Session = TypeVar("Session", bound=BrowserSession)


def codec_for(config: Config) -> Codec:
    """Return the codec that the settings ask for. Asks a callable for its keys now.

    Raises:
        ConfigurationError: a key is not 32 bytes, or compression or encryption is not installed.
    """
    return Codec(
        compression=config.compression,
        keys=configured_keys(config),
        max_bytes=config.max_state_bytes,
    )


def document_of(session: BrowserSession, data: dict[str, Any] | None = None) -> Document:
    """Return the document that is stored of a session.

    Args:
        session: whose.
        data: notes that take the place of its own.

    Raises:
        InvalidStateError: storage_state or data was changed into something that cannot be stored.
    """
    if data is None:
        data = session.data
        document.check_json(data, "data")
    state = validate_storage_state(session.storage_state)
    if wiring_of(session).captured is not state:  # what an adapter has captured came as JSON
        check_values(state)
    return {
        "fingerprint": session.fingerprint,
        "storage_state": state,
        "data": data,
    }


def decode_document(data: bytes, json_encoding: str, fingerprint: str, *, trusted: bool = False) -> Document:
    """Return a stored document.

    Args:
        data: its JSON.
        json_encoding: encoding of the JSON.
        fingerprint: whose it must be.
        trusted: its shape was looked at before it was sealed (see `codec.Decoded`).

    Raises:
        CorruptStateError: not a document, or one of another fingerprint.
    """
    found = document.load(data, json_encoding)
    if found.get("fingerprint") != fingerprint:
        raise CorruptStateError("the state belongs to another fingerprint")
    if trusted:
        return found
    try:
        validate_storage_state(found["storage_state"])
        document.check_nesting(found)
    except InvalidStateError:
        raise CorruptStateError("the storage state inside has a wrong shape") from None
    return found


def new_save_id(chance: random.Random | None = None) -> str:
    """Return the name of one save."""
    return f"{(chance or _chance).getrandbits(4 * SAVE_ID_LENGTH):0{SAVE_ID_LENGTH}x}"


_chance = random.Random()  # of our own: nobody seeds it, and a name is no secret, so it need not cost a system call
os.register_at_fork(after_in_child=_chance.seed)


def encode_session(session: BrowserSession, codec: Codec | None = None, keys: Keys | None = None) -> bytes:
    """Return the stored form of a session, as if it had just been saved for the first time.

    Raises:
        InvalidStateError: not storable, or too large.
    """
    config = Config.from_env()
    codec = codec or codec_for(config)
    keys = keys or Keys(config.key_prefix)
    now = int(time.time() * 1000)
    body, json_encoding = document.dump(document_of(session))
    header = Header(save_ids=(new_save_id(),), created_at=now, saved_at=now)
    return codec.encode(body, json_encoding, header, keys.session(session.fingerprint))


def decode_session(session_class: type[Session], value: bytes, codec: Codec | None = None) -> Session:
    """Return the session in a stored form.

    Raises:
        CorruptStateError: damaged, foreign, or not readable with these keys.
    """
    if not isinstance(value, bytes | bytearray | memoryview):
        raise CorruptStateError(f"expected bytes, not {type(value).__name__}")
    codec = codec or codec_for(Config.from_env())
    decoded = codec.decode(bytes(value))
    found = document.load(decoded.document, decoded.header.flags[2])
    fingerprint = found.get("fingerprint")
    if not isinstance(fingerprint, str) or not decoded.key.endswith(f":session:{encoded(fingerprint)}"):
        raise CorruptStateError("the state belongs to another fingerprint")
    found = decode_document(decoded.document, decoded.header.flags[2], fingerprint)
    session = session_class(fingerprint, storage_state=found["storage_state"], data=found["data"])
    session.outcome = Outcome.REUSED
    return session

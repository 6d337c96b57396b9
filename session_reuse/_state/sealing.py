"""Sealing of stored bodies: AES-256-GCM with the configured keys, or a checksum without keys.

The seal covers the body, the key name and the fixed part of the header, so a value copied to another key does not open.
"""

from __future__ import annotations

import hmac
import os
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Final, TypeAlias

from session_reuse.errors import CorruptStateError, MissingExtraError, UnreadableStateError

NO_KEY: Final = "00000000"
UNSEALED: Final = "-"
"""Flag of a body without a seal, which any writer of the store can forge."""
_NONCE_LENGTH: Final = 12
_DIGEST_LENGTH: Final = 16
_REMEMBERED_ALIASES: Final = 4096


def key_id(key: bytes) -> str:
    """Return eight hex digits that name a key without revealing it."""
    return blake2b(key, digest_size=4, person=b"session_reuse").hexdigest()


class Checksum:
    """Seal without keys. It detects damage and no forgery."""

    flag = UNSEALED
    key_id = NO_KEY

    def close(self, body: bytes, associated: bytes) -> bytes:
        """Prepend a keyless digest."""
        return self._digest(body, associated) + body

    def open(self, flag: str, key_id: str, sealed: bytes, associated: bytes) -> bytes:  # noqa: ARG002
        """Check the digest."""
        if flag != self.flag:
            raise UnreadableStateError("encrypted, and no encryption_keys are configured here")
        digest, body = sealed[:_DIGEST_LENGTH], sealed[_DIGEST_LENGTH:]
        if not hmac.compare_digest(digest, self._digest(body, associated)):
            raise CorruptStateError("the checksum does not match")
        return body

    @staticmethod
    def _digest(body: bytes, associated: bytes) -> bytes:
        digest = blake2b(associated, digest_size=_DIGEST_LENGTH)
        digest.update(body)
        return digest.digest()


class AesGcm:
    """Seal with AES-256-GCM and a random 96-bit nonce. The first key seals, all keys open.

    Attributes:
        alias: returns the name of a text by the first key. See `aliases`.
    """

    flag = "a"

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise MissingExtraError("encryption", "encryption_keys") from None
        self._ciphers = {key_id(key): AESGCM(key) for key in reversed(keys)}
        # Derived, so that one key does not serve two algorithms.
        self._naming_keys = [blake2b(key, digest_size=32, person=b"sr-spool-names").digest() for key in keys]
        # Remembered: each save of an agent takes the same one, and an HMAC took 3 % of a cycle (2026-11).
        self.alias = lru_cache(maxsize=_REMEMBERED_ALIASES)(partial(_alias, self._naming_keys[0]))
        self._invalid = InvalidTag
        self.key_id = key_id(keys[0])

    def knows(self, key_id: str) -> bool:
        """Return whether the key of this id is one of ours."""
        return key_id in self._ciphers

    def aliases(self, text: str) -> list[str]:
        """Return one name of a text for each key, in their order. Only holders of the key can compute it."""
        return [_alias(key, text) for key in self._naming_keys]

    def close(self, body: bytes, associated: bytes) -> bytes:
        """Encrypt with the first key."""
        nonce = os.urandom(_NONCE_LENGTH)
        return nonce + self._ciphers[self.key_id].encrypt(nonce, body, associated)

    def open(self, flag: str, key_id: str, sealed: bytes, associated: bytes) -> bytes:
        """Decrypt with the key that the header names."""
        cipher = self._ciphers.get(key_id)
        # With keys, a plain body is refused: a writer of the store without our keys could forge it.
        if flag != self.flag:
            raise UnreadableStateError(
                "stored in plain, and encryption_keys are configured: session-reuse rotate --from-plain seals it"
            )
        if cipher is None:
            raise UnreadableStateError(f"sealed with key {key_id}, which SESSION_REUSE_ENCRYPTION_KEYS lacks")
        try:
            return cipher.decrypt(sealed[:_NONCE_LENGTH], sealed[_NONCE_LENGTH:], associated)
        except (self._invalid, ValueError):
            raise CorruptStateError("damaged, forged, or moved here from another key") from None


def _alias(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()[:32]


Seal: TypeAlias = Checksum | AesGcm


def seal(keys: tuple[bytes, ...]) -> Seal:
    """Return the seal for these keys.

    Raises:
        MissingExtraError: there are keys, and the extra `encryption` is not installed.
    """
    return AesGcm(keys) if keys else Checksum()

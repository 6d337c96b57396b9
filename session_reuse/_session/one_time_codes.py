"""Time-based one-time codes from a secret that is stored sealed. The secret leaves this module sealed only."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from session_reuse._resilience.failure import store_errors
from session_reuse._session.clock import elapsed
from session_reuse._session.guarded_store import Access, GuardedStore
from session_reuse._state.codec import Codec
from session_reuse._state.sealing import AesGcm
from session_reuse.config import Config
from session_reuse.errors import ConfigurationError, CorruptStateError, MissingExtraError

if TYPE_CHECKING:
    from pyotp import TOTP

_KEY_ID: Final = 8
_LEAST_LEFT: Final = 3.0
"""Seconds for which a code must still hold, to be typed and sent."""


class OneTimeCodes:
    """The secrets of one manager. Without keys to seal them with, they can be deleted only."""

    def __init__(self, store: GuardedStore, codec: Codec, config: Config) -> None:
        self._store = store
        self._config = config
        self._keys = codec.seal

    @property
    def _seal(self) -> AesGcm:
        if not isinstance(self._keys, AesGcm):
            raise ConfigurationError("one-time codes need encryption_keys: their secret is stored encrypted only")
        return self._keys

    async def set_secret(self, fingerprint: str, secret: str | None) -> bool:
        """Store or delete a secret, as `SessionManager.set_totp_secret`. Return whether that was done."""
        if secret is None:
            return await self._write(fingerprint, b"")
        _totp_of(secret)
        return await self._write(fingerprint, self._sealed(fingerprint, secret))

    async def code(self, fingerprint: str) -> str:
        """Return the code of this moment, by the clock of the server. One that ends in 3 seconds is waited out.

        Raises:
            ConfigurationError: no secret is stored.
            CorruptStateError: the secret is damaged, or sealed with a key that is not configured.
            StoreError: the store is away.
        """
        seal = self._seal  # without keys, no store is asked
        value, now = await self._read(fingerprint)
        read_at = elapsed()
        if value is None:
            raise ConfigurationError(f"no one-time secret is stored for {fingerprint!r}: use session-reuse totp set")
        totp = _totp_of(self._opened(fingerprint, value, seal))
        left = totp.interval - now / 1_000_000 % totp.interval
        if left < _LEAST_LEFT:
            await asyncio.sleep(left)
        return totp.at(int(now / 1_000_000 + elapsed() - read_at))

    async def rotate(self, fingerprint: str, *, dry_run: bool = False) -> bool:
        """Seal a secret with the first key. Return whether it was sealed with another one.

        Args:
            fingerprint: whose session.
            dry_run: whether nothing is written.

        Raises:
            CorruptStateError: the secret is damaged, or sealed with a key that is not configured.
        """
        value, _ = await self._read(fingerprint)
        if value is None or value[:_KEY_ID] == self._seal.key_id.encode():
            return False
        sealed = self._sealed(fingerprint, self._opened(fingerprint, value, self._seal))
        return dry_run or await self._write(fingerprint, sealed, value)

    def _sealed(self, fingerprint: str, secret: str) -> bytes:
        return self._seal.key_id.encode() + self._seal.close(secret.encode(), self._associated(fingerprint))

    def _opened(self, fingerprint: str, value: bytes, seal: AesGcm) -> str:
        key_id = value[:_KEY_ID].decode("ascii", "replace")
        try:
            return seal.open(seal.flag, key_id, value[_KEY_ID:], self._associated(fingerprint)).decode()
        except CorruptStateError as error:
            raise type(error)(f"the one-time secret of {fingerprint!r}: {error}") from None

    def _associated(self, fingerprint: str) -> bytes:
        return self._store.keys.of(fingerprint).totp.encode()

    async def _read(self, fingerprint: str) -> tuple[bytes | None, int]:
        with store_errors():
            return await self._store.run(
                Access.READ, fingerprint, self._config.restore_timeout,
                lambda store, timeout: store.totp_secret(fingerprint, timeout=timeout),
            )  # fmt: skip

    async def _write(self, fingerprint: str, value: bytes, known: bytes | None = None) -> bool:
        with store_errors():
            return await self._store.run(
                Access.WRITE, fingerprint, self._config.save_timeout,
                lambda store, timeout: store.set_totp_secret(fingerprint, value, known, timeout=timeout),
            )  # fmt: skip


def _totp_of(secret: str) -> TOTP:
    """Return what computes the codes. Errors do not show the secret."""
    try:
        import pyotp
    except ImportError:
        raise MissingExtraError("totp", "a one-time code") from None
    with suppress(Exception):  # whatever it raises may hold the secret
        text = secret.strip()
        is_address = text.startswith("otpauth:")
        found = pyotp.parse_uri(text) if is_address else pyotp.TOTP(text.replace(" ", "").replace("-", "").upper())
        if found.secret and isinstance(found, pyotp.TOTP) and found.interval > 0:
            found.at(0)
            return found
    raise ConfigurationError("the secret must be base32 text or an otpauth://totp/ address")

"""Names of all keys. No other module spells one, and names are encoded, so that none reaches into another key."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final, Literal, NamedTuple
from urllib.parse import quote, unquote
from zlib import crc32

from session_reuse.errors import InvalidFingerprintError

MAX_NAME_BYTES: Final = 512
BUCKETS: Final = 16
"""Keys that the index of deadlines is spread over, so that it lives on several nodes of a Cluster."""
_STANDS_AS_IT_IS: Final = "._-~/:@+="


@lru_cache(maxsize=4096)
def encoded(name: str, what: str = "fingerprint") -> str:
    """Return a fingerprint or agent_id as it stands in a key: letters, digits and `._-~/:@+=`, the rest in percent.

    Raises:
        InvalidFingerprintError: not a string, empty, over 512 bytes, or not encodable as UTF-8.
    """
    if not isinstance(name, str):
        raise InvalidFingerprintError(f"{what} must be a string, not {type(name).__name__}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidFingerprintError(f"{what} holds a lone surrogate, which UTF-8 cannot carry") from None
    if not 1 <= size <= MAX_NAME_BYTES:
        raise InvalidFingerprintError(f"{what} must be 1 to {MAX_NAME_BYTES} bytes long, not {size}")
    return quote(name, safe=_STANDS_AS_IT_IS)


def checked(name: object, what: str) -> str:
    """Return the name, or raise InvalidFingerprintError. Also for what cannot be hashed."""
    if not isinstance(name, str):
        raise InvalidFingerprintError(f"{what} must be a string, not {type(name).__name__}")
    encoded(name, what)
    return name


def is_name(name: str) -> bool:
    """Return whether a string can be a fingerprint or agent_id."""
    try:
        encoded(name)
    except InvalidFingerprintError:
        return False
    return True


def decoded(text: str) -> str | None:
    """Return the name that stands in a key. None for a text that `encoded` does not return."""
    name = unquote(text)
    return name if is_name(name) and encoded(name) == text else None


class SessionKeys(NamedTuple):
    """The keys of one session.

    Attributes:
        session: string: header and sealed body.
        lease: string `<token>:<holder>`, with the lease's time to live.
        tombstone: string: server time in µs of the last invalidation, its request id, and whether there was a session.
        agents: sorted set: agent -> unix milliseconds, the latest that used the session. Their affinity ends with it.
        quarantine: a value that could not be read, set aside for people to look at.
        liveness: string: server time and login of the last probe, and its verdict.
        totp: string: the sealed secret of one-time codes. It stays when the session ends.
        deadlines: sorted set, of many sessions: encoded fingerprint -> earliest possible deadline, unix milliseconds.
    """

    session: str
    lease: str
    tombstone: str
    agents: str
    quarantine: str
    liveness: str
    deadlines: str
    totp: str
    staging_prefix: str
    once_prefix: str

    def staging(self, save_id: str) -> str:
        """Return the key of a payload on its way: sent by a native SET, then renamed by the commit script."""
        return self.staging_prefix + save_id

    def once(self, request_id: str) -> str:
        """Return the key that says that a request was carried out, so that a repetition changes nothing."""
        return self.once_prefix + request_id


@lru_cache(maxsize=4096)
def _keys_of(prefix: str, fingerprint: str) -> SessionKeys:
    name = encoded(fingerprint)
    session = f"{prefix}:session:{name}"
    tag = f"{{{session}}}"
    return SessionKeys(
        session,
        f"{prefix}:lease:{tag}",
        f"{prefix}:tombstone:{tag}",
        f"{prefix}:agents:{tag}",
        f"{prefix}:quarantine:{tag}",
        f"{prefix}:liveness:{tag}",
        _bucket(prefix, crc32(name.encode()) % BUCKETS),
        f"{prefix}:totp:{tag}",
        f"{prefix}:staging:{tag}:",
        f"{prefix}:once:{tag}:",
    )


def _bucket(prefix: str, bucket: int) -> str:
    return f"{prefix}:deadlines:{bucket:02d}"


class Keys:
    """Key names under one prefix. Side keys of a session carry its key as hash tag: the same Cluster slot.

    Attributes:
        of: returns the names of all keys of the session with a fingerprint.
    """

    def __init__(self, prefix: str = "browser") -> None:
        self.prefix = prefix
        self.of: Callable[[str], SessionKeys] = partial(_keys_of, prefix)
        self._session = f"{prefix}:session:"

    def session(self, fingerprint: str) -> str:
        """Return the key of the session itself."""
        return self.of(fingerprint).session

    def affinity(self, agent_id: str) -> str:
        """String: the fingerprint the agent used last."""
        return f"{self.prefix}:affinity:{encoded(agent_id, 'agent_id')}"

    def deadline_bucket(self, bucket: int) -> str:
        """Return the key of one bucket of the index of deadlines."""
        return _bucket(self.prefix, bucket)

    @property
    def audit(self) -> str:
        """Stream: a line for each use of a session, if the audit is on."""
        return f"{self.prefix}:audit"

    @property
    def pools(self) -> str:
        """Sorted set: the names of all pools."""
        return f"{self.prefix}:pools"

    def pool(self, name: str) -> tuple[str, str, str]:
        """Sorted sets of one pool: when each member is free, who waits since when, and when each waiter called last."""
        tag = f"{{{self.prefix}:pool:{encoded(name, 'pool')}}}"
        return f"{self.prefix}:pool:{tag}", f"{self.prefix}:waiters:{tag}", f"{self.prefix}:seen:{tag}"

    def pool_once(self, name: str, request_id: str) -> str:
        """String: how many members of a pool a request has added or removed, so that a repetition changes nothing."""
        return f"{self.prefix}:once:{{{self.prefix}:pool:{encoded(name, 'pool')}}}:{request_id}"

    def pattern(self, kind: Literal["session", "totp", "affinity"]) -> str:
        """Return the MATCH pattern of all sessions, secrets of one-time codes, or affinity entries."""
        return f"{self.prefix}:{kind}:".translate(_GLOB) + "*"

    def agent_of(self, key: str) -> str:
        """Return the agent of an affinity entry."""
        return unquote(key.removeprefix(self.affinity("a")[:-1]))

    def fingerprint_of(self, key: str) -> str | None:
        """Return the fingerprint of the key of a session, or of a secret of one-time codes. None for any other key."""
        if key.startswith(f"{self.prefix}:totp:{{"):
            key = key.removeprefix(f"{self.prefix}:totp:{{")[:-1]
        return decoded(key.removeprefix(self._session)) if key.startswith(self._session) else None


_GLOB: Final = str.maketrans({character: f"\\{character}" for character in "*?[]\\^"})

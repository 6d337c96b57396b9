"""Settings of a session manager: names, defaults, and where they come from. Must never open or create anything.

Order: argument, then the environment variable `SESSION_REUSE_<NAME>`, then the default. Durations are seconds as
float or `timedelta`.
"""

from __future__ import annotations

import base64
import binascii
import math
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from session_reuse.errors import ConfigurationError

ENVIRONMENT_PREFIX: Final = "SESSION_REUSE_"

DEFAULT_REGISTRY: Final = "default"
"""Stands for `prometheus_client.REGISTRY`, so that the default costs no import."""

KeySource = tuple[bytes, ...] | Callable[[], "list[bytes] | tuple[bytes, ...]"]
ExpiredCallback = Callable[[str], Awaitable[None] | None]


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Config:
    """Settings of one `SessionManager`."""

    url: str = "embedded://"
    """Where the store is: `redis://`, `rediss://`, `unix://`, `redis+sentinel://`, `redis+cluster://` (and
    `rediss+…` for TLS), or `embedded://[path]` for a private redis-server."""
    key_prefix: str = "browser"
    """First part of every key: `<key_prefix>:session:<fingerprint>`."""

    ttl: float = 86400.0
    """How long a session is kept after its last use."""
    sliding: bool = True
    """Whether a restore starts the time to live anew; otherwise only a save does."""
    max_age: float | None = None
    """Retire a session this long after its first save, however often it is used. None: no limit."""
    max_uses: int | None = None
    """Retire a session after this many reuses. None: no limit; a number adds one command to each enter."""
    retire_after_bad: int = 3
    """Retire a session when `mark_bad` outweighs `mark_good` by this much; a good mark takes back half a bad one."""
    ttl_from_cookies: bool = False
    """Never keep a session longer than its longest-lived httpOnly cookie."""

    restore_timeout: float = 0.5
    """Hard budget of an enter, whatever the store does."""
    save_timeout: float = 2.0
    """Budget of a save; what is not through by then is kept pending."""
    attempt_timeout: float = 0.15
    """Budget of one attempt; large values get more, in proportion to their size."""
    connect_timeout: float = 0.25
    """Budget for opening one connection."""
    close_timeout: float = 2.0
    """Budget for flushing pending saves when the manager is closed."""
    capture_timeout: float = 10.0
    """Budget for reading the state from a browser before a save; running over it keeps the stored state."""
    verify_timeout: float = 10.0
    """Budget of a `verify` hook; running over it counts as not verified."""

    lease_ttl: float = 30.0
    """How long an exclusive lease outlives a holder that has died; renewed at a third of it."""
    compression: str = "auto"
    """`auto` (the best installed), `zstd`, `lz4`, `zlib` or `none`; states below 1 KiB are never compressed."""
    encryption_keys: KeySource = ()
    """AES-256-GCM keys of 32 bytes; the first encrypts, all decrypt. A callable is asked once, at the first use. In
    the environment: base64, separated by commas."""
    max_state_bytes: int = 8 * 1024 * 1024
    """Largest session that is stored or read, in bytes of JSON."""

    recent_bytes: int = 16 * 1024 * 1024
    """How many bytes of sessions stay in memory, so that a process that reads back what it saved itself need not decrypt
    and inflate it. 0 keeps none after the session has ended."""

    pending_max: int = 256
    """How many sessions may wait in memory for the store to come back."""
    pending_max_bytes: int = 64 * 1024 * 1024
    """How many bytes of state may wait in memory."""
    flush_rate: float = 20.0
    """How many waiting saves are written per second once the store is back."""
    spool_dir: Path | None = None
    """Where waiting saves are also kept on disk, encrypted; needs `encryption_keys`. None: memory only."""

    lanes: int = 2
    """Connections that carry batched commands; one more is used for large values."""
    wait_replicas: int = 0
    """Ask this many replicas to acknowledge each save (`WAIT`), and report when fewer did."""
    wait_timeout: float = 0.1
    """How long a save waits for `wait_replicas`."""
    deadline_buckets: int = 16
    """Over how many keys the index of deadlines is spread. The same for all processes of one `key_prefix`."""

    registry: Any = DEFAULT_REGISTRY
    """A `prometheus_client.CollectorRegistry`; the default one if not given; None turns metrics off."""
    on_expired: ExpiredCallback | None = None
    """Called with the fingerprint of each expired session that the clean-up job has removed."""
    cleanup_interval: float = 30.0
    """How often the clean-up job compares the index of deadlines with the sessions."""
    configure_notifications: bool = False
    """Whether the clean-up job may set the server's `notify-keyspace-events`."""
    strict: bool = False
    """Raise trouble of the store instead of starting with a fresh session."""

    def __post_init__(self) -> None:
        """Check every value, so that a wrong one is named at the start and not in the middle of a run."""
        self._check_numbers()
        self._check_names()
        object.__setattr__(self, "encryption_keys", _checked_keys(self.encryption_keys))
        if self.spool_dir is not None:
            object.__setattr__(self, "spool_dir", Path(self.spool_dir))
            if not self.encryption_keys:
                raise ConfigurationError("spool_dir needs encryption_keys: sessions are never written to disk in plain")

    def _check_numbers(self) -> None:
        for name in _DURATIONS:
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                object.__setattr__(self, name, _seconds(value, name))
        for name, minimum in _MINIMA.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
                raise ConfigurationError(f"{name} must be a whole number of at least {minimum}, not {value!r}")

    def _check_names(self) -> None:
        if not isinstance(self.url, str) or "://" not in self.url:
            raise ConfigurationError("url must look like redis://host:6379/0 or embedded://")
        if not self.key_prefix or any(character in self.key_prefix for character in "{} \t\r\n"):
            raise ConfigurationError("key_prefix must be non-empty and hold no braces or white space")
        if self.compression not in _COMPRESSIONS:
            raise ConfigurationError(f"compression must be one of {', '.join(_COMPRESSIONS)}, not {self.compression!r}")

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None, **arguments: Any) -> Config:
        """Build the settings from arguments, then the environment, then the defaults.

        Args:
            environment: the variables to look in; `os.environ` if not given.
            arguments: fields of this class; they win over the environment.

        Raises:
            ConfigurationError: an unknown name or a wrong value; the message names the argument or the variable.
        """
        environment = os.environ if environment is None else environment
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(arguments) - known)
        if unknown:
            raise ConfigurationError(f"unknown setting {unknown[0]!r}; known are: {', '.join(sorted(known))}")
        values: dict[str, Any] = {}
        for name in _FROM_ENVIRONMENT:
            variable = ENVIRONMENT_PREFIX + name.upper()
            if name not in arguments and environment.get(variable, "").strip():
                values[name] = _parsed(name, variable, environment[variable].strip())
        return cls(**(values | arguments))

    def __repr__(self) -> str:
        """Show the settings without the password of the URL and without keys."""
        hidden = {"url": redacted_url(self.url), "encryption_keys": "…" if self.encryption_keys else ()}
        shown = {f.name: hidden.get(f.name, getattr(self, f.name)) for f in fields(self)}
        return f"Config({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


_DURATIONS: Final = (
    "ttl", "restore_timeout", "save_timeout", "attempt_timeout", "connect_timeout", "close_timeout", "capture_timeout", "verify_timeout",
    "lease_ttl", "wait_timeout", "cleanup_interval", "flush_rate", "max_age",
)  # fmt: skip
_OPTIONAL: Final = frozenset({"max_age", "max_uses"})
_MINIMA: Final = {
    "max_uses": 1, "retire_after_bad": 1, "max_state_bytes": 1, "pending_max": 0, "pending_max_bytes": 0, "recent_bytes": 0, "lanes": 1, "wait_replicas": 0,
    "deadline_buckets": 1,
}  # fmt: skip
_COMPRESSIONS: Final = ("auto", "zstd", "lz4", "zlib", "none")
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def redacted_url(url: str) -> str:
    """Return the URL with user name and password masked, and without its query."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("?")[0].partition("/")
    credentials, at, host = authority.rpartition("@")
    return f"{scheme}{separator}{'***@' if at and credentials else ''}{host}{slash}{path}"


def _seconds(value: object, name: str) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds <= 0:
        raise ConfigurationError(f"{name} must be a positive number of seconds or a timedelta, not {value!r}")
    return float(seconds)


def _checked_keys(keys: object) -> KeySource:
    if callable(keys):
        return keys
    if isinstance(keys, str | bytes):
        keys = (keys,)
    try:
        listed = tuple(decoded_key(key) for key in keys)  # type: ignore[attr-defined]
    except TypeError:
        raise ConfigurationError("encryption_keys must be a list of keys or a callable that returns one") from None
    return listed


def decoded_key(key: object) -> bytes:
    """Return a key of 32 bytes, given as such or in base64. The error never quotes the key."""
    if isinstance(key, str):
        try:
            key = base64.b64decode(key.translate(str.maketrans("-_", "+/")) + "=" * (-len(key) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise ConfigurationError("encryption_keys: a key is not valid base64") from None
    if not isinstance(key, bytes) or len(key) != 32:
        raise ConfigurationError("encryption_keys: each key must be 32 bytes, or those 32 bytes in base64")
    return key


def _to_bool(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)


_PARSERS: Final[dict[str, Callable[[str], Any]]] = {
    "str": str,
    "int": int,
    "int | None": int,
    "float": float,
    "float | None": float,
    "bool": _to_bool,
    "Path | None": Path,
    "KeySource": lambda text: tuple(part.strip() for part in text.split(",") if part.strip()),
}
_FROM_ENVIRONMENT: Final = {f.name: str(f.type) for f in fields(Config) if str(f.type) in _PARSERS}


def _parsed(name: str, variable: str, text: str) -> Any:
    kind = _FROM_ENVIRONMENT[name]
    try:
        value = _PARSERS[kind](text)
    except ValueError:
        raise ConfigurationError(f"{variable} must be of type {kind.removesuffix(' | None')}") from None
    try:
        Config(**{name: value, **({"encryption_keys": (b"\0" * 32,)} if name == "spool_dir" else {})})
    except ConfigurationError as error:
        raise ConfigurationError(f"{variable}: {error}") from None
    return value

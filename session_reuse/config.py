"""Settings of a session manager: names, types, defaults, and where they come from.

Order: argument, then the environment variable `SESSION_REUSE_<NAME>`, then the default. Durations are seconds as
float or `timedelta`.
"""

from __future__ import annotations

import base64
import binascii
import math
import os
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from session_reuse._url import flag, parse_url
from session_reuse._url import redacted_url as redacted_url  # noqa: PLC0414  (most users import it from here)
from session_reuse.errors import ConfigurationError

ENVIRONMENT_PREFIX: Final = "SESSION_REUSE_"

DEFAULT_REGISTRY: Final = "default"
"""Stands for `prometheus_client.REGISTRY`, so that the default costs no import."""

KeySource = tuple[bytes, ...] | Callable[[], "list[bytes] | tuple[bytes, ...]"]
ExpiredCallback = Callable[[str], Awaitable[None] | None]
LostCallback = Callable[[str, str], None]


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
    """How long the server may be silent in one attempt, at most `restore_timeout`; bytes that arrive are no silence."""
    connect_timeout: float = 0.25
    """Budget of one step of opening a connection; it goes on in the background when its agent has given up."""
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
    encryption_keys: KeySource | None = None
    """AES-256-GCM keys of 32 bytes; the first encrypts, all decrypt. A callable is called once, at the first use. Text
    is base64 or 64 hex digits; the environment separates keys by commas. None: sessions are stored in plain."""
    max_state_bytes: int = 8 * 1024 * 1024
    """Largest session that is stored or read, in bytes of JSON."""

    reuse_while_away: float = 3600.0
    """How long after the store was heard last its sessions are reused from memory while it is away. 0: never."""
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
    on_lost: LostCallback | None = None
    """Called with the fingerprint and the reason when a save that waited is given up."""
    cleanup_interval: float = 30.0
    """How often the clean-up job compares the index of deadlines with the sessions."""
    configure_notifications: bool = False
    """Whether the clean-up job may set the server's `notify-keyspace-events`."""
    strict: bool = False
    """Raise trouble of the store instead of starting with a fresh session."""

    def __post_init__(self) -> None:
        """Check every value, so that a wrong one is named at the start and not in the middle of a run."""
        for field in fields(self):
            object.__setattr__(self, field.name, _checked(field.name, getattr(self, field.name)))
        if self.attempt_timeout > self.restore_timeout:
            if self.attempt_timeout != _DEFAULT_ATTEMPT:
                raise ConfigurationError(
                    f"attempt_timeout ({self.attempt_timeout:g} s) is above restore_timeout ({self.restore_timeout:g} s), "
                    "which ends every attempt: raise restore_timeout, or lower attempt_timeout"
                )
            object.__setattr__(self, "attempt_timeout", self.restore_timeout)
        if self.spool_dir is not None and not self.encryption_keys:
            raise ConfigurationError("spool_dir needs encryption_keys: sessions are never written to disk in plain")

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
            text = environment.get(variable, "").strip()
            # An empty variable counts as unset, but for the keys: then sessions would be stored in plain by accident.
            if name not in arguments and (text or (name == "encryption_keys" and variable in environment)):
                values[name] = _parsed(name, variable, text)
        _warn_of_unknown_variables(environment)
        return cls(**(values | arguments))

    def __repr__(self) -> str:
        """Show the settings without the password of the URL and without keys."""
        hidden = {"url": redacted_url(self.url), "encryption_keys": self.encryption_keys and "…"}
        shown = {f.name: hidden.get(f.name, getattr(self, f.name)) for f in fields(self)}
        return f"Config({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


_TYPES: Final = {field.name: str(field.type) for field in fields(Config)}
_DEFAULT_ATTEMPT: Final = Config.__dataclass_fields__["attempt_timeout"].default
_MAY_BE_ZERO: Final = frozenset({"reuse_while_away"})
_AT_LEAST_ONE: Final = frozenset({"max_uses", "retire_after_bad", "max_state_bytes", "lanes", "deadline_buckets"})
_COMPRESSIONS: Final = ("auto", "zstd", "lz4", "zlib", "none")
_MAKE_A_KEY: Final = "make one with: openssl rand -base64 32"


def _checked(name: str, value: Any) -> Any:
    """Return the value of one setting as it is stored.

    Raises:
        ConfigurationError: it is wrong.
    """
    kind = _TYPES[name].removesuffix(" | None")
    if value is None and kind != _TYPES[name]:
        return None
    if check := _CHECKS.get(name):
        return check(value)
    if kind == "float":
        return _seconds(value, name)
    least = 1 if name in _AT_LEAST_ONE else 0
    if kind == "int" and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise ConfigurationError(f"{name} must be a whole number of at least {least}, not {value!r}")
    if kind == "bool" and not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, not {value!r}")
    if kind.endswith("Callback") and not callable(value):
        raise ConfigurationError(f"{name} must be a function, not {value!r}")
    return value


def _seconds(value: Any, name: str) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds)
    if not is_number or seconds < 0 or (seconds == 0 and name not in _MAY_BE_ZERO):
        raise ConfigurationError(f"{name} must be a positive number of seconds or a timedelta, not {value!r}")
    return float(seconds)


def _checked_url(url: object) -> str:
    if not isinstance(url, str):
        raise ConfigurationError(
            f"url must be text such as redis://host:6379/0 or embedded://, not {type(url).__name__}"
        )
    parse_url(url)
    return url


def _checked_prefix(prefix: object) -> str:
    if not isinstance(prefix, str) or not prefix or any(character in prefix for character in "{} \t\r\n"):
        raise ConfigurationError("key_prefix must be non-empty and hold no braces or white space")
    return prefix


def _checked_compression(name: object) -> object:
    if name not in _COMPRESSIONS:
        raise ConfigurationError(f"compression must be one of {', '.join(_COMPRESSIONS)}, not {name!r}")
    return name


def _checked_folder(folder: object) -> Path:
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        raise ConfigurationError(f"spool_dir must be a path, not {folder!r}")
    return Path(folder)


def _checked_keys(keys: Any) -> KeySource:
    return keys if callable(keys) else _key_list(keys)


def _key_list(keys: Any) -> tuple[bytes, ...]:
    if isinstance(keys, str | bytes):
        keys = (keys,)
    try:
        listed = tuple(decoded_key(key) for key in keys)
    except TypeError:
        raise ConfigurationError("encryption_keys must be a list of keys or a callable that returns one") from None
    if not listed:
        raise ConfigurationError(
            "encryption_keys holds no key, and sessions would be stored in plain: leave it out (None) if that is meant"
        )
    return listed


_CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "url": _checked_url,
    "key_prefix": _checked_prefix,
    "compression": _checked_compression,
    "encryption_keys": _checked_keys,
    "spool_dir": _checked_folder,
}


def configured_keys(config: Config) -> tuple[bytes, ...]:
    """Return the keys, and call the function that gives them if there is one; empty when none are configured.

    Raises:
        ConfigurationError: the function returns no key, or a wrong one.
    """
    source = config.encryption_keys
    if source is None:
        return ()
    return _key_list(source()) if callable(source) else source


def decoded_key(key: object) -> bytes:
    """Return a key of 32 bytes, given as such, in base64 or as 64 hex digits. The error never quotes the key."""
    if isinstance(key, str):
        key = _key_of_text(key.strip())
    if not isinstance(key, bytes) or len(key) != 32:
        raise ConfigurationError(
            f"encryption_keys: each key must be 32 bytes, or those in base64 or in 64 hex digits; {_MAKE_A_KEY}"
        )
    return key


def _key_of_text(text: str) -> bytes:
    try:
        if len(text) == 64:
            return bytes.fromhex(text)
        return base64.b64decode(text.translate(str.maketrans("-_", "+/")) + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(
            f"encryption_keys: a key is neither base64 nor 64 hex digits (pass phrases are not keys); {_MAKE_A_KEY}"
        ) from None


_PARSERS: Final[dict[str, tuple[Callable[[str], Any], str]]] = {
    "str": (str, "text"),
    "int": (int, "a whole number"),
    "int | None": (int, "a whole number"),
    "float": (float, "a number"),
    "float | None": (float, "a number"),
    "bool": (flag, "true or false"),
    "Path | None": (Path, "a path"),
    "KeySource | None": (lambda text: tuple(part.strip() for part in text.split(",") if part.strip()), "keys"),
}
"""How text of the environment becomes a value, and what it must be, by the type of the setting."""
_FROM_ENVIRONMENT: Final = {f.name: str(f.type) for f in fields(Config) if str(f.type) in _PARSERS}
_OTHER_VARIABLES: Final = ("REDIS_SERVER", "CHROMIUM")


def _parsed(name: str, variable: str, text: str) -> Any:
    parse, kind = _PARSERS[_FROM_ENVIRONMENT[name]]
    try:
        value = parse(text)
    except ValueError:
        raise ConfigurationError(f"{variable} must be {kind}") from None
    try:
        return _checked(name, value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{variable}: {error}") from None


def unknown_variables(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that begin like ours and mean nothing, each with the nearest name, which may be empty."""
    environment = os.environ if environment is None else environment
    known = [name.upper() for name in _FROM_ENVIRONMENT] + list(_OTHER_VARIABLES)
    ours = (name.removeprefix(ENVIRONMENT_PREFIX) for name in environment if name.startswith(ENVIRONMENT_PREFIX))
    return {ENVIRONMENT_PREFIX + name: _nearest(name, known) for name in sorted(ours) if name not in known}


def _nearest(name: str, known: list[str]) -> str:
    """Return the known variable that ends alike, such as URL for REDIS_URL, else the one that is spelt most alike."""
    ending = [each for each in known if name.endswith(f"_{each}")]
    nearest = next(iter(ending or get_close_matches(name, known, 1)), None)
    return "" if nearest is None else ENVIRONMENT_PREFIX + nearest


_warned: Final[set[str]] = set()


def _warn_of_unknown_variables(environment: Mapping[str, str]) -> None:
    """Warn of each unknown variable once in this process."""
    for name, nearest in unknown_variables(environment).items():
        if name not in _warned:
            _warned.add(name)
            hint = f"did you mean {nearest}?" if nearest else "it has no effect"
            warnings.warn(f"session_reuse knows no variable {name}: {hint}", RuntimeWarning, stacklevel=4)

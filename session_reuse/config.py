"""Settings of a session manager: names, types, defaults, and where they come from.

Order: argument, then the environment variable `SESSION_REUSE_<NAME>`, then the default. Durations are seconds as
float or `timedelta`.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypedDict, Unpack, cast

from session_reuse._settings.encryption_keys import KeySource, checked_source, key_list
from session_reuse._settings.url import DEFAULT_PREFIX, DEFAULT_URL, flag, parse_url
from session_reuse._settings.url import redacted_url as redacted_url  # noqa: PLC0414  (most users import it from here)
from session_reuse._settings.values import Seconds, expanded, seconds, switch, whole
from session_reuse.errors import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

ENVIRONMENT_PREFIX: Final = "SESSION_REUSE_"

DEFAULT_REGISTRY: Final = "default"
"""Stands for `prometheus_client.REGISTRY`, so that the default costs no import."""

Registry: TypeAlias = "CollectorRegistry | Literal['default'] | None"
ExpiredCallback: TypeAlias = Callable[[str], Awaitable[None] | None]
LostCallback: TypeAlias = Callable[[str, str], None]


class ConfigOptions(TypedDict, total=False):
    """The settings as arguments of `SessionManager`. `Config` explains each one."""

    url: str
    key_prefix: str
    ttl: Seconds
    sliding: bool
    max_age: Seconds | None
    max_uses: int | None
    retire_after_bad: int
    ttl_from_cookies: bool
    restore_timeout: Seconds
    save_timeout: Seconds
    attempt_timeout: Seconds
    connect_timeout: Seconds
    close_timeout: Seconds
    capture_timeout: Seconds
    verify_timeout: Seconds
    lease_ttl: Seconds
    compression: str
    encryption_keys: bytes | str | Iterable[bytes | str] | Callable[[], Iterable[bytes | str]] | None
    max_state_bytes: int
    reuse_while_away: Seconds
    recent_bytes: int
    pending_max: int
    pending_max_bytes: int
    spool_dir: str | os.PathLike[str] | None
    lanes: int
    wait_replicas: int
    registry: Registry
    on_expired: ExpiredCallback | None
    on_lost: LostCallback | None
    cleanup_interval: Seconds
    configure_notifications: bool
    audit: bool
    strict: bool


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Config:
    """Settings of one `SessionManager`."""

    url: str = DEFAULT_URL
    """Address of the store: `redis://`, `rediss://`, `unix://`, `redis+sentinel://`, `redis+cluster://` (and
    `rediss+…` for TLS), or `embedded://[path]` for a private redis-server."""
    key_prefix: str = DEFAULT_PREFIX
    """First part of every key: `<key_prefix>:session:<fingerprint>`."""

    ttl: float = 86400.0
    """How long a session is kept after its last use."""
    sliding: bool = True
    """Whether a restore starts the time to live again. If false, only a save does."""
    max_age: float | None = None
    """Retire a session this long after its first save, however often it is used. None: no limit."""
    max_uses: int | None = None
    """Retire a session after this many reuses. None: no limit. A number adds one command to each enter."""
    retire_after_bad: int = 3
    """Retire a session when `mark_bad` outweighs `mark_good` by this much. A good mark takes back half a bad one."""
    ttl_from_cookies: bool = False
    """Keep a session no longer than its longest-lived httpOnly cookie."""

    restore_timeout: float = 0.5
    """Hard budget of an enter, whatever the store does."""
    save_timeout: float = 2.0
    """Budget of a save. A save that is not written by then is kept pending."""
    attempt_timeout: float = 0.15
    """How long the server may be silent in one attempt, at most `restore_timeout`. Bytes that arrive are no silence."""
    connect_timeout: float = 0.25
    """Budget of one step of opening a connection. The connection is opened in the background after that."""
    close_timeout: float = 2.0
    """Budget for flushing pending saves when the manager is closed."""
    capture_timeout: float = 10.0
    """Budget for reading the state from a browser before a save. If it runs out, the stored state is kept."""
    verify_timeout: float = 10.0
    """Budget of an async `verify` hook. If it runs out, the session counts as not verified."""

    lease_ttl: float = 30.0
    """How long an exclusive lease outlives a holder that has died. The holder renews it at a third of this time."""
    compression: str = "auto"
    """`auto` (the best installed), `zstd`, `lz4`, `zlib` or `none`. States below 1 KiB are stored uncompressed."""
    encryption_keys: KeySource | None = None
    """AES-256-GCM keys of 32 bytes. The first encrypts, all decrypt. A callable is called at the first use in each event
    loop, and has 10 s. Text is base64 or 64 hex digits. The environment separates keys by commas. None: sessions are
    stored in plain."""
    max_state_bytes: int = 8 * 1024 * 1024
    """Largest session that is stored or read, in bytes of JSON."""

    reuse_while_away: float = 3600.0
    """How long sessions are reused from memory after the last answer of a store that is away. 0: not at all."""
    recent_bytes: int = 16 * 1024 * 1024
    """How many bytes of sessions stay in memory after their use. A process that reads its own save again decrypts
    nothing then. 0 keeps no session after it has ended."""

    pending_max: int = 10_000
    """How many sessions may wait in memory, and in `spool_dir`, for the store to come back."""
    pending_max_bytes: int = 64 * 1024 * 1024
    """How many bytes may wait in memory, and how many `spool_dir` may hold."""
    spool_dir: Path | None = None
    """Folder in which waiting saves are also kept, encrypted: one for each store. It needs `encryption_keys`. None: memory only."""

    lanes: int = 2
    """Connections that carry batched commands. One more is used for large values."""
    wait_replicas: int = 0
    """How many replicas must acknowledge each save (`WAIT`). Fewer acknowledgements are reported."""

    registry: Registry = DEFAULT_REGISTRY
    """A `prometheus_client.CollectorRegistry`. Default: the default one of that package. None turns metrics off."""
    on_expired: ExpiredCallback | None = None
    """Called with the fingerprint of each expired session that the clean-up job has removed."""
    on_lost: LostCallback | None = None
    """Called with the fingerprint and the reason when a save that waited is given up."""
    cleanup_interval: float = 30.0
    """How often the clean-up job compares the index of deadlines with the sessions."""
    configure_notifications: bool = False
    """Whether the clean-up job may set the server's `notify-keyspace-events`."""
    audit: bool = False
    """Whether each use of a session leaves a line in the stream `<key_prefix>:audit`: who, when, and with which result."""
    strict: bool = False
    """Raise errors of the store instead of starting with a fresh session."""

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
            raise ConfigurationError("spool_dir needs encryption_keys: sessions are written to disk encrypted only")

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None, **arguments: Unpack[ConfigOptions]) -> Config:
        """Return the settings from arguments, then the environment, then the defaults.

        Args:
            environment: the variables to use. Default: `os.environ`.
            arguments: fields of this class. They override the environment.

        Raises:
            ConfigurationError: an unknown name or a wrong value. The message names the argument or the variable.
        """
        environment = os.environ if environment is None else environment
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(arguments) - known)
        if unknown:
            raise ConfigurationError(_unknown(unknown[0], known))
        values: dict[str, object] = {}
        for name in ENVIRONMENT_SETTINGS:
            variable = ENVIRONMENT_PREFIX + name.upper()
            text = environment.get(variable, "").strip()
            # An empty variable counts as unset. Not for the keys: sessions would be stored in plain by accident.
            if name not in arguments and (text or (name == "encryption_keys" and variable in environment)):
                values[name] = _parsed(name, variable, text)
        _warn_of_unknown_variables(environment)
        # `__post_init__` checks each value and converts it to the type of its field.
        return cast("Callable[..., Config]", cls)(**(values | arguments))

    def __repr__(self) -> str:
        """Return the settings without the password of the URL and without keys."""
        hidden = {"url": redacted_url(self.url), "encryption_keys": self.encryption_keys and "…"}
        shown = {f.name: hidden.get(f.name, getattr(self, f.name)) for f in fields(self)}
        return f"Config({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


_TYPES: Final = {field.name: str(field.type) for field in fields(Config)}
_DEFAULT_ATTEMPT: Final = Config.__dataclass_fields__["attempt_timeout"].default
_MAY_BE_ZERO: Final = frozenset({"reuse_while_away"})
_AT_LEAST_ONE: Final = frozenset({"max_uses", "retire_after_bad", "max_state_bytes", "lanes"})
_COMPRESSIONS: Final = ("auto", "zstd", "lz4", "zlib", "none")


def _checked(name: str, value: object) -> object:
    """Return the value of one setting in the form of its field.

    Raises:
        ConfigurationError: the value is wrong.
    """
    kind = _TYPES[name].removesuffix(" | None")
    if value is None and kind != _TYPES[name]:
        return None
    if check := _CHECKS.get(name):
        return check(value)
    if kind == "float":
        return seconds(name, value, may_be_zero=name in _MAY_BE_ZERO)
    if kind == "int":
        return whole(name, value, least=1 if name in _AT_LEAST_ONE else 0)
    if kind == "bool":
        return switch(name, value)
    if kind.endswith("Callback"):
        if not callable(value):
            raise ConfigurationError(f"{name} must be a function, not {value!r}")
        # Of its class, too: an object may have an `async def __call__`.
        if name == "on_lost" and any(map(inspect.iscoroutinefunction, (value, type(value).__call__))):
            raise ConfigurationError("on_lost must be a plain function: it is called where nothing can be awaited")
    return value


def _checked_url(url: object) -> str:
    if not isinstance(url, str):
        raise ConfigurationError(
            f"url must be text such as redis://host:6379/0 or embedded://, not {type(url).__name__}"
        )
    parse_url(url)
    return url


def _checked_prefix(prefix: object) -> str:
    # Braces in a key mark the hash tag of Redis Cluster: side keys would be stored in other slots than their session.
    if not isinstance(prefix, str) or not prefix or any(character in prefix for character in "{} \t\r\n"):
        raise ConfigurationError("key_prefix must be non-empty, without braces and white space")
    if not prefix.isprintable():  # a lone surrogate has no bytes
        raise ConfigurationError("key_prefix must not hold control characters or lone surrogates")
    return prefix


def _checked_compression(name: object) -> object:
    if name not in _COMPRESSIONS:
        raise ConfigurationError(f"compression must be one of {', '.join(_COMPRESSIONS)}, not {name!r}")
    return name


def _checked_folder(folder: object) -> Path:
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        raise ConfigurationError(f"spool_dir must be a path, not {folder!r}")
    try:
        return expanded(Path(folder))
    except ConfigurationError as error:
        raise ConfigurationError(f"spool_dir {error}") from None


_CHECKS: Final[dict[str, Callable[[object], object]]] = {
    "url": _checked_url,
    "key_prefix": _checked_prefix,
    "compression": _checked_compression,
    "encryption_keys": checked_source,
    "spool_dir": _checked_folder,
}


def configured_keys(config: Config) -> tuple[bytes, ...]:
    """Return the encryption keys of the settings, from the callable if there is one. Empty without keys.

    Raises:
        ConfigurationError: the callable raises, or returns no key, or a wrong one.
    """
    source = config.encryption_keys
    if not callable(source):
        return source or ()
    try:
        keys = source()
    except Exception as error:
        raise ConfigurationError(f"encryption_keys: the callable has raised {type(error).__name__}") from error
    return key_list(keys)


_PARSERS: Final[dict[str, tuple[Callable[[str], object], str]]] = {
    "str": (str, "text"),
    "int": (int, "a whole number"),
    "int | None": (int, "a whole number"),
    "float": (float, "a number"),
    "float | None": (float, "a number"),
    "bool": (flag, "true or false"),
    "Path | None": (Path, "a path"),
    "KeySource | None": (lambda text: tuple(part.strip() for part in text.split(",") if part.strip()), "keys"),
}
"""For each type of a setting: how to parse the text of a variable, and a name of the type for messages."""
ENVIRONMENT_SETTINGS: Final = {f.name: str(f.type) for f in fields(Config) if str(f.type) in _PARSERS}
"""The settings that have an environment variable, with their types."""
_OTHER_VARIABLES: Final = ("REDIS_SERVER", "CHROMIUM", "CDP_URL", "CDP_WS")


def _parsed(name: str, variable: str, text: str) -> object:
    parse, kind = _PARSERS[ENVIRONMENT_SETTINGS[name]]
    try:
        value = parse(text)
    except ValueError:
        raise ConfigurationError(f"{variable} must be {kind}") from None
    try:
        return _checked(name, value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{variable}: {error}") from None


def unknown_variables(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables with our prefix that have no effect, each with the nearest known name or an empty text."""
    environment = os.environ if environment is None else environment
    known = [name.upper() for name in ENVIRONMENT_SETTINGS] + list(_OTHER_VARIABLES)
    ours = (name.removeprefix(ENVIRONMENT_PREFIX) for name in environment if name.startswith(ENVIRONMENT_PREFIX))
    return {ENVIRONMENT_PREFIX + name: _nearest(name, known) for name in sorted(ours) if name not in known}


def _nearest(name: str, known: list[str]) -> str:
    """Return the known variable with the same ending, such as URL for REDIS_URL, or else with the nearest spelling."""
    ending = [each for each in known if name.endswith(f"_{each}")]
    nearest = next(iter(ending or get_close_matches(name, known, 1)), None)
    return "" if nearest is None else ENVIRONMENT_PREFIX + nearest


OPTIONS_OF_A_USE: Final = frozenset(
    {"exclusive", "wait", "on_busy", "verify", "save_on_error", "allowed_domains", "save", "pool"}
)
"""Options of `reusable_session` that are no settings of the manager."""


def _unknown(name: str, known: set[str]) -> str:
    """Return the message for an argument that is no setting."""
    if name in OPTIONS_OF_A_USE:
        return f"{name} is an option of each use: write reusable_session(fingerprint, {name}=...)"
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else "help(session_reuse.config.Config) lists the settings"
    return f"unknown setting {name!r}: {hint}"


_warned: Final[set[str]] = set()


def _warn_of_unknown_variables(environment: Mapping[str, str]) -> None:
    """Warn of each unknown variable once in this process."""
    for name, nearest in unknown_variables(environment).items():
        if name not in _warned:
            _warned.add(name)
            hint = f"did you mean {nearest}?" if nearest else "it has no effect"
            warnings.warn(f"session_reuse knows no variable {name}: {hint}", RuntimeWarning, stacklevel=4)

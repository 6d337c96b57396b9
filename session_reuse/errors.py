"""Every error this package raises.

The tree::

    SessionReuseError
    ├── ConfigurationError (ValueError)     a setting is wrong or something needed is not installed
    │   └── MissingExtraError (ImportError)     the message names the extra to install
    ├── InvalidFingerprintError (ValueError, TypeError)  an empty, over-long or wrongly typed fingerprint or agent_id
    ├── InvalidStateError (ValueError)      a storage state or data that is not one
    │   └── StateTooLargeError                  larger than `max_state_bytes`
    ├── LifecycleError (RuntimeError)       an object used before, after or twice
    │   ├── AlreadyEnteredError
    │   └── ManagerClosedError
    ├── SessionBusyError                    exclusive lease held by another, with `on_busy="raise"`
    ├── StoreError                          with `strict=True`, or from a call that needs the store
    │   ├── StoreUnavailableError
    │   ├── StoreTimeoutError (TimeoutError)
    │   ├── StoreAuthError
    │   │   └── StorePermissionError
    │   └── CircuitOpenError
    ├── CorruptStateError                   with `strict=True`, from `BrowserSession.import_`, or from `one_time_code`
    │   └── UnreadableStateError                whole, but not to be opened with these keys or extras
    └── AdapterError                        a browser could not be found, read or filled, or a check could not tell

Users meet them for misuse, or with `strict=True`. For an agent, trouble of the store is an `Outcome` and no exception. Calls
that are of no use without the store raise a `StoreError`: `evict`, `invalidate`, `sessions`, `history`, `one_time_code`,
`set_totp_secret`, `cleanup_once`, `keep_alive(once=True)`, and those of pools. The exception of an agent's own code always
comes out unchanged. No message contains a cookie, a storage value or a password.
"""

from __future__ import annotations

from session_reuse.outcome import Outcome

__all__ = [
    "AdapterError",
    "AlreadyEnteredError",
    "CircuitOpenError",
    "ConfigurationError",
    "CorruptStateError",
    "InvalidFingerprintError",
    "InvalidStateError",
    "LifecycleError",
    "ManagerClosedError",
    "MissingExtraError",
    "SessionBusyError",
    "SessionReuseError",
    "StateTooLargeError",
    "StoreAuthError",
    "StoreError",
    "StorePermissionError",
    "StoreTimeoutError",
    "StoreUnavailableError",
    "UnreadableStateError",
]


class SessionReuseError(Exception):
    """Base of every error of this package."""


class ConfigurationError(SessionReuseError, ValueError):
    """A setting is wrong, or something it needs is missing. The message names the setting and the remedy."""


class MissingExtraError(ConfigurationError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs an extra: pip install 'session-reuse[{extra}]'")
        self.extra, self._purpose = extra, purpose

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        """Return how to make a copy, such as one for another process. Exception's own way passes the message alone."""
        return type(self), (self.extra, self._purpose)


class InvalidFingerprintError(SessionReuseError, ValueError, TypeError):
    """A fingerprint or agent_id is empty, too long, or not a string."""


class InvalidStateError(SessionReuseError, ValueError):
    """A storage state or the session's data has a wrong shape or a value that is not JSON."""


class StateTooLargeError(InvalidStateError):
    """The session is larger than `max_state_bytes`."""


class LifecycleError(SessionReuseError, RuntimeError):
    """An object was used before it was entered, after it was closed, or in the wrong place."""


class AlreadyEnteredError(LifecycleError):
    """One `reusable_session(...)` object was entered twice. Each `with` needs a new one."""


class ManagerClosedError(LifecycleError):
    """The session manager was closed before."""


class SessionBusyError(SessionReuseError):
    """Another agent holds the exclusive lease, or no member of the pool is free, and `on_busy="raise"` was asked for."""


class StoreError(SessionReuseError):
    """An operation of the store failed.

    Attributes:
        outcome: the outcome that a session entered at this moment gets.
    """

    outcome: Outcome = Outcome.UNAVAILABLE


class StoreUnavailableError(StoreError):
    """The store could not be reached, or refused the command."""


class StoreTimeoutError(StoreError, TimeoutError):
    """The store did not answer in time. A write may or may not have been applied."""

    outcome = Outcome.TIMEOUT


class StoreAuthError(StoreError):
    """The store rejected the user or the password, or the user lacks a right."""

    outcome = Outcome.AUTH


class StorePermissionError(StoreAuthError):
    """The user lacks a right on a command or a key. Other keys may be fine."""


class CircuitOpenError(StoreError):
    """The store failed repeatedly shortly before, so no request was sent."""

    outcome = Outcome.CIRCUIT_OPEN


class CorruptStateError(SessionReuseError):
    """A stored value is damaged, foreign, of an unknown schema, or not readable with the configured keys."""


class UnreadableStateError(CorruptStateError):
    """A stored session is whole, but this process lacks the key or the extra to open it. It stays stored."""


class AdapterError(SessionReuseError):
    """A browser or client could not be found, read or filled. A check of a login that raises it could not tell."""

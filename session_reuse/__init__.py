"""Keep browser agents logged in: their sessions live in Redis and come back at the next start.

Example::

    async with reusable_session("shop.example/alice", agent_id="agent-7") as session:
        ...

Names are loaded when they are first used: importing the package imports no Redis client, no metrics, no logging.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from session_reuse._api import reusable_session
    from session_reuse._browser_session import BrowserSession
    from session_reuse._cleanup.reconcile import CleanupReport
    from session_reuse._decorator.naming import injected
    from session_reuse._decorator.persist import persist_session
    from session_reuse._manager import SessionManager
    from session_reuse._problem import Problem, ProblemKind
    from session_reuse._state.shapes import Cookie, OriginState, StorageState
    from session_reuse._store.interface import SessionUse
    from session_reuse._summaries import ManagerStats, SessionSummary
    from session_reuse.config import Config
    from session_reuse.errors import (
        AdapterError,
        AlreadyEnteredError,
        CircuitOpenError,
        ConfigurationError,
        CorruptStateError,
        InvalidFingerprintError,
        InvalidStateError,
        LifecycleError,
        ManagerClosedError,
        MissingExtraError,
        SessionBusyError,
        SessionReuseError,
        StateTooLargeError,
        StoreAuthError,
        StoreError,
        StorePermissionError,
        StoreTimeoutError,
        StoreUnavailableError,
        UnreadableStateError,
    )
    from session_reuse.outcome import Liveness, Outcome, SaveOutcome

_HOMES = (
    "errors", "outcome", "_problem", "_state.shapes", "config", "_store.interface", "_summaries", "_cleanup.reconcile",
    "_browser_session", "_manager", "_api", "_decorator.naming", "_decorator.persist",
)  # fmt: skip
"""The modules that have the names. The first ones import the least."""

__all__ = [
    "AdapterError",
    "AlreadyEnteredError",
    "BrowserSession",
    "CircuitOpenError",
    "CleanupReport",
    "Config",
    "ConfigurationError",
    "Cookie",
    "CorruptStateError",
    "InvalidFingerprintError",
    "InvalidStateError",
    "LifecycleError",
    "Liveness",
    "ManagerClosedError",
    "ManagerStats",
    "MissingExtraError",
    "OriginState",
    "Outcome",
    "Problem",
    "ProblemKind",
    "SaveOutcome",
    "SessionBusyError",
    "SessionManager",
    "SessionReuseError",
    "SessionSummary",
    "SessionUse",
    "StateTooLargeError",
    "StorageState",
    "StoreAuthError",
    "StoreError",
    "StorePermissionError",
    "StoreTimeoutError",
    "StoreUnavailableError",
    "UnreadableStateError",
    "injected",
    "persist_session",
    "reusable_session",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("session-reuse")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = next(found for home in _HOMES if (found := getattr(import_module(f"{__name__}.{home}"), name, None)))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

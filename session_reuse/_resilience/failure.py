"""What a failed attempt means: for a retry, for the breaker, for the caller.

Servers quote arguments in their errors, and our arguments are credentials: only the class and the error code are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from session_reuse.errors import CircuitOpenError, StoreError, StoreTimeoutError, StoreUnavailableError


class Retry(StrEnum):
    """When another attempt makes sense."""

    NEVER = "never"
    SAVE = "save"
    """Only when it can wait: the attempt has used up an enter's time."""
    ALWAYS = "always"


class FailureScope(StrEnum):
    """How far a failure reaches, and so which breaker counts it."""

    REQUEST = "request"
    """Our own limits, one connection, one key, one command, or the data."""
    WRITES = "writes"
    """The server reads but does not write."""
    SERVER = "server"
    CREDENTIALS = "credentials"
    """Credentials do not heal: no further requests for a while."""


class AttemptFailed(Exception):  # noqa: N818  (internal: it becomes an outcome before a caller sees it)
    """One failed attempt.

    Attributes:
        error: what a caller with `strict=True` gets.
        code: class name or the server's error code, for logs.
    """

    def __init__(self, error: StoreError, code: str, retry: Retry, scope: FailureScope) -> None:
        super().__init__(code)
        self.error = error
        self.code = code
        self.retry = retry
        self.scope = scope


@contextmanager
def store_errors(named: Callable[[StoreError], StoreError] = lambda error: error) -> Iterator[None]:
    """Raise the `StoreError` of a failed attempt, for calls whose trouble is no outcome.

    Args:
        named: adds the address of the store to the error.
    """
    try:
        yield
    except AttemptFailed as failure:
        raise named(failure.error) from None


def circuit_open(retry_in: float, rejected: StoreError | None = None) -> AttemptFailed:
    """Return the failure of an attempt that was not made.

    Args:
        retry_in: seconds until it is tried again.
        rejected: why the breaker is open, when the store rejects our credentials: that stays the reason.
    """
    if rejected is not None:
        # A new error for each caller: one that is raised twice collects both tracebacks.
        return AttemptFailed(type(rejected)(str(rejected)), "circuit_open", Retry.NEVER, FailureScope.REQUEST)
    error = CircuitOpenError(f"the store failed shortly before, and is tried again in {retry_in:.1f} s")
    return AttemptFailed(error, "circuit_open", Retry.NEVER, FailureScope.REQUEST)


def not_understood(error: Exception) -> AttemptFailed:
    """Return the failure of an attempt whose reply has a shape that Redis does not send. Proxies and imitations do."""
    name = type(error).__name__
    reason = f"the store sent a reply that makes no sense ({name})"
    return AttemptFailed(StoreUnavailableError(reason), name, Retry.NEVER, FailureScope.REQUEST)


def used_up() -> AttemptFailed:
    """Return the failure of an operation whose budget has ended in our own queue, or before its attempt had."""
    return AttemptFailed(StoreTimeoutError("the budget is used up"), "budget", Retry.SAVE, FailureScope.REQUEST)

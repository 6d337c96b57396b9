"""From redis-py's exceptions to a `AttemptFailed`: the one place that knows their classes and the server's error codes.

A write to a connection that was reset is an AttributeError on CPython 3.12 and 3.13.0 to 3.13.9, a TypeError on 3.14.0:
https://github.com/python/cpython/issues/136234.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from typing import Any, Final, NamedTuple

from redis import exceptions as redis_errors

from session_reuse._resilience.failure import AttemptFailed, FailureScope, Retry
from session_reuse._store.redis.diagnosis import Trouble, diagnose
from session_reuse._store.redis.redis_py import ClosedError, StalledError
from session_reuse._store.redis.resolver import ResolverSilentError
from session_reuse.errors import (
    StoreAuthError,
    StoreError,
    StorePermissionError,
    StoreTimeoutError,
    StoreUnavailableError,
)


class _Rule(NamedTuple):
    error: type[StoreError]
    retry: Retry
    scope: FailureScope
    remedy: str


_AWAY: Final = _Rule(StoreUnavailableError, Retry.ALWAYS, FailureScope.SERVER, "the store cannot be reached")
_TIMEOUT: Final = _Rule(StoreTimeoutError, Retry.SAVE, FailureScope.SERVER, "the store did not answer in time")
_STARTING: Final = _Rule(StoreUnavailableError, Retry.SAVE, FailureScope.SERVER, "the store is not ready")
_AUTH: Final = _Rule(
    StoreAuthError, Retry.NEVER, FailureScope.CREDENTIALS, "the store rejects the user or the password"
)
_RIGHTS: Final = _Rule(
    StorePermissionError,
    Retry.NEVER,
    FailureScope.REQUEST,
    "the user lacks a right: see Minimal rights in docs/reference/stored-form.md",
)
_READ_ONLY: Final = _Rule(StoreUnavailableError, Retry.SAVE, FailureScope.WRITES, "the store is a read-only replica")
_TOO_FEW: Final = _Rule(
    StoreUnavailableError, Retry.SAVE, FailureScope.WRITES, "the store refuses writes: it has too few replicas in step"
)
_FULL: Final = _Rule(
    StoreUnavailableError, Retry.NEVER, FailureScope.WRITES, "the store refuses writes: memory or disk is full"
)
_OWN_LIMIT: Final = _Rule(StoreUnavailableError, Retry.ALWAYS, FailureScope.REQUEST, "all our connections are in use")
_STALLED: Final = _Rule(StoreTimeoutError, Retry.ALWAYS, FailureScope.REQUEST, "one connection did not answer in time")
_CLOSED: Final = _Rule(StoreUnavailableError, Retry.NEVER, FailureScope.REQUEST, "the manager was closed")
_RESOLVER: Final = _Rule(StoreTimeoutError, Retry.SAVE, FailureScope.REQUEST, "the resolver did not answer in time")
_SPLIT: Final = _Rule(
    StoreUnavailableError, Retry.SAVE, FailureScope.REQUEST, "the cluster is moving the keys of this slot"
)
_MOVING: Final = _Rule(StoreUnavailableError, Retry.ALWAYS, FailureScope.REQUEST, "the cluster is moving the key")
_OTHER_TYPE: Final = _Rule(StoreUnavailableError, Retry.NEVER, FailureScope.REQUEST, "a key of ours holds another type")
_REFUSED: Final = _Rule(StoreUnavailableError, Retry.NEVER, FailureScope.SERVER, "the store refused the command")

_NAMED: Final = {
    _REFUSED: frozenset(Trouble) - {Trouble.OTHER},
    _AWAY: frozenset(
        {Trouble.CLIENTS, Trouble.DATABASE, Trouble.HTTP, Trouble.NO_MASTER, Trouble.NOT_REDIS, Trouble.PROTECTED}
    ),
}
"""Of which troubles the message says more. That the server cannot be reached is said already."""

# By the server's code: redis-py has no class for MISCONF and BUSY (8.1).
_CODES: Final = {
    "OOM": _FULL, "MISCONF": _FULL, "NOREPLICAS": _TOO_FEW, "READONLY": _READ_ONLY, "NOPERM": _RIGHTS,
    "NOAUTH": _AUTH, "WRONGPASS": _AUTH, "BUSY": _STARTING, "LOADING": _STARTING, "MASTERDOWN": _STARTING,
    "CLUSTERDOWN": _STARTING, "TRYAGAIN": _SPLIT, "WRONGTYPE": _OTHER_TYPE,
}  # fmt: skip
# Subclasses first: for redis-py a wrong password is a ConnectionError, too (8.1).
_CLASSES: Final[tuple[tuple[type[BaseException], _Rule], ...]] = (
    (redis_errors.NoPermissionError, _RIGHTS),
    (redis_errors.AuthenticationError, _AUTH),
    (redis_errors.AuthorizationError, _AUTH),
    (redis_errors.MaxConnectionsError, _OWN_LIMIT),
    (redis_errors.BusyLoadingError, _STARTING),
    (redis_errors.MasterDownError, _STARTING),
    (redis_errors.ClusterDownError, _STARTING),
    (redis_errors.TryAgainError, _SPLIT),
    (redis_errors.SlotNotCoveredError, _MOVING),
    (redis_errors.AskError, _MOVING),
    (redis_errors.ReadOnlyError, _READ_ONLY),
    (redis_errors.OutOfMemoryError, _FULL),
    (StalledError, _STALLED),
    (ClosedError, _CLOSED),
    (ResolverSilentError, _RESOLVER),
    (redis_errors.TimeoutError, _TIMEOUT),
    (redis_errors.ResponseError, _REFUSED),
    (TimeoutError, _TIMEOUT),  # redis-py's is another class
    (Exception, _AWAY),
)
_CODE: Final = re.compile(r"[A-Z][A-Z]{2,20}(?= |$)")
_CODE_IN_SCRIPT: Final = re.compile(r"(?:(?<=: -)[A-Z][A-Z]{2,20}|(?<=: )WRONGTYPE)(?= )")
"""Redis 6.2 puts the place in the script before it: `Error running script (…): @user_script:1: @user_script: 1: -OOM command …`."""


def failure_from(error: Exception, key: str = "") -> AttemptFailed:
    """Return the failure for an exception that redis-py, or the network below it, has raised. An error of a type names the key."""
    error = _of_a_node(error)
    code = error_code(error)
    rule = _CODES.get(code) or _rule_by_class(error)
    words = system_reason(error)
    name = type(error).__name__ + (f" {code}" if code else words)
    why = diagnose(error) if rule is _REFUSED or (rule is _AWAY and not words) else None
    if rule is _REFUSED and why is not None and why.trouble is Trouble.RIGHTS:
        rule, why = _RIGHTS, None  # of a command in a script, whose error has no code
    remedy = rule.remedy.replace("a key of ours", key) if key else rule.remedy
    reason = f": {why.found}; {why.remedy}" if why is not None and why.trouble in _NAMED[rule] else ""
    return AttemptFailed(rule.error(f"{remedy}{reason} ({name})"), name, rule.retry, rule.scope)


def _of_a_node(error: Exception) -> Exception:
    """Return what the node that was asked last has raised, if redis-py says only that it cannot use the Cluster (8.1)."""
    while type(error) is redis_errors.RedisClusterException:
        inner = error.__cause__ or error.__context__
        if not isinstance(inner, Exception):
            break
        error = inner
    return error


def checked(reply: Any, key: str = "") -> Any:
    """Return a reply, or raise the AttemptFailed that stands in its place."""
    if isinstance(reply, Exception):
        raise failure_from(reply, key) from None
    return reply


def system_reason(error: BaseException | None) -> str:
    """Return the words of the operating system or of TLS for a failed connection, such as `: Connection refused`."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f": {error.verify_message}"
        if isinstance(error, ssl.SSLError):
            return f": {error.reason}"
        if isinstance(error, socket.gaierror):
            return f": {error.strerror}"
        if isinstance(error, OSError) and error.errno:
            return f": {os.strerror(error.errno)}"
        error = error.__cause__ or error.__context__
    return ""


def error_code(error: Exception) -> str:
    """Return the server's error code, such as `OOM`, or an empty string. redis-py keeps some and cuts off others."""
    if not isinstance(error, redis_errors.ResponseError):
        return ""
    match = _CODE.match(str(error)) or _CODE_IN_SCRIPT.search(str(error))
    return match.group() if match else ""


def writes_refused(error: Exception) -> bool:
    """Return whether the server would still have read."""
    rule = _CODES.get(error_code(error)) or _rule_by_class(error)
    return rule.scope is FailureScope.WRITES


def _rule_by_class(error: Exception) -> _Rule:
    if isinstance(error.__context__, ResolverSilentError):  # redis-py makes a ConnectionError of each OSError
        return _RESOLVER
    if isinstance(error, redis_errors.ClusterDownError) and "slot" in str(error):  # this slot's trouble only
        return _SPLIT
    return next(rule for kind, rule in _CLASSES if isinstance(error, kind))

"""Log events: through structlog where the application has configured it, else to the stdlib logger `session_reuse`.

An application without any logging sees warnings and errors on standard error, as Python writes them there.
"""

from __future__ import annotations

import inspect
import logging
import sys
from enum import StrEnum
from types import ModuleType
from typing import Final

from session_reuse._telemetry.guard import report_once

LOGGER_NAME: Final = "session_reuse"
_stdlib: Final = logging.getLogger(LOGGER_NAME)

_METHODS: Final = {
    logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error",
}  # fmt: skip


class Event(StrEnum):
    """Every event this package logs."""

    STORE_UNAVAILABLE = "session_reuse.store_unavailable"
    STORE_AVAILABLE = "session_reuse.store_available"
    RESTORED = "session_reuse.restored"
    MISSED = "session_reuse.missed"
    CORRUPT = "session_reuse.corrupt"
    DEGRADED = "session_reuse.degraded"
    AUTH_FAILED = "session_reuse.auth_failed"
    SAVED = "session_reuse.saved"
    SAVE_SKIPPED = "session_reuse.save_skipped"
    SAVE_PENDING = "session_reuse.save_pending"
    SAVE_STALE = "session_reuse.save_stale"
    SAVE_LOST = "session_reuse.save_lost"
    FLUSHED = "session_reuse.flushed"
    INVALID_STATE = "session_reuse.invalid_state"
    INVALIDATED = "session_reuse.invalidated"
    MARKED_BAD = "session_reuse.marked_bad"
    LEASE_LOST = "session_reuse.lease_lost"
    PROBED = "session_reuse.probed"
    POOL_EMPTY = "session_reuse.pool_empty"
    LEASE_FOREIGN = "session_reuse.lease_foreign"
    BREAKER_CHANGED = "session_reuse.breaker_changed"
    UNDER_REPLICATED = "session_reuse.under_replicated"
    EMBEDDED_STARTED = "session_reuse.embedded_started"
    SPOOL_REJECTED = "session_reuse.spool_rejected"
    SPOOL_FAILED = "session_reuse.spool_failed"
    EXPIRED = "session_reuse.expired"
    AUDIT_FAILED = "session_reuse.audit_failed"
    CALLBACK_FAILED = "session_reuse.callback_failed"
    NOTIFICATIONS_OFF = "session_reuse.notifications_off"
    NOTIFICATIONS_GAP = "session_reuse.notifications_gap"
    CLEANUP_FAILED = "session_reuse.cleanup_failed"


class Log:
    """Write events at a level. A field `note` is a sentence for people, written in place of the other fields."""

    def debug(self, event: Event, **fields: object) -> None:
        """Log an event of normal work."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: Event, **fields: object) -> None:
        """Log an event of interest to an operator."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: Event, **fields: object) -> None:
        """Log an event that an operator should examine."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: Event, **fields: object) -> None:
        """Log an error that lasts until an operator acts."""
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: Event, fields: dict[str, object]) -> None:
        # An application that has configured structlog has imported it. An import here took 0.1 s of the first enter
        # (2026-11).
        structlog = sys.modules.get("structlog")
        try:
            if structlog is not None and structlog.is_configured():
                _to_structlog(structlog, level, event, fields)
                return
        except Exception as error:  # noqa: BLE001  (processors and loggers of the application may raise anything)
            report_once("structlog", error)
        try:
            if _stdlib.isEnabledFor(level):
                text = fields.get("note") or " ".join(f"{name}={value!r}" for name, value in fields.items())
                _stdlib.log(level, "%s %s", event.value, text, extra={"session_reuse": fields})
        except Exception as error:  # noqa: BLE001  (filters and handlers of the application may raise anything)
            report_once("logging", error)


def _to_structlog(structlog: ModuleType, level: int, event: Event, fields: dict[str, object]) -> None:
    # By the name of the level: `.log(level, ...)` does not exist in structlog's generic BoundLogger.
    method = getattr(structlog.get_logger(LOGGER_NAME), _METHODS[level])
    result = method(event.value, **fields)
    if inspect.iscoroutine(result):
        result.close()  # else Python warns of a coroutine that was never awaited
        raise TypeError("an asynchronous structlog logger cannot be used from synchronous code")


log: Final = Log()

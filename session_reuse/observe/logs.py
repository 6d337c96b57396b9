"""Log events: through structlog where the user has configured it, else to the stdlib logger `session_reuse`.

Must never configure logging for anybody, print, or show a secret: what may be logged is a short list of field names.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from enum import StrEnum
from typing import Any, Final

LOGGER_NAME: Final = "session_reuse"
_stdlib: Final = logging.getLogger(LOGGER_NAME)
_stdlib.addHandler(logging.NullHandler())

REDACTED: Final = "[redacted]"
SECRET_FIELDS: Final = frozenset(
    {
        "authorization", "cookie", "cookies", "data", "encryption_keys", "key", "localStorage", "origins", "password",
        "sessionStorage", "set-cookie", "state", "storage_state", "token", "url", "value",
    }
)  # fmt: skip


class Event(StrEnum):
    """Every event this package logs."""

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
    LEASE_FOREIGN = "session_reuse.lease_foreign"
    BREAKER_CHANGED = "session_reuse.breaker_changed"
    UNDER_REPLICATED = "session_reuse.under_replicated"
    EMBEDDED_STARTED = "session_reuse.embedded_started"
    SPOOL_REJECTED = "session_reuse.spool_rejected"
    SPOOL_FAILED = "session_reuse.spool_failed"
    EXPIRED = "session_reuse.expired"
    CALLBACK_FAILED = "session_reuse.callback_failed"
    NOTIFICATIONS_OFF = "session_reuse.notifications_off"
    NOTIFICATIONS_GAP = "session_reuse.notifications_gap"
    CLEANUP_FAILED = "session_reuse.cleanup_failed"


class Log:
    """Writes events at a level; asks whether anybody listens before it does any work."""

    def debug(self, event: Event, **fields: Any) -> None:
        """Log what happens all the time."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: Event, **fields: Any) -> None:
        """Log what an operator may want to know."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: Event, **fields: Any) -> None:
        """Log what an operator should look at."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: Event, **fields: Any) -> None:
        """Log what will not heal by itself."""
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: Event, fields: dict[str, Any]) -> None:
        # Who has configured structlog has imported it; importing it here held up the first enter by 0.1 s (2026-11).
        structlog = sys.modules.get("structlog")
        if structlog is not None and structlog.is_configured():
            redact_secrets(None, "", fields)
            structlog.get_logger(LOGGER_NAME).log(level, event.value, **fields)
        elif _stdlib.isEnabledFor(level):
            redact_secrets(None, "", fields)
            text = " ".join(f"{name}={value!r}" for name, value in fields.items())
            _stdlib.log(level, "%s %s", event.value, text, extra={"session_reuse": fields})


def redact_secrets(_logger: object, _method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask fields whose name says that they hold a secret; also usable as a structlog processor."""
    for name in event_dict:
        if name in SECRET_FIELDS:
            event_dict[name] = REDACTED
    return event_dict


log: Final = Log()

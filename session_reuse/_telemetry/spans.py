"""OpenTelemetry spans around restore and save, without an import of OpenTelemetry.

Spans are made of sessions that are entered after the application has configured OpenTelemetry. Names and values avoid the
words that common scrubbers replace, such as "session", "cookie" and "auth".
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from hashlib import blake2b
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

from session_reuse._telemetry.guard import report_once

if TYPE_CHECKING:
    from session_reuse.outcome import Outcome, SaveOutcome

RESTORE: Final = "session_reuse.restore"
SAVE: Final = "session_reuse.save"
OUTCOME: Final = "reuse.outcome"
DEGRADED: Final = "reuse.degraded"
FINGERPRINT_HASH: Final = "reuse.fingerprint_hash"

_SHOWN: Final = {"auth": "denied"}
"""Outcomes whose name is a secret to scrubbers."""
_NO_SPAN: Final = nullcontext()


class Traced(Protocol):
    """The attributes of a `BrowserSession` that a span reads."""

    outcome: Outcome
    save_outcome: SaveOutcome | None

    @property
    def fingerprint(self) -> str:
        """Name of the login."""


def tracing() -> ModuleType | None:
    """Return `opentelemetry.trace`, once the application has configured it."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    try:
        # An import alone proves nothing: redis-py imports OpenTelemetry if it is installed. Spans without a provider took
        # 40 µs a cycle (2026-11).
        return None if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider) else trace
    except Exception as error:  # noqa: BLE001  (the tracer of the application may raise anything)
        report_once("tracing", error)
        return None


def restore_span(trace: ModuleType | None, session: Traced) -> AbstractContextManager[None]:
    """Trace an enter, where `tracing` has returned a module. Its outcome is read from the session at the end."""
    return _NO_SPAN if trace is None else _Span(trace, RESTORE, session)


def save_span(trace: ModuleType | None, session: Traced) -> AbstractContextManager[None]:
    """Trace a save, likewise."""
    return _NO_SPAN if trace is None else _Span(trace, SAVE, session)


def fingerprint_hash(fingerprint: str) -> str:
    """Return sixteen hex digits that are the same for the same fingerprint, to find its spans."""
    return blake2b(fingerprint.encode("utf-8", "replace"), digest_size=8, person=b"session_reuse").hexdigest()


class _Span(AbstractContextManager[None]):
    """A span whose tracer may raise at any call. It does not change the exception of the body."""

    def __init__(self, trace: ModuleType, name: str, session: Traced) -> None:
        self._trace, self._name, self._session = trace, name, session
        self._opened: Any = None
        self._span: Any = None

    def __enter__(self) -> None:
        try:
            tracer = self._trace.get_tracer("session_reuse")
            # Exceptions are left to the application's spans: their messages name fingerprints.
            opened = tracer.start_as_current_span(self._name, record_exception=False, set_status_on_exception=False)
            self._span = opened.__enter__()
            self._opened = opened
        except Exception as error:  # noqa: BLE001  (as above)
            report_once("tracing", error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is None:
            return
        try:
            self._describe(failed=isinstance(error, Exception))
        except Exception as raised:  # noqa: BLE001  (as above)
            report_once("tracing", raised)
        try:
            self._opened.__exit__(None, None, None)
        except Exception as raised:  # noqa: BLE001  (as above)
            report_once("tracing", raised)

    def _describe(self, *, failed: bool) -> None:
        if failed:
            self._span.set_status(self._trace.StatusCode.ERROR)
        if not self._span.is_recording():
            return
        outcome = self._session.outcome if self._name == RESTORE else self._session.save_outcome
        word = "none" if outcome is None else outcome.value
        degraded = {DEGRADED: self._session.outcome.degraded} if self._name == RESTORE else {}
        shown = {OUTCOME: _SHOWN.get(word, word), FINGERPRINT_HASH: fingerprint_hash(self._session.fingerprint)}
        self._span.set_attributes(shown | degraded)

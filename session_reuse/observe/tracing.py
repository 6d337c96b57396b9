"""OpenTelemetry spans around restore and save. Must never import OpenTelemetry, nor name a fingerprint or a value.

Who wants spans has configured OpenTelemetry, or an agent of it has; until then nothing is done here. That it is imported
says nothing: redis-py imports it where it is installed, and its spans that lead nowhere cost 40 µs a cycle (2026-11).
Keys and values avoid the words that common scrubbers blank out, such as "session", "cookie" and "auth".
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, contextmanager, nullcontext
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from session_reuse.outcome import Outcome, SaveOutcome

RESTORE: Final = "session_reuse.restore"
SAVE: Final = "session_reuse.save"
OUTCOME: Final = "reuse.outcome"
DEGRADED: Final = "reuse.degraded"
FINGERPRINT_HASH: Final = "reuse.fingerprint_hash"

_SHOWN: Final = {"auth": "denied"}
"""Outcomes whose own word is taken for a secret by scrubbers."""
_NO_SPAN: Final = nullcontext()


class Traced(Protocol):
    """What a span looks at, when it begins and when it ends: a `BrowserSession`."""

    fingerprint: str
    outcome: Outcome
    save_outcome: SaveOutcome | None


def restore_span(session: Traced) -> AbstractContextManager[None]:
    """Trace an enter; its outcome is read from the session at the end."""
    return _span(RESTORE, session)


def save_span(session: Traced) -> AbstractContextManager[None]:
    """Trace a save; its outcome is read from the session at the end."""
    return _span(SAVE, session)


def fingerprint_hash(fingerprint: str) -> str:
    """Return sixteen hex digits that are the same for the same fingerprint, to find its spans by."""
    return blake2b(fingerprint.encode("utf-8", "replace"), digest_size=8, person=b"session_reuse").hexdigest()


def _span(name: str, session: Traced) -> AbstractContextManager[None]:
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return _NO_SPAN
    return _traced(trace, name, session)


@contextmanager
def _traced(trace: Any, name: str, session: Traced) -> Iterator[None]:
    tracer = trace.get_tracer("session_reuse")
    # Exceptions are left to their own spans: their messages name fingerprints.
    with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as span:
        try:
            yield
        except Exception:
            span.set_status(trace.StatusCode.ERROR)
            raise
        finally:
            if span.is_recording():
                span.set_attributes(_attributes(name, session))


def _attributes(name: str, session: Traced) -> dict[str, str | bool]:
    outcome = session.outcome if name == RESTORE else session.save_outcome
    word = "none" if outcome is None else outcome.value
    attributes: dict[str, str | bool] = {
        OUTCOME: _SHOWN.get(word, word),
        FINGERPRINT_HASH: fingerprint_hash(session.fingerprint),
    }
    if name == RESTORE:
        attributes[DEGRADED] = session.outcome.degraded
    return attributes

"""Spans: there when OpenTelemetry is, nothing when it is not, and nothing in them that is secret or scrubbed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from session_reuse import BrowserSession, Outcome, SaveOutcome, reusable_session
from session_reuse._telemetry.spans import fingerprint_hash, restore_span, save_span
from session_reuse.testing import FaultyStore, MemoryStore, memory_manager

ROOT = Path(__file__).parents[2]
SCRUBBED = re.compile(r"session|cookie|auth(?!ors?\b)|passw|secret|credential|jwt|csrf|token", re.IGNORECASE)
"""Words that scrubbers of traces blank out wherever they meet them."""


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What is exported during the test."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return exporter


def only(spans: InMemorySpanExporter) -> ReadableSpan:
    """Return the one span there is."""
    (span,) = spans.get_finished_spans()
    return span


def test_a_restore_is_traced_with_its_outcome(spans: InMemorySpanExporter) -> None:
    """Who follows an agent's trace sees how it started, and finds all visits of one identity by a hash."""
    session = BrowserSession("shop.example/alice")
    with restore_span(session):
        session.outcome = Outcome.TIMEOUT
    assert only(spans).name == "session_reuse.restore"
    assert only(spans).attributes == {
        "reuse.outcome": "timeout",
        "reuse.degraded": True,
        "reuse.fingerprint_hash": fingerprint_hash("shop.example/alice"),
    }


def test_a_save_is_traced_with_its_outcome(spans: InMemorySpanExporter) -> None:
    """The same for leaving, also when the save did not finished."""
    session = BrowserSession("a")
    with save_span(session):
        session.save_outcome = SaveOutcome.MERGED
    session.save_outcome = None
    with pytest.raises(ValueError, match="body"), save_span(session):
        raise ValueError("body")
    first, second = spans.get_finished_spans()
    assert (first.attributes or {})["reuse.outcome"] == "merged"
    assert first.status.is_ok
    assert (second.attributes or {})["reuse.outcome"] == "none"
    assert not second.status.is_ok
    assert second.status.description is None
    assert not second.events


@pytest.mark.parametrize("outcome", Outcome)
def test_no_attribute_is_blanked_or_tells_a_name(spans: InMemorySpanExporter, outcome: Outcome) -> None:
    """Common scrubbers leave every attribute alone, and no span names an identity."""
    session = BrowserSession("canary.example/alice", "canary-agent")
    with restore_span(session):
        session.outcome = outcome
    for save_outcome in SaveOutcome:
        with save_span(session):
            session.save_outcome = save_outcome
    for span in spans.get_finished_spans():
        for key, value in (span.attributes or {}).items():
            assert not SCRUBBED.search(f"{key} {value}")
        assert "canary" not in span.to_json()


def test_nothing_is_imported_and_nothing_done_without_opentelemetry() -> None:
    """Who does not trace pays nothing: not an import, not a span."""
    code = (
        "import sys; from session_reuse._telemetry.spans import restore_span\n"
        "with restore_span(None): pass\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=140)


def test_an_opentelemetry_that_nobody_configured_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """redis-py imports OpenTelemetry where it is installed: that alone must not make spans that lead nowhere."""
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    monkeypatch.setattr(trace, "get_tracer", None)
    session = BrowserSession("a")
    with restore_span(session), save_span(session):
        pass


async def test_each_visit_is_traced(spans: InMemorySpanExporter) -> None:
    """An agent's trace shows its enter and its saves, and what became of them. It names no one."""
    name = "shop.example/canary"
    async with memory_manager() as manager, reusable_session(name, "canary", manager=manager) as session:
        session.data["note"] = "canary"
        await session.checkpoint()
    found = [(span.name, (span.attributes or {})["reuse.outcome"]) for span in spans.get_finished_spans()]
    assert found == [
        ("session_reuse.restore", "missing"),
        ("session_reuse.save", "saved"),
        ("session_reuse.save", "unchanged"),
    ]
    assert "canary" not in "".join(span.to_json() for span in spans.get_finished_spans())


async def test_an_outage_is_traced_as_degraded(spans: InMemorySpanExporter) -> None:
    """In a trace, a start without the store looks different from a miss."""
    store = FaultyStore(MemoryStore(), fail="auth")
    async with memory_manager(store, close_timeout=0.05) as manager, reusable_session("a", manager=manager) as session:
        session.data["n"] = 1
    attributes = [dict(span.attributes or {}) for span in spans.get_finished_spans()]
    assert [each["reuse.outcome"] for each in attributes] == ["denied", "pending"]
    assert attributes[0]["reuse.degraded"] is True

"""Spans: there when OpenTelemetry is, nothing when it is not, and nothing in them that is secret or scrubbed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from session_reuse import InvalidStateError, Outcome, SaveOutcome, reusable_session
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


async def test_a_restore_is_traced_with_its_outcome(spans: InMemorySpanExporter) -> None:
    """Who follows an agent's trace sees how it started, and finds all visits of one identity by a hash, in each version."""
    store = FaultyStore(MemoryStore(), fail="timeout")
    async with memory_manager(store) as manager, reusable_session("shop.example/alice", manager=manager) as session:
        session.discard()
    first, _ = spans.get_finished_spans()
    assert first.name == "session_reuse.restore"
    assert first.attributes == {
        "reuse.outcome": "timeout", "reuse.degraded": True, "reuse.fingerprint_hash": "c56f6b66f24ca2c8",
    }  # fmt: skip


async def test_a_save_is_traced_with_its_outcome(spans: InMemorySpanExporter) -> None:
    """The same for leaving, also when the save raises."""
    async with memory_manager() as manager:
        async with reusable_session("a", manager=manager) as one:
            async with reusable_session("a", manager=manager) as other:
                other.data["other"] = 1
            one.data["one"] = 1
        with pytest.raises(InvalidStateError):
            async with reusable_session("a", manager=manager) as session:
                session.data["one"] = object()
    *_, merged, _, raised = spans.get_finished_spans()
    assert (merged.attributes or {})["reuse.outcome"] == "merged"
    assert merged.status.is_ok
    assert (raised.attributes or {})["reuse.outcome"] == "skipped"
    assert not raised.status.is_ok
    assert raised.status.description is None
    assert not raised.events


@pytest.mark.parametrize("outcome", [*Outcome, *SaveOutcome])
def test_no_outcome_is_a_word_that_scrubbers_blank(outcome: Outcome | SaveOutcome) -> None:
    """One is, and is shown by another word: see the outage below."""
    assert bool(SCRUBBED.search(outcome)) is (outcome is Outcome.AUTH)


def test_nothing_is_imported_and_nothing_done_without_opentelemetry() -> None:
    """Who does not trace pays nothing: not an import, not a span."""
    code = (
        "import sys; from session_reuse._telemetry.spans import restore_span, tracing\n"
        "with restore_span(tracing(), None): pass\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=140)


async def test_an_opentelemetry_that_nobody_configured_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """redis-py imports OpenTelemetry where it is installed: that alone must not make spans that lead nowhere."""
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    monkeypatch.setattr(trace, "get_tracer", None)
    async with memory_manager() as manager, reusable_session("a", manager=manager):
        pass
    assert capsys.readouterr().err == ""


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
    for span in spans.get_finished_spans():
        assert "canary" not in span.to_json()
        assert not [key for key in span.attributes or {} if SCRUBBED.search(key)]


async def test_an_outage_is_traced_as_degraded(spans: InMemorySpanExporter) -> None:
    """In a trace, a start without the store looks different from a miss."""
    store = FaultyStore(MemoryStore(), fail="auth")
    async with memory_manager(store, close_timeout=0.05) as manager, reusable_session("a", manager=manager) as session:
        session.data["n"] = 1
    attributes = [dict(span.attributes or {}) for span in spans.get_finished_spans()]
    assert [each["reuse.outcome"] for each in attributes] == ["denied", "pending"]
    assert attributes[0]["reuse.degraded"] is True

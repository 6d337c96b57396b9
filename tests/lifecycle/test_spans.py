"""Spans of real visits: one for each enter and each save, and nothing in them that tells whose."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from session_reuse import SessionManager, reusable_session


async def test_visits_are_traced_without_naming_anybody(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An enter, a checkpoint and an exit make three spans; the fingerprint and the state are not in them."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    async with reusable_session("shop.example/alice", "agent", manager=manager) as session:
        session.data["secret"] = "hunter2"
        await session.checkpoint()
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["session_reuse.restore", "session_reuse.save", "session_reuse.save"]
    assert [dict(span.attributes or {})["reuse.outcome"] for span in spans] == ["missing", "saved", "unchanged"]
    shown = "".join(span.to_json() for span in spans)
    assert "alice" not in shown
    assert "hunter2" not in shown

"""Every hook of metrics, logging and tracing raises at every call, and the agent does not notice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import prometheus_client
import pytest
import structlog
from opentelemetry import trace
from prometheus_client import CollectorRegistry

from session_reuse import Outcome, reusable_session
from session_reuse._telemetry import Event, Operation, StoreHealth, Telemetry, log
from session_reuse.errors import StoreTimeoutError
from session_reuse.outcome import SaveOutcome
from session_reuse.testing import FaultyStore, MemoryStore, memory_manager
from tests.harness.polling import until

if TYPE_CHECKING:
    from collections.abc import Iterator

Hook = Callable[[pytest.MonkeyPatch, Callable[..., Any]], Any]
"""Puts a callable in place of one hook of an instrument; may return the registry to use."""


def on(owner: Any, name: str) -> Hook:
    """Return a hook that is an attribute of a class or module."""
    return lambda monkeypatch, raising: monkeypatch.setattr(owner, name, raising)


# Metrics --------------------------------------------------------------------------------------------------------------


class Registry(CollectorRegistry):
    """A registry of the application's own."""


def refusing_registry(monkeypatch: pytest.MonkeyPatch, raising: Callable[..., Any]) -> CollectorRegistry:
    """Refuse every registration."""
    monkeypatch.setattr(Registry, "register", raising)
    return Registry()


def closed_registry(monkeypatch: pytest.MonkeyPatch, raising: Callable[..., Any]) -> CollectorRegistry:
    """Refuse attributes."""
    monkeypatch.setattr(Registry, "__setattr__", raising, raising=False)
    return Registry.__new__(Registry)


def not_a_registry(_monkeypatch: pytest.MonkeyPatch, _raising: Callable[..., Any]) -> object:
    """Something else altogether."""
    return object()


METRICS: dict[str, Hook] = {
    "registry.register": refusing_registry,
    "registry.__setattr__": closed_registry,
    "no registry": not_a_registry,
    "Counter": on(prometheus_client, "Counter"),
    "Gauge": on(prometheus_client, "Gauge"),
    "Histogram": on(prometheus_client, "Histogram"),
    "Counter.labels": on(prometheus_client.Counter, "labels"),
    "Counter.inc": on(prometheus_client.Counter, "inc"),
    "Gauge.set": on(prometheus_client.Gauge, "set"),
    "Histogram.observe": on(prometheus_client.Histogram, "observe"),
}


# Logging --------------------------------------------------------------------------------------------------------------


def processor(_monkeypatch: pytest.MonkeyPatch, raising: Callable[..., Any]) -> None:
    """A processor of structlog that needs a key which is not there."""
    structlog.configure(processors=[raising])


def logger_factory(_monkeypatch: pytest.MonkeyPatch, raising: Callable[..., Any]) -> None:
    """A factory of structlog's loggers."""
    structlog.configure(logger_factory=raising, cache_logger_on_first_use=False)


def wrapper_class(_monkeypatch: pytest.MonkeyPatch, raising: Callable[..., Any]) -> None:
    """A class of structlog's bound loggers."""
    structlog.configure(wrapper_class=raising)


def stdlib_filter(monkeypatch: pytest.MonkeyPatch, raising: Callable[..., Any]) -> None:
    """A filter on our logger."""
    monkeypatch.setattr(logging.getLogger("session_reuse"), "filters", [raising])


def stdlib_handler(monkeypatch: pytest.MonkeyPatch, raising: Callable[..., Any]) -> None:
    """A handler on our logger that raises instead of handling its error."""
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", raising)
    monkeypatch.setattr(logging.getLogger("session_reuse"), "handlers", [handler])


def stdlib_formatter(monkeypatch: pytest.MonkeyPatch, raising: Callable[..., Any]) -> None:
    """A record factory, which is asked before any handler."""
    monkeypatch.setattr(logging.getLogger("session_reuse"), "makeRecord", raising)


LOGGING: dict[str, Hook] = {
    "structlog processor": processor,
    "structlog logger factory": logger_factory,
    "structlog wrapper class": wrapper_class,
    "structlog.is_configured": on(structlog, "is_configured"),
    "filter": stdlib_filter,
    "handler": stdlib_handler,
    "record": stdlib_formatter,
    "isEnabledFor": on(logging.Logger, "isEnabledFor"),
}


# Tracing --------------------------------------------------------------------------------------------------------------


class Span:
    """A span whose methods do nothing."""

    def is_recording(self) -> bool:
        """As if exported."""
        return True

    def set_attributes(self, _attributes: dict[str, Any]) -> None:
        """Set."""

    def set_status(self, _status: Any) -> None:
        """Set."""


class Opened:
    """What a tracer gives to `with`."""

    def __enter__(self) -> Span:
        """Begin."""
        return Span()

    def __exit__(self, *_: object) -> None:
        """End."""


class Tracer:
    """A tracer of the application's own."""

    def start_as_current_span(self, _name: str, **_: Any) -> Opened:
        """Begin a span."""
        return Opened()


class Provider:
    """Gives the tracer."""

    def get_tracer(self, *_: Any, **__: Any) -> Tracer:
        """Return it."""
        return Tracer()


TRACING: dict[str, Hook] = {
    "get_tracer_provider": on(trace, "get_tracer_provider"),
    "get_tracer": on(Provider, "get_tracer"),
    "start_as_current_span": on(Tracer, "start_as_current_span"),
    "span.__enter__": on(Opened, "__enter__"),
    "span.__exit__": on(Opened, "__exit__"),
    "is_recording": on(Span, "is_recording"),
    "set_attributes": on(Span, "set_attributes"),
}

HOOKS = {
    f"{kind}: {name}": (kind, hook)
    for kind, hooks in {"metrics": METRICS, "log": LOGGING, "tracing": TRACING}.items()
    for name, hook in hooks.items()
}


@pytest.fixture
def instruments(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An application that traces. Structlog is left unconfigured again at the end."""
    monkeypatch.setattr(trace, "get_tracer_provider", Provider)
    monkeypatch.setattr(trace, "get_tracer", lambda *_, **__: trace.get_tracer_provider().get_tracer())
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def expected() -> list[Any]:
    """What an agent sees without any instrument."""
    return asyncio.run(history(None))


async def history(registry: Any) -> list[Any]:
    """Return what an agent sees: enter, body, exit, an outage in which the breaker opens, recovery."""
    seen: list[Any] = []
    store = FaultyStore(MemoryStore())

    async def visit(name: str, **data: Any) -> None:
        async with reusable_session(name, "agent", manager=manager) as session:
            # On a busy machine the breaker lets a probe pass, which fails, before the last visit of the outage.
            outcome = Outcome.UNAVAILABLE if session.outcome is Outcome.CIRCUIT_OPEN else session.outcome
            seen.append((name, outcome, dict(session.data)))
            session.data.update(data)
        seen.append(session.save_outcome)

    async with memory_manager(store, registry=registry) as manager:
        await visit("shop", step=1)
        await visit("shop", step=2)
        with pytest.raises(ValueError, match="of the body"):
            async with reusable_session("shop", manager=manager):
                raise ValueError("of the body")
        store.fail = "unavailable"  # type: ignore[assignment]
        for number in range(6):
            await visit(f"new-{number}", step=3)
        seen.append(manager.stats().breakers["read"])
        store.heal()
        await until(lambda: not manager.stats().pending, message="the saves still wait")
        await visit("new-1")
        await visit("shop")
        seen.append(manager.stats().lost)
    return seen


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.usefixtures("instruments")
async def test_enter_body_exit_outage_and_recovery_go_on(
    name: str, expected: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an agent sees is the same as without any instrument, and the first failure is reported once."""
    assert Outcome.REUSED in {each[1] for each in expected if isinstance(each, tuple)}
    calls: list[object] = []

    def raising(*_: object, **__: object) -> Any:
        calls.append(name)
        raise LookupError(f"no {name} today")

    kind, hook = HOOKS[name]
    logging.getLogger("session_reuse").setLevel(logging.DEBUG)
    registry = hook(monkeypatch, raising) or CollectorRegistry()
    capsys.readouterr()
    assert await history(registry) == expected
    monkeypatch.undo()
    logging.getLogger("session_reuse").setLevel(logging.NOTSET)
    lines = [line for line in capsys.readouterr().err.splitlines() if "failed, the agent goes on" in line]
    assert len(lines) == 1, lines
    assert kind in lines[0]
    assert calls or "no registry" in name


@pytest.mark.parametrize("name", ["metrics: Counter.inc", "metrics: registry.register", "log: filter"])
@pytest.mark.usefixtures("instruments")
def test_an_interrupt_inside_a_hook_passes_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C that comes while a counter is incremented still ends the program."""

    def interrupted(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    registry = HOOKS[name][1](monkeypatch, interrupted) or CollectorRegistry()
    logger = logging.getLogger("session_reuse")
    logger.setLevel(logging.DEBUG)  # an assignment of `level` would leave what is cached of the level before
    try:
        with pytest.raises(KeyboardInterrupt):
            Telemetry(registry).entered("shop", Outcome.REUSED, 0.1)
    finally:
        logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    "wrapper", [structlog.BoundLogger, structlog.stdlib.BoundLogger, structlog.make_filtering_bound_logger(0)]
)
def test_events_reach_every_bound_logger_of_structlog(wrapper: Any) -> None:
    """The generic bound logger has no `log(level, ...)`. The methods of the levels exist in all of them."""
    capture = structlog.testing.LogCapture()
    structlog.configure(wrapper_class=wrapper, processors=[capture], logger_factory=structlog.PrintLoggerFactory())
    try:
        log.warning(Event.LEASE_LOST, fingerprint="shop")
    finally:
        structlog.reset_defaults()
    assert [(entry["event"], entry["fingerprint"]) for entry in capture.entries] == [(Event.LEASE_LOST.value, "shop")]


def test_what_structlog_fails_on_goes_to_the_standard_logger(caplog: pytest.LogCaptureFixture) -> None:
    """A warning is not lost because a processor of the application needs a key."""

    def needs_a_request(_logger: Any, _name: str, event: dict[str, Any]) -> dict[str, Any]:
        return {"request": event["request_id"]}

    structlog.configure(processors=[needs_a_request])
    try:
        log.warning(Event.LEASE_LOST, fingerprint="shop")
    finally:
        structlog.reset_defaults()
    assert "session_reuse.lease_lost fingerprint='shop'" in caplog.text


def test_an_asynchronous_logger_of_structlog_leaves_no_coroutine(caplog: pytest.LogCaptureFixture) -> None:
    """Its methods cannot be awaited here: the event goes to the standard logger."""
    structlog.configure(wrapper_class=structlog.stdlib.AsyncBoundLogger)
    try:
        log.warning(Event.LEASE_LOST, fingerprint="shop")
    finally:
        structlog.reset_defaults()
    assert "session_reuse.lease_lost" in caplog.text


def test_a_report_that_cannot_be_written_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error may be missing or be the application's own."""
    monkeypatch.setattr("sys.stderr", None)
    monkeypatch.setattr(prometheus_client.Counter, "inc", None)
    telemetry = Telemetry(CollectorRegistry(), StoreHealth("a store"))
    telemetry.saved("shop", SaveOutcome.SAVED, 0.1)
    telemetry.degraded(Operation.SAVE, StoreTimeoutError("late"))
    assert telemetry.counts.saved == {SaveOutcome.SAVED: 1}

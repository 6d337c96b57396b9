"""Metrics: registered once whatever happens, right over several managers, and over processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess

from session_reuse import CorruptStateError, Outcome, SessionBusyError, StoreError, blocking, reusable_session
from session_reuse._telemetry import StoreHealth, Telemetry
from session_reuse._telemetry.metrics import BREAKER_STATES, DEGRADED, MISSES, Operation
from session_reuse.outcome import SaveOutcome
from session_reuse.testing import FaultyStore, MemoryStore, memory_manager, state_with_cookie

if TYPE_CHECKING:
    from prometheus_client.registry import Collector


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in its own process."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=140, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


class SlowRegistry(CollectorRegistry):
    """A registry that lets other threads run in the middle of a registration."""

    def register(self, collector: Collector) -> None:
        """Register, and give the processor away."""
        super().register(collector)
        time.sleep(0.001)  # without it, the threads meet in one run of four


def test_threads_that_make_their_first_manager_together_register_once() -> None:
    """`asyncio.run` in a thread pool: each thread has its own manager, all at the same moment."""
    registry, start = SlowRegistry(), threading.Barrier(4)

    async def visit() -> Outcome:
        async with memory_manager(registry=registry) as manager, reusable_session("shop", manager=manager) as session:
            session.discard()
        return session.outcome

    def work() -> Outcome:
        start.wait(60)
        return asyncio.run(visit())

    with ThreadPoolExecutor(4) as threads:
        outcomes = [each.result() for each in [threads.submit(work) for _ in range(4)]]
    assert outcomes == [Outcome.MISSING] * 4
    assert registry.get_sample_value("session_miss_total", {"reason": "missing"}) == 4


RELOAD = """
import asyncio, sys
def visit():
    from session_reuse import reusable_session
    from session_reuse.testing import memory_manager
    async def agent():
        async with memory_manager(registry="default") as manager:
            async with reusable_session("shop", manager=manager) as session: pass
    asyncio.run(agent())
visit()
for name in [name for name in sys.modules if name.startswith("session_reuse")]: del sys.modules[name]
visit()
from prometheus_client import REGISTRY
print(REGISTRY.get_sample_value("session_miss_total", {"reason": "missing"}))
"""


def test_a_reload_of_the_package_finds_its_metrics() -> None:
    """Development servers and notebooks import the package again. The registry lives on."""
    finished = run(RELOAD)
    assert (finished.stdout.strip(), finished.stderr) == ("2.0", "")


@pytest.mark.parametrize("taken", ["session_reused", "session_saved", "session_pending_saves", "session_breaker_state"])
async def test_a_taken_name_turns_only_that_metric_off(taken: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An application may have a counter of our name: it keeps it, ours is off, and one line says so."""
    registry = CollectorRegistry()
    theirs = (Gauge if taken == "session_pending_saves" else Counter)(taken, "Theirs.", registry=registry)
    async with memory_manager(registry=registry) as manager, reusable_session("shop", manager=manager) as session:
        session.data["n"] = 1
    theirs.inc(41)
    assert registry.get_sample_value("session_miss_total", {"reason": "missing"}) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert taken in line
    async with memory_manager(registry=registry) as manager, reusable_session("shop", manager=manager):
        pass
    assert capsys.readouterr().err == ""


ONCE = """
import asyncio
from session_reuse import reusable_session
from session_reuse.testing import memory_manager
async def agent():
    async with memory_manager(registry="default") as manager:
        async with reusable_session("shop", manager=manager) as session: session.data["n"] = 1
    print(session.outcome, session.save_outcome)
asyncio.run(agent())
"""


@pytest.mark.parametrize("prepared", [True, False], ids=["empty folder", "no folder"])
def test_multiprocess_mode_works_or_is_off(tmp_path: Path, prepared: bool) -> None:
    """`PROMETHEUS_MULTIPROC_DIR` may name a folder that no one has made: the agent works without metrics."""
    folder = tmp_path / "metrics"
    if prepared:
        folder.mkdir()
    finished = run(ONCE, PROMETHEUS_MULTIPROC_DIR=str(folder))
    assert finished.stdout.strip() == "missing saved", finished.stderr
    lines = finished.stderr.splitlines()
    assert [line.count("No such file or directory") for line in lines] == ([] if prepared else [1])


WORKER = """
import asyncio, os
from session_reuse import SessionManager, reusable_session
async def main():
    manager = SessionManager("redis://127.0.0.1:1/0", close_timeout=0.05, save_timeout=0.1)
    for number in range(8):
        async with reusable_session(f"shop/{number}", "agent", manager=manager) as session:
            session.data["n"] = 1
    print(os.getpid(), manager.stats().pending, flush=True)
    EXIT
asyncio.run(main())
"""


def test_gauges_of_killed_workers_do_not_stay(tmp_path: Path) -> None:
    """A worker killed for its memory must not keep two alerts firing. Living workers add up."""
    killed = run(WORKER.replace("EXIT", "os._exit(1)"), PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    process, pending = killed.stdout.split()
    assert pending == "8", killed.stderr
    assert samples(tmp_path)["session_pending_saves"] == 8
    multiprocess.mark_process_dead(int(process), str(tmp_path))
    left = samples(tmp_path)
    assert not [name for name in left if name.startswith(("session_pending_saves", "session_breaker_state"))]
    assert left['session_saved_total{outcome="pending"}'] == 8


def samples(folder: Path) -> dict[str, float]:
    """Return what a scrape shows, summed over the processes that have written to a folder."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(folder))
    lines = generate_latest(registry).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


async def test_gauges_are_sums_over_managers_and_end_with_them() -> None:
    """Three jobs with a manager each: the first, whose store was away, leaves nothing behind that fires an alert."""
    registry = CollectorRegistry()
    away = FaultyStore(MemoryStore(), fail="unavailable")

    def pending() -> float | None:
        return registry.get_sample_value("session_pending_saves")

    def breakers(state: str) -> float | None:
        return registry.get_sample_value("session_breaker_state", {"breaker": "read", "state": state})

    async with memory_manager(away, registry=registry, close_timeout=0.05) as first:
        for number in range(6):
            async with reusable_session(f"shop/{number}", manager=first) as session:
                session.data["n"] = 1
        assert (pending(), breakers("open"), breakers("closed")) == (6, 1, 0)
        async with memory_manager(registry=registry) as second:
            async with reusable_session("shop", manager=second):
                pass
            assert (pending(), breakers("open"), breakers("closed")) == (6, 1, 1)
    assert (pending(), breakers("open"), breakers("closed")) == (0, 0, 0)
    async with memory_manager(registry=registry) as third, reusable_session("shop", manager=third):
        pass
    assert (pending(), breakers("open")) == (0, 0)


def test_gauges_of_a_dropped_manager_end_at_the_next_change() -> None:
    """A manager that no one closed is not counted forever."""
    registry = CollectorRegistry()
    dropped, kept = Telemetry(registry), Telemetry(registry)
    dropped.pending(5)
    kept.pending(2)
    dropped.reconcile_lag(70.0)
    kept.reconcile_lag(3.0)
    assert registry.get_sample_value("session_pending_saves") == 7
    assert registry.get_sample_value("session_reconcile_lag_seconds") == 70.0
    del dropped
    kept.pending(1)
    assert registry.get_sample_value("session_pending_saves") == 1
    assert registry.get_sample_value("session_reconcile_lag_seconds") == 3.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_counts_its_own_managers_only() -> None:
    """A prefork server: what waits in the parent does not wait in each child."""
    code = (
        "import os\nfrom prometheus_client import REGISTRY\nfrom session_reuse._telemetry import Telemetry\n"
        "parent = Telemetry('default'); parent.pending(5)\n"
        "if os.fork() == 0:\n"
        "    child = Telemetry('default'); child.pending(1)\n"
        "    print(REGISTRY.get_sample_value('session_pending_saves'), flush=True); os._exit(0)\n"
        "os.wait()\nprint(REGISTRY.get_sample_value('session_pending_saves'))\n"
    )
    finished = run(code)
    assert finished.stdout.split() == ["1.0", "5.0"], finished.stderr


def test_closed_label_sets_exist_from_the_start() -> None:
    """`rate()` does not see a step from nothing to 1: one refused start of a short-lived process has to count."""
    registry = CollectorRegistry()
    Telemetry(registry)
    for operation in Operation:
        for reason in DEGRADED:
            labels = {"op": operation.value, "reason": reason.value}
            assert registry.get_sample_value("session_degraded_total", labels) == 0
    for reason in MISSES:
        assert registry.get_sample_value("session_miss_total", {"reason": reason.value}) == 0
    for outcome in SaveOutcome:
        assert registry.get_sample_value("session_saved_total", {"outcome": outcome.value}) == 0
    for state in BREAKER_STATES:
        assert registry.get_sample_value("session_breaker_state", {"breaker": "write", "state": state}) is not None


def test_a_reuse_of_the_own_copy_is_counted_as_such() -> None:
    """Agents that are reused while the store is away look well: its own counter shows the outage."""
    registry = CollectorRegistry()
    telemetry = Telemetry(registry, StoreHealth("a store"))
    telemetry.entered("shop", Outcome.REUSED, 0.1, stale=True)
    telemetry.entered("shop", Outcome.REUSED, 0.1)
    assert registry.get_sample_value("session_reused_total") == 2
    assert registry.get_sample_value("session_reused_stale_total") == 1


def test_an_enter_in_a_busy_loop_takes_no_negative_time() -> None:
    """The clock of the budgets leaves out what a busy loop took, and a sum that falls looks like a restart."""
    registry = CollectorRegistry()
    Telemetry(registry, StoreHealth("a store")).entered("shop", Outcome.REUSED, -0.004)
    assert registry.get_sample_value("session_restore_seconds_sum") == 0.0


def entered(registry: CollectorRegistry, reason: str) -> tuple[float | None, float | None]:
    """Return how many enters were reuses, and how many were misses for a reason."""
    misses = registry.get_sample_value("session_miss_total", {"reason": reason})
    return registry.get_sample_value("session_reused_total"), misses


def test_a_login_that_a_blocking_agent_rejects_is_no_reuse() -> None:
    """Its `verify` runs after the enter, in its own thread. The enter counts once, as what the agent gets."""
    registry = CollectorRegistry()
    with blocking.SessionManager(MemoryStore(), registry=registry) as manager:
        with blocking.reusable_session("shop", manager=manager) as session:
            session.storage_state = state_with_cookie()
        for answer in (False, True):
            with blocking.reusable_session("shop", manager=manager, verify=lambda _, answer=answer: answer) as session:
                assert session.reused is answer
        assert entered(registry, "unverified") == (1, 1)
        assert manager.stats().entered == {"missing": 1, "unverified": 1, "reused": 1}
        manager.pool("shop").add("alice")
        with blocking.reusable_session(pool="shop", manager=manager, verify=bool) as session:
            pass
        assert manager.stats().entered == {"missing": 2, "unverified": 1, "reused": 1}


async def test_the_time_of_an_enter_is_that_of_the_store() -> None:
    """A `verify` that opens a page for seconds does not make the store slow."""
    registry, at_page = CollectorRegistry(), []

    def counted() -> float:
        return registry.get_sample_value("session_restore_seconds_sum") or 0.0

    async def verify(_: object) -> bool:
        at_page.append(time.monotonic())
        await asyncio.sleep(0.3)
        at_page.append(time.monotonic())
        return True

    async with memory_manager(MemoryStore(), registry=registry) as manager:
        async with reusable_session("shop", manager=manager) as session:
            session.storage_state = state_with_cookie()
        before, began = counted(), time.monotonic()
        async with reusable_session("shop", manager=manager, verify=verify) as session:
            took = time.monotonic() - began
            assert session.reused
        at_most = took - (at_page[1] - at_page[0]) + 0.1  # the clock of budgets may be some milliseconds off
        assert counted() - before <= at_most


async def test_a_pool_without_a_free_member_is_one_miss() -> None:
    """With either kind of `on_busy`."""
    registry = CollectorRegistry()
    async with memory_manager(MemoryStore(), registry=registry) as manager:
        await manager.pool("shop").add("alice")
        async with reusable_session(pool="shop", manager=manager):
            async with reusable_session(pool="shop", manager=manager):
                pass
            with pytest.raises(SessionBusyError):
                async with reusable_session(pool="shop", manager=manager, on_busy="raise"):
                    pass
        assert entered(registry, "busy") == (0, 2)
        assert manager.stats().entered == {"missing": 1, "busy": 2}


@pytest.mark.parametrize("options", [{}, {"strict": True}], ids=["fresh", "strict"])
@pytest.mark.parametrize("name", [{"fingerprint": "shop"}, {"pool": "shop"}], ids=["session", "pool"])
async def test_an_enter_without_a_store_counts_once(name: dict[str, str], options: dict[str, bool]) -> None:
    """As trouble of the store, also where the agent gets an exception for it."""
    registry, store = CollectorRegistry(), FaultyStore(MemoryStore(), fail="unavailable")
    async with memory_manager(store, registry=registry) as manager:
        with contextlib.suppress(StoreError):
            async with reusable_session(manager=manager, **name, **options) as session:
                session.discard()
        assert manager.stats().entered == {"unavailable": 1}
    labels = {"op": "restore", "reason": "unavailable"}
    assert registry.get_sample_value("session_degraded_total", labels) == 1


async def test_a_damaged_session_counts_also_for_a_strict_agent() -> None:
    """The alert on damaged sessions sees it."""
    registry, memory = CollectorRegistry(), MemoryStore()
    memory.put("shop", b"damaged")
    async with memory_manager(memory, registry=registry) as manager:
        with pytest.raises(CorruptStateError):
            async with reusable_session("shop", manager=manager, strict=True):
                pass
    assert entered(registry, "corrupt") == (0, 1)

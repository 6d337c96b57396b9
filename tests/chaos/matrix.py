"""Run every fault of the matrix in every phase, and check what the agent sees.

`python -m tests.chaos.matrix` prints the table and ends with an error when a cell fails. Words after it choose rows.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from session_reuse import BrowserSession, Outcome, SaveOutcome, reusable_session
from tests.chaos.faults import BODY, COLD, ENTER, EXIT, PHASES, ROWS, WARM, Cell, Row
from tests.chaos.testbed import MINE, Testbed, resolver_without_network
from tests.harness.lag import Lag
from tests.harness.probes import idle, in_use, parts_of, pool_of

SIDE_BY_SIDE = 4
ENTER_LIMIT = 0.55
EXIT_LIMIT = 2.05
APART = 0.05
"""Seconds between what is stored and the visit. Of two saves within a round trip, the stored one counts as the later."""
STALL = 0.05
"""Seconds of stalls after which a cell that failed is tried again."""
MOST_TRIES = 3


@dataclass
class Visit:
    """What one agent saw."""

    outcome: Outcome | None = None
    save_outcome: SaveOutcome | None = None
    found: Any = None
    owner: Any = None
    bodies: int = 0
    enter: float = 0.0
    exit: float = 0.0
    error: BaseException | None = None


@dataclass
class Result:
    """What a cell did: the words of its outcomes, and what was wrong."""

    row: str
    phase: str
    shown: str = ""
    wrong: list[str] = field(default_factory=list)
    skipped: str = ""
    tries: int = 1

    @property
    def mark(self) -> str:
        """One sign for the table."""
        return "-" if self.skipped else "✗" if self.wrong else "✓"

    def expect(self, truth: object, what: str) -> None:
        """Note a difference."""
        if not truth:
            self.wrong.append(what)


async def run_cell(row: Row, phase: str, lag: Lag) -> Result:
    """Try one fault in one phase, and again when it failed while the machine stalled."""
    for tries in range(1, MOST_TRIES + 1):
        began = time.monotonic()
        result = await _run_cell(row, phase, lag)
        result.tries = tries
        if not result.wrong or lag.since(began) < STALL:
            break
    return result


async def _run_cell(row: Row, phase: str, lag: Lag) -> Result:
    cell = row.cells[phase]
    result = Result(row.name, phase)
    if isinstance(cell, str):
        result.skipped = cell
        return result
    try:
        async with asyncio.timeout(30), Testbed(**row.testbed) as testbed:
            await _tried(testbed, row, phase, cell, result, lag)
        result.expect(not _our_tasks(testbed), "a task was left behind")
    except Exception as error:  # noqa: BLE001  (a cell that falls over is a cell that failed)
        result.wrong.append(f"{type(error).__name__}: {error}"[:200])
    return result


async def _tried(testbed: Testbed, row: Row, phase: str, cell: Cell, result: Result, lag: Lag) -> None:
    await parts_of(testbed.manager)
    await asyncio.sleep(APART)
    if phase == WARM:
        await testbed.warm_up()
    if phase in {COLD, WARM}:
        await row.inject(testbed)
    began = time.monotonic()
    visit = await _visited(testbed, row, phase)
    stalled = lag.since(began)
    visit.enter, visit.exit = visit.enter - stalled, visit.exit - stalled
    result.shown = f"{visit.outcome or 'cancelled'}/{visit.save_outcome or '-'}"
    _check_visit(visit, cell, result)
    if row.breakers_closed:
        states = dict(testbed.manager.stats().breakers)
        closed = ["read"] if row.breakers_closed == "read" else ["read", "write"]
        result.expect(all(states[name] == "closed" for name in closed), f"a breaker has moved: {states}")
    await row.heal(testbed)
    await testbed.flushed()
    await _check_what_is_stored(testbed, visit, cell, result)
    await _check_counters(testbed, result)


async def _visited(testbed: Testbed, row: Row, phase: str) -> Visit:
    visit = Visit()
    testbed.visiting = asyncio.create_task(_visit(testbed, row, phase, visit))
    await asyncio.wait({testbed.visiting})
    visit.error = asyncio.CancelledError() if testbed.visiting.cancelled() else testbed.visiting.exception()
    leaving = [task for task in testbed.services.tasks if task.get_name() == "session_reuse:leave"]
    if leaving:  # the caller was cancelled out of the exit: the save goes on without it
        await asyncio.wait(leaving)
        visit.save_outcome = SaveOutcome(next(iter(testbed.services.telemetry.counts.saved)))
    return visit


async def _visit(testbed: Testbed, row: Row, phase: str, visit: Visit) -> None:
    if phase == ENTER:
        testbed.when(set(), lambda: row.inject(testbed))
    began = time.monotonic()
    session: BrowserSession | None = None
    try:
        async with reusable_session(MINE, "agent", manager=testbed.manager) as session:
            visit.enter = time.monotonic() - began
            visit.bodies += 1
            visit.outcome = session.outcome
            visit.found, visit.owner = session.data.get("n"), session.data.get("owner")
            session.data.update(n=2, owner=MINE)
            if phase == BODY:
                await row.inject(testbed)
                await asyncio.sleep(0)
            elif phase == EXIT:
                testbed.when({"SET", "EVAL", "EVALSHA"}, lambda: row.inject(testbed))
            began = time.monotonic()
    finally:
        visit.exit = time.monotonic() - began
        visit.save_outcome = session.save_outcome if session is not None else None


def _check_visit(visit: Visit, cell: Cell, result: Result) -> None:
    result.expect(visit.enter <= ENTER_LIMIT, f"enter took {visit.enter:.3f} s")
    result.expect(visit.exit <= EXIT_LIMIT, f"exit took {visit.exit:.3f} s")
    if cell.cancelled:
        result.expect(isinstance(visit.error, asyncio.CancelledError), f"came out: {visit.error!r}")
        if not visit.bodies:
            return
    else:
        result.expect(visit.error is None, f"an exception came out: {visit.error!r}")
        result.expect(visit.bodies == 1, f"the body ran {visit.bodies} times")
    result.expect(visit.outcome in cell.enter, f"entered {visit.outcome}, not {'/'.join(sorted(cell.enter))}")
    result.expect(visit.save_outcome in cell.save, f"save {visit.save_outcome}, not {'/'.join(sorted(cell.save))}")
    if visit.outcome is Outcome.REUSED:
        result.expect((visit.found, visit.owner) == (1, MINE), f"found {visit.found} of {visit.owner}")
    else:
        result.expect(visit.found is None, "a fresh session was not empty")


async def _check_what_is_stored(testbed: Testbed, visit: Visit, cell: Cell, result: Result) -> None:
    """The save has arrived, or a good state has stayed, and nothing that is still under way undoes a newer save."""
    entered = visit.bodies > 0  # an agent that never saw the stored session has its notes merged into it
    async with testbed.direct() as manager:
        found = await manager.restore(MINE)
        stored = found.data.get("n") if found else None
        result.expect(stored == (2 if entered else 1), f"stored afterwards: {stored}")
        if found is None:
            return
        result.expect(found.data.get("owner") == MINE, "another's data is stored")
        found.data["n"] = 3
        await manager.save(found)
        if not testbed.embedded:
            await testbed.proxy.heal()
        await testbed.admin("PING") if not testbed.embedded else None
        again = await manager.restore(MINE)
        result.expect(again is not None and again.data["n"] == 3, "a newer save was undone")


async def _check_counters(testbed: Testbed, result: Result) -> None:
    await testbed.manager.aclose()
    if not testbed.pool:
        pool = pool_of(testbed.manager)
        result.expect(not in_use(pool), "a connection was left in use")
        result.expect(not any(each.is_connected for each in idle(pool)), "a connection was left open")
    stats, registry = testbed.manager.stats(), testbed.registry
    entered, saved = sum(stats.entered.values()), sum(stats.saved.values())
    result.expect(stats.lost == 0, f"{stats.lost} saves lost")
    result.expect(stats.pending == 0, "saves were left waiting")
    result.expect(registry.get_sample_value("session_restore_seconds_count") == entered, "enters do not add up")
    result.expect(registry.get_sample_value("session_save_seconds_count") == saved, "saves do not add up")
    result.expect(registry.get_sample_value("session_pending_flushed_total") == stats.flushed, "flushes do not add up")
    waited = stats.saved.get("pending", 0) + stats.saved.get("spooled", 0)
    result.expect(stats.flushed <= max(waited, 1), f"{waited} waited, {stats.flushed} were flushed")


def _our_tasks(testbed: Testbed) -> list[str]:
    return [task.get_name() for task in testbed.services.tasks if not task.done()]


async def run(rows: Sequence[Row] = ROWS) -> list[Result]:
    """Try all cells, side by side where they are independent."""
    gate, lag = asyncio.Semaphore(SIDE_BY_SIDE), Lag()

    async def gated(row: Row, phase: str) -> Result:
        async with gate:
            return await run_cell(row, phase, lag)

    restore = resolver_without_network()
    try:
        together = [gated(row, phase) for row in rows if not row.alone for phase in PHASES]
        async with lag.watched():
            results = list(await asyncio.gather(*together))
            for row in rows:
                if row.alone:
                    results += [await run_cell(row, phase, lag) for phase in PHASES]
    finally:
        restore()
    return results


def table(results: Sequence[Result]) -> str:
    """Return the results as a table, what failed, what was skipped and why, and the sums."""
    cells = {(result.row, result.phase): result for result in results}
    names = list(dict.fromkeys(result.row for result in results))
    lines = ["fault".ljust(29) + "".join(phase.ljust(24) for phase in PHASES)]
    for name in names:
        shown = [f"{cells[name, phase].mark} {cells[name, phase].shown}".ljust(24) for phase in PHASES]
        lines.append(name.ljust(29) + "".join(shown).rstrip())
    lines += [f"✗ {each.row}, {each.phase}: {'; '.join(each.wrong)}" for each in results if each.wrong]
    lines += [f"- {each.row}, {each.phase}: {each.skipped}" for each in results if each.skipped]
    skipped, failed = (sum(1 for each in results if getattr(each, name)) for name in ("skipped", "wrong"))
    tried = len(results) - skipped
    again = sum(1 for each in results if each.tries > 1)
    lines.append(
        f"{tried} cells tried, {tried - failed} passed, {failed} failed, {skipped} with nothing to try; "
        f"{again} tried again because the machine stalled"
    )
    return "\n".join(lines)


def main() -> int:
    """Run the rows whose names hold one of the arguments' words, or all."""
    words = sys.argv[1:]
    rows = [row for row in ROWS if not words or any(word in row.name for word in words)]
    began = time.monotonic()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # the proxies' cut connections speak up there
    results = asyncio.run(run(rows))
    print(table(results))  # noqa: T201  (a command)
    print(f"{time.monotonic() - began:.1f} s")  # noqa: T201
    return 1 if any(result.wrong for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())

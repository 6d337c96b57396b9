"""Any order of saves, restores and faults, against a model: never an older state, never another's."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from session_reuse import Outcome, SaveOutcome, SessionManager, reusable_session
from tests.chaos.testbed import MINE, OTHER, Testbed
from tests.harness.fault_proxy import Cut, Fault
from tests.harness.probes import breakers_of, parts_of, runtime, was_used

NAMES = (MINE, OTHER)
CONFIRMED = {SaveOutcome.SAVED, SaveOutcome.MERGED}
BUDGETS = {
    "restore_timeout": 0.2,
    "save_timeout": 0.25,
    "attempt_timeout": 0.08,
    "close_timeout": 0.2,
    "lease_ttl": 1.0,
}
names = st.sampled_from(NAMES)


class Reuse(RuleBasedStateMachine):
    """Two processes that share a store: one behind a proxy, one beside it.

    The model knows for each session the newest save that was confirmed, and the newer ones that were not: a restore must
    show one of these, or start fresh because the store is away. A process that cannot reach the store may also start from
    what waits in it, whatever others have saved meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.testbed = Testbed(appendonly=True, config=BUDGETS)
        self.run(self.testbed.__aenter__())
        self.run(parts_of(self.testbed.manager))
        self.beside = SessionManager(self.testbed.server.url, registry=None, **BUDGETS)
        self.numbers = itertools.count(2)
        self.confirmed = dict.fromkeys(NAMES, 1)
        self.newer: dict[str, set[int]] = {name: set() for name in NAMES}
        self.unconfirmed: dict[str, set[int]] = {name: set() for name in NAMES}
        self.mine: dict[tuple[SessionManager, str], int] = {}
        self.evicted = dict.fromkeys(NAMES, 0)
        self.absent: set[str] = set()
        self.bad = dict.fromkeys(NAMES, 0)
        self.paused = False

    def run(self, work: Any) -> Any:
        """Run something on the machine's event loop."""
        return self.runner.run(work)

    @property
    def up(self) -> bool:
        """Whether the server answers who comes to it directly."""
        return self.testbed.server.running and not self.paused

    # Agents

    @rule(name=names)
    def save(self, name: str) -> None:
        """Visit a session through the proxy."""
        self.run(self.visit(self.testbed.manager, name))

    @precondition(lambda self: self.up)
    @rule(name=names)
    def save_beside(self, name: str) -> None:
        """Visit a session from the other process."""
        self.run(self.visit(self.beside, name))

    @rule(name=names)
    def restore(self, name: str) -> None:
        """Look at a session through the proxy."""
        self.run(self.look(self.testbed.manager, name))

    @rule(name=names)
    def cancel(self, name: str) -> None:
        """Cancel a visit while it saves."""
        self.run(self.visit(self.testbed.manager, name, cancelled=True))

    @rule(name=names)
    def exclusive(self, name: str) -> None:
        """Visit a session with its lease, which may be taken: a release that was lost leaves it until it ends."""
        self.run(self.visit(self.testbed.manager, name, exclusive=True))

    @rule(name=names)
    def overlap(self, name: str) -> None:
        """Have two agents of one process in a session at once."""
        self.run(self.both(name))

    @precondition(lambda self: self.up)
    @rule(name=names)
    def evict(self, name: str) -> None:
        """Invalidate a session from a third process. What waits in the others is from before."""
        self.run(self.evict_beside(name))

    @rule(name=names, verdict=st.sampled_from(["mark_good", "mark_bad"]))
    def mark(self, name: str, verdict: str) -> None:
        """Say how a login did. It retires after some bad marks."""
        self.bad[name] += verdict == "mark_bad"
        self.run(self.look(self.testbed.manager, name, verdict))

    # The testbed

    @precondition(lambda self: self.up)
    @rule()
    def kill(self) -> None:
        """Kill -9."""
        self.testbed.server.kill()

    @precondition(lambda self: not self.testbed.server.running)
    @rule()
    def start(self) -> None:
        """Start with the data."""
        self.testbed.server.start()

    @precondition(lambda self: self.up)
    @rule()
    def stop(self) -> None:
        """SIGSTOP."""
        self.testbed.server.pause()
        self.paused = True

    @precondition(lambda self: self.paused)
    @rule()
    def cont(self) -> None:
        """SIGCONT."""
        self.testbed.server.resume()
        self.paused = False

    @rule(fault=st.sampled_from([Fault.REFUSE, Fault.BLACK_HOLE, Fault.RESET]))
    def cut(self, fault: Fault) -> None:
        """Lose the network."""
        self.run(self.testbed.proxy.switch(fault))

    @rule(after=st.integers(0, 40), how=st.sampled_from(list(Cut)))
    def cut_reply(self, after: int, how: Cut) -> None:
        """Lose the next reply, in the middle."""
        self.testbed.proxy.cut_replies(after, how, times=1)

    @rule()
    def heal(self) -> None:
        """Have the network back."""
        self.run(self.testbed.proxy.heal())

    @rule()
    def advance(self) -> None:
        """Let the time pass after which the breakers let a probe through, and the flusher work."""
        self.run(self.passed())

    async def passed(self) -> None:
        """Skip the rest of the open times."""
        for manager in (self.testbed.manager, self.beside):
            if was_used(manager):
                for breaker in breakers_of(manager):
                    breaker.probe_now()
                runtime(manager).writer.wake()
        await asyncio.sleep(0.02)

    async def both(self, name: str) -> None:
        """Visit twice at once. Which of the two is the later one is open, so the first number is the lower bound."""
        manager, numbers = self.testbed.manager, (next(self.numbers), next(self.numbers))
        self.newer[name].update(numbers)  # the second may find what the first has left
        self.unconfirmed[name].update(numbers)
        outcomes = await asyncio.gather(*(self.agent(manager, name, number) for number in numbers))
        if set(outcomes) <= CONFIRMED:
            self.note_confirmed(manager, name, numbers[0])

    async def evict_beside(self, name: str) -> None:
        """Invalidate, and forget all that was confirmed or waits."""
        async with self.testbed.direct() as manager:
            await manager.evict(name)
        self.evicted[name] = next(self.numbers)
        self.absent.add(name)
        self.newer[name].clear()

    def note_confirmed(self, manager: SessionManager, name: str, number: int) -> None:
        """Note that a save is in the store."""
        self.confirmed[name] = number
        self.absent.discard(name)
        self.mine[manager, name] = number
        self.newer[name] = {newer for newer in self.newer[name] if newer > number}

    async def visit(
        self, manager: SessionManager, name: str, *, cancelled: bool = False, **options: Any
    ) -> None:  # fmt: skip
        """Enter, check what is found, leave something newer, and note what we know of it."""
        number = next(self.numbers)
        task = asyncio.create_task(self.agent(manager, name, number, **options))
        if cancelled:
            for _ in range(number % 7):
                await asyncio.sleep(0)
            task.cancel()
        outcome = await asyncio.gather(task, return_exceptions=True)
        leaving = [task for task in self.testbed.services.tasks if task.get_name() == "session_reuse:leave"]
        await asyncio.gather(*leaving, return_exceptions=True)  # the next visit is to be a later one
        if outcome[0] in CONFIRMED:
            self.note_confirmed(manager, name, number)
        elif isinstance(outcome[0], Exception):
            raise outcome[0]
        else:
            self.newer[name].add(number)
            self.unconfirmed[name].add(number)

    async def agent(self, manager: SessionManager, name: str, number: int, **options: Any) -> SaveOutcome | None:
        """One agent's run. Every third removes a note, if there is one, and the others leave one."""
        async with reusable_session(name, "agent", manager=manager, **options) as session:
            self.check(name, session, manager)
            session.data.update(n=number, owner=name)
            if number % 3:
                session.data["note"] = number
            else:
                session.data.pop("note", None)
        return session.save_outcome

    async def look(self, manager: SessionManager, name: str, verdict: str = "discard") -> None:
        """Enter and leave nothing but a mark."""
        async with reusable_session(name, manager=manager) as session:
            self.check(name, session, manager)
            getattr(session, verdict if session.reused else "discard")()

    def check(self, name: str, session: Any, manager: SessionManager | None = None) -> None:
        """The promise."""
        if not session.reused:
            known = session.outcome in self.expected(name)
            assert known or session.degraded, f"{session.outcome}, and {self.confirmed[name]} is stored"
            assert not session.data
            return
        if not session.data:  # a visit to the evicted session that was cancelled before its agent did anything
            assert self.evicted[name], "an empty session, and it was never evicted"
            return
        found = session.data["n"]
        assert session.data["owner"] == name, "another's state"
        if session.stale:  # out of reach, a process can only know what it has seen itself
            known = self.mine.get((manager, name), 1) if manager is not None else 1
            assert found >= known or found in self.unconfirmed[name], f"found {found}, and {known} was confirmed here"
            return
        assert found > self.evicted[name], f"found {found}, which was invalidated"
        assert found >= self.confirmed[name], f"found {found}, older than {self.confirmed[name]}"
        assert found == self.confirmed[name] or found in self.newer[name], f"found {found}, which nobody saved"

    def expected(self, name: str) -> set[Outcome]:
        """Return how an agent may be met that is given nothing, though the store has answered."""
        found = {Outcome.BUSY}
        if name in self.absent:
            found.add(Outcome.MISSING)
        if self.bad[name] >= self.testbed.manager.config.retire_after_bad:
            found.add(Outcome.RETIRED)
        return found

    def teardown(self) -> None:
        """All is well again: what waits arrives, and what was confirmed is there."""
        try:
            self.run(self.ended())
        finally:
            self.run(self.testbed.__aexit__())
            self.runner.close()

    async def ended(self) -> None:
        """Heal everything and look from beside."""
        if self.paused:
            self.testbed.server.resume()
        await asyncio.to_thread(self.testbed.server.start)
        await self.testbed.proxy.heal()
        await self.passed()
        await self.testbed.flushed()
        async with self.testbed.direct() as manager:
            for name in NAMES:
                session = await manager.restore(name)
                if session is not None:
                    self.check(name, session)
                else:
                    assert Outcome.MISSING in self.expected(name) or Outcome.RETIRED in self.expected(name)
        await self.beside.aclose()


@pytest.mark.timeout(600)
@pytest.mark.alone("budgets of 0.2 s")
def test_no_order_of_faults_brings_an_old_state_back() -> None:
    """Whatever happens in whatever order: the newest confirmed save, an unconfirmed newer one, or fresh."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    run_state_machine_as_test(
        Reuse,
        settings=settings(
            max_examples=int(os.environ.get("CHAOS_EXAMPLES", "15")),
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )

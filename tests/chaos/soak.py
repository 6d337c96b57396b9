"""Agents under a random schedule of faults, and a checker over their history. The same seed makes the same schedule.

`python -m tests.chaos.soak --minutes 10 --seed 7 --agents 20` prints the seed and a summary, and fails when a save was lost,
a state was wrong, too little was reused outside of faults, or something was leaked.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from session_reuse import BrowserSession, SessionManager, reusable_session
from tests.chaos.history import History
from tests.chaos.nemesis import FAULTS
from tests.chaos.testbed import PATIENT
from tests.harness.fault_proxy import FaultProxy
from tests.harness.polling import until
from tests.harness.probes import parts_of
from tests.harness.servers import HOST, RedisServer

SESSIONS: Final = 12
PROCESSES: Final = 2
AFTERMATH: Final = 3.0
"""Seconds after a fault in which breakers may still be open: their longest span after an outage of two seconds."""
REUSE: Final = 0.8
GROWTH: Final = 30 * 2**20


@dataclass
class Soak:
    """One run.

    Attributes:
        seed: of the schedule and of the agents.
        seconds: how long agents start visits.
        agents: how many at a time.
        faults: seconds between faults, at least and at most.
        refused: logins that another login kept out, by session.
        unseen: visits that had not seen the stored login, by session.
    """

    seed: int
    seconds: float
    agents: int = 20
    faults: tuple[float, float] = (4.0, 8.0)
    history: History = field(default_factory=History)
    managers: list[SessionManager] = field(default_factory=list)
    proxies: list[FaultProxy] = field(default_factory=list)
    struck: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    calm_since: float = 0.0
    in_fault: bool = False
    striking: asyncio.Future[None] | None = None
    lost: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    unseen: Counter[str] = field(default_factory=Counter)

    async def run(self) -> History:
        """Run agents and faults, heal, and check."""
        descriptors = _descriptors()
        with RedisServer(appendonly=True) as self.server:
            for _ in range(PROCESSES):
                proxy = await FaultProxy((HOST, self.server.port)).__aenter__()
                self.proxies.append(proxy)
                self.managers.append(SessionManager(proxy.url, registry=None, on_lost=self._lost))
            await self._work()
            await self._settled()
            for manager in self.managers:
                await manager.aclose()
            self._check_refusals()
            for proxy in self.proxies:
                await proxy.__aexit__()
            await self._check_the_end()
        await self._check_leaks(descriptors)
        return self.history

    async def _work(self) -> None:
        self.ends = time.monotonic() + self.seconds
        agents = [asyncio.create_task(self._agent(number)) for number in range(self.agents)]
        nemesis = asyncio.create_task(self._nemesis())
        memory = asyncio.create_task(self._watch_memory())
        await asyncio.gather(*agents)
        nemesis.cancel()
        await asyncio.gather(nemesis, memory, *([self.striking] if self.striking else []), return_exceptions=True)
        if memory.exception() is not None:
            self.leaks.append(str(memory.exception()))

    def _lost(self, fingerprint: str, why: str) -> None:
        """Count a login that another one kept out apart: `_check_refusals` compares it with what could be refused."""
        if "another login is stored" in why:
            self.refused[fingerprint] += 1
        else:
            self.lost.append(f"{fingerprint}: {why}")

    def _check_refusals(self) -> None:
        """Two processes that log in while the store is away: one login is stored, the other is refused (a promise).

        So only saves of agents that found no stored login, or worked on one that waited, may be refused.
        """
        for name, count in self.refused.items():
            if count > self.unseen[name]:
                self.lost.append(
                    f"{name}: {count} logins were refused, and {self.unseen[name]} had not seen the stored one"
                )

    @property
    def quiet(self) -> bool:
        """Whether no fault is on and the last one's aftermath is over."""
        return not self.in_fault and time.monotonic() - self.calm_since > AFTERMATH

    # Agents ----------------------------------------------------------------------------------------------------------

    async def _agent(self, number: int) -> None:
        chance, agent = random.Random(f"{self.seed}-{number}"), f"agent-{number}"
        manager = self.managers[number % PROCESSES]
        while time.monotonic() < self.ends:
            name = f"shop.example/{min(chance.randrange(SESSIONS), chance.randrange(SESSIONS))}"
            try:
                await self._visit(chance, manager, name, agent)
            except Exception as error:  # noqa: BLE001  (nothing may come out)
                self.history.wrong.append(f"{agent} met {type(error).__name__}: {error}")
            await asyncio.sleep(chance.uniform(0.0, 0.1))

    async def _visit(self, chance: random.Random, manager: SessionManager, name: str, agent: str) -> None:
        quiet, known, began = self.quiet, name in self.history.known, time.monotonic()
        ledger = self.history.ledger(name, agent)
        async with reusable_session(name, agent, manager=manager) as session:
            self._entered(session, name, agent, time.monotonic() - began, quiet=quiet and self.quiet, known=known)
            await asyncio.sleep(chance.uniform(0.0, 0.2))
            ledger.written += 1
            number = ledger.written
            if session.degraded:  # it never saw the stored login: its notes are merged in, its cookies are not
                session.data.update({"owner": name, f"away:{agent}": number})
                return
            session.data.update({"owner": name, agent: number})
            cookie = {"name": agent, "value": str(number), "domain": "shop.example", "path": "/"}
            others = [each for each in session.storage_state["cookies"] if each["name"] != agent]
            session.storage_state = {"cookies": [*others, cookie], "origins": []}
            began = time.monotonic()
        if session.stale or not session.reused:
            self.unseen[name] += 1
        self.history.left(name, agent, session.save_outcome, number, time.monotonic() - began)

    def _entered(
        self, session: BrowserSession, name: str, agent: str, took: float, *, quiet: bool, known: bool
    ) -> None:  # fmt: skip
        waiting = session.stale
        self.history.entered(
            name, agent, session.outcome, session.data, took, quiet=quiet, known=known, waiting=waiting
        )
        for cookie in session.storage_state["cookies"]:
            if str(session.data.get(cookie["name"])) != cookie["value"]:
                self.history.wrong.append(f"{name}: half a state, cookie {cookie['name']}")

    # Faults ----------------------------------------------------------------------------------------------------------

    async def _nemesis(self) -> None:
        chance = random.Random(self.seed)
        while True:
            await asyncio.sleep(chance.uniform(*self.faults))
            fault = chance.choice(FAULTS)
            lasts, proxies = chance.uniform(0.2, 2.0), chance.choice([self.proxies, self.proxies[:1], self.proxies[1:]])
            self.struck.append(fault.__name__)
            self.in_fault = True
            try:
                self.striking = asyncio.ensure_future(fault(self, proxies, lasts))
                await asyncio.shield(self.striking)
            finally:
                self.in_fault, self.calm_since = False, time.monotonic()

    # The end ---------------------------------------------------------------------------------------------------------

    async def _settled(self) -> None:
        """Heal everything and wait until what waits has arrived."""
        await asyncio.sleep(0)
        self.server.resume()
        await asyncio.to_thread(self.server.start)
        for proxy in self.proxies:
            await proxy.heal()
        for manager in self.managers:
            services = await parts_of(manager)
            services.guarded.at().write.probe_now()
            services.writer.wake()
            await until(
                lambda manager=manager: not manager.stats().pending, timeout=60.0, message="what waited arrived"
            )
            await until(lambda services=services: not services.tasks, message="our tasks ended")

    async def _check_the_end(self) -> None:
        async with SessionManager(self.server.url, registry=None, **PATIENT) as manager:
            for name in self.history.known:
                session = await manager.restore(name)
                if session is None or session.data.get("owner") != name:
                    self.history.wrong.append(f"{name} is not there at the end")
                    continue
                for of, agent in self.history.ledgers:
                    if of == name:
                        self.history.check(name, agent, session.data)

    async def _watch_memory(self) -> None:
        """Compare the memory at the end with that after a third of the run."""
        await asyncio.sleep(self.seconds / 3)
        gc.collect()
        before = _resident()
        await asyncio.sleep(max(0.0, self.ends - time.monotonic()))
        gc.collect()
        self.growth = _resident() - before
        if self.growth > GROWTH:
            raise AssertionError(f"memory grew by {self.growth / 2**20:.1f} MiB")

    async def _check_leaks(self, descriptors: int) -> None:
        gc.collect()
        await asyncio.sleep(0)
        tasks = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if tasks:
            self.leaks.append(f"tasks left: {sorted(tasks)[:5]}")
        try:
            await until(lambda: _descriptors() <= descriptors)
        except AssertionError:
            self.leaks.append(f"{_descriptors() - descriptors} files left open")

    @property
    def failed(self) -> bool:
        """Whether something was wrong, lost or leaked."""
        return bool(self.history.wrong or self.leaks or self.lost or self.history.reuse_rate < REUSE)

    def __str__(self) -> str:
        history, stats = self.history, [manager.stats() for manager in self.managers]
        return "\n".join(
            [
                f"seed {self.seed}, {self.seconds:.0f} s, {self.agents} agents, {SESSIONS} sessions, {PROCESSES} managers",
                f"faults: {len(self.struck)} ({', '.join(f'{n} {self.struck.count(n)}' for n in sorted(set(self.struck)))})",
                f"enters: {dict(history.enters)}; slowest {history.slowest_enter:.3f} s",
                f"saves: {dict(history.saves)}; slowest {history.slowest_exit:.3f} s",
                f"reused while waiting for the store: {history.from_waiting}; flushed later: {sum(each.flushed for each in stats)}, lost: {sum(each.lost for each in stats)}",
                f"reuse outside of faults: {history.reuse_rate:.4f} of {history.quiet.total()} {dict(history.quiet)}",
                f"memory grew by {getattr(self, 'growth', 0) / 2**20:.1f} MiB; leaks: {self.leaks or 'none'}",
                f"lost, other than to a login that another process stored: {self.lost or 'nothing'}",
                f"wrong: {len(history.wrong)}",
                *history.wrong[:10],
            ]
        )


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def _resident() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--agents", type=int, default=20)
    options = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # the proxies' cut connections speak up there
    soak = Soak(options.seed, options.minutes * 60, options.agents)
    print(f"seed {soak.seed}", flush=True)  # noqa: T201  (a command)
    asyncio.run(soak.run())
    print(soak)  # noqa: T201
    return 1 if soak.failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""How often an agent comes back logged in: 100 cycles over a Zipf-like mix of accounts, plain and with Redis killed.

    python benchmarks/cycles.py [--cycles 100] [--accounts 10] [--json FILE]

A cycle is one `async with reusable_session(...)`: log in unless the session was reused, check that it is this account's,
work for a moment, change something in half of the cycles. The first visit to an account cannot find anything, so with 10
accounts in 100 cycles 0.90 is the most there is. `reusable` are the cycles that began when an earlier one had already
left this account's session to the SDK. They are counted the same way while Redis is away. In the second run the server,
with an append-only file, gets kill -9 after 40 % of the cycles, stays away for half a second, and starts again. Two agents
that log in to one account at the same time have two logins: one is stored, the other is refused, and not counted as lost.
"""

from __future__ import annotations

import asyncio
import bisect
import os
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.reporting import Goal, Results, command, number, table
from benchmarks.states import made_state
from session_reuse import SessionManager, reusable_session
from tests.harness.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from session_reuse import BrowserSession
    from session_reuse.config import ConfigOptions

_KILL_AFTER: Final = 0.4
_KEPT: Final = {"saved", "unchanged", "merged", "pending"}


@dataclass(frozen=True, slots=True)
class Workload:
    """What runs: how many cycles over how many accounts, by how many agents at a time, at which pace (seconds)."""

    cycles: int = 100
    accounts: int = 10
    agents: int = 4
    work: float = 0.4
    away: float = 0.5
    seed: int = 7

    def schedule(self) -> list[int]:
        """Return the account of each cycle: account k is visited in proportion to 1 / k."""
        chance = random.Random(self.seed)
        shares = list(accumulate(1 / rank for rank in range(1, self.accounts + 1)))
        return [bisect.bisect(shares, chance.random() * shares[-1]) for _ in range(self.cycles)]


@dataclass(slots=True)
class Tally:
    """What one run has seen."""

    enters: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    saves: Counter[str] = field(default_factory=Counter)
    reusable: int = 0
    reused_of_reusable: int = 0
    wrong: int = 0
    refused: int = 0
    lost: int = 0
    flushed: int = 0

    def give_up(self, _fingerprint: str, why: str) -> None:
        """Count a save that was promised and is given up. Of two first logins, one is stored, and the other is refused."""
        if "another login is stored" in why:
            self.refused += 1
        else:
            self.lost += 1

    @property
    def rate(self) -> float:
        """Share of all cycles that reused a session."""
        return self.outcomes["reused"] / len(self.enters)

    @property
    def rate_of_reusable(self) -> float:
        """Share of the cycles that could."""
        return self.reused_of_reusable / self.reusable if self.reusable else 1.0

    def quantile(self, share: float) -> float:
        """Return the seconds that this share of the enters took at most."""
        return sorted(self.enters)[min(len(self.enters) - 1, int(share * len(self.enters)))]

    def numbers(self) -> dict[str, Any]:
        """Return everything, for a file."""
        return {
            "cycles": len(self.enters), "reuse_rate": self.rate, "reusable": self.reusable,
            "reuse_rate_of_reusable": self.rate_of_reusable, "wrong_state": self.wrong, "outcomes": dict(self.outcomes),
            "saves": dict(self.saves), "flushed": self.flushed, "refused": self.refused, "lost": self.lost,
            "enter_seconds": {"p50": self.quantile(0.5), "p99": self.quantile(0.99), "max": max(self.enters)},
        }  # fmt: skip


class Run:
    """One run of a workload against one server."""

    def __init__(self, workload: Workload, manager: SessionManager, tally: Tally) -> None:
        self.tally = tally
        self.time_to_kill = asyncio.Event()
        self._workload = workload
        self._manager = manager
        self._left: set[int] = set()

    async def all_cycles(self) -> None:
        """Let the agents share the schedule until it is done."""
        schedule = enumerate(self._workload.schedule())
        await asyncio.gather(*(self._agent(number, schedule) for number in range(self._workload.agents)))

    async def _agent(self, agent: int, schedule: Iterator[tuple[int, int]]) -> None:
        for turn, account in schedule:
            if turn >= _KILL_AFTER * self._workload.cycles:
                self.time_to_kill.set()
            await self._cycle(turn, account, f"agent-{agent}")

    async def _cycle(self, turn: int, account: int, agent: str) -> None:
        tally, could_reuse = self.tally, account in self._left
        visit = reusable_session(f"shop.example/account-{account}", agent, manager=self._manager)
        began = perf_counter()
        async with visit as session:
            tally.enters.append(perf_counter() - began)
            tally.outcomes[session.outcome.value] += 1
            tally.reusable += could_reuse
            tally.reused_of_reusable += could_reuse and session.reused
            tally.wrong += session.reused and session.data.get("account") != account
            self._work(session, turn, account)
            await asyncio.sleep(self._workload.work * random.uniform(0.5, 1.5))
        outcome = session.save_outcome.value if session.save_outcome else "none"
        tally.saves[outcome] += 1
        if outcome in _KEPT:
            self._left.add(account)

    @staticmethod
    def _work(session: BrowserSession, turn: int, account: int) -> None:
        if not session.reused:
            session.storage_state = made_state(20_000, seed=account)
            session.data["account"] = account
        if turn % 2:
            session.data["last_page"] = turn


async def run(workload: Workload, *, kill: bool) -> Tally:
    """Run the workload against its own server, and kill and restart that in the middle if asked to."""
    tally = Tally()
    options: ConfigOptions = {"encryption_keys": (os.urandom(32),), "registry": None, "on_lost": tally.give_up}
    with RedisServer(appendonly=True) as server:
        async with SessionManager(server.url, **options) as manager:
            running = Run(workload, manager, tally)
            outage = asyncio.create_task(_outage(running.time_to_kill, server, workload.away)) if kill else None
            await running.all_cycles()
            if outage:
                await outage
        tally.flushed = manager.stats().flushed
    return tally


async def _outage(begin: asyncio.Event, server: RedisServer, away: float) -> None:
    await begin.wait()
    server.kill()
    await asyncio.sleep(away)
    await asyncio.to_thread(server.start)


def goals_of(plain: Tally, killed: Tally, budget: float) -> list[Goal]:
    """Return the goals with what the two runs have shown."""
    return [
        Goal("reuse rate, all cycles", 0.8, plain.rate, at_least=True),
        Goal("reuse rate, of the reusable", 1.0, plain.rate_of_reusable, at_least=True),
        Goal("reuse rate, all cycles, Redis killed and restarted", 0.8, killed.rate, at_least=True),
        Goal("longest enter, s (hard budget plus scheduling)", budget + 0.05, max(plain.enters + killed.enters)),
        Goal("states of another account", 0, plain.wrong + killed.wrong),
        Goal("saves lost", 0, plain.lost + killed.lost),
    ]


def _row(name: str, tally: Tally) -> tuple[str, ...]:
    others = Counter({outcome: count for outcome, count in tally.outcomes.items() if outcome != "reused"})
    seen = ", ".join(f"{count} {outcome}" for outcome, count in others.most_common()) or "-"
    saves = ", ".join(f"{count} {outcome}" for outcome, count in tally.saves.most_common())
    times = [f"{1000 * seconds:.1f}" for seconds in (tally.quantile(0.5), tally.quantile(0.99), max(tally.enters))]
    return (name, number(tally.rate), f"{number(tally.rate_of_reusable)} of {tally.reusable}", *times, seen, saves)


def measure(*, quick: bool = False, cycles: int = 100, accounts: int = 10) -> Results:
    """Run the workload both ways."""
    pace = {"work": 0.1, "away": 0.2} if quick else {}
    workload = Workload(cycles=cycles, accounts=accounts, **pace)
    plain, killed = (asyncio.run(run(workload, kill=kill)) for kill in (False, True))
    runs = {"plain": plain, "killed and restarted": killed}
    heads = ("run", "reused", "of reusable", "enter p50 ms", "p99", "max", "not reused", "saves")
    title = f"{workload.cycles} cycles, {workload.accounts} accounts, {workload.agents} agents at a time"
    table(title, heads, [_row(name, tally) for name, tally in runs.items()])
    goals = goals_of(plain, killed, SessionManager().config.restore_timeout)
    return {name: tally.numbers() for name, tally in runs.items()}, goals


if __name__ == "__main__":
    sys.exit(command(__doc__, measure))

"""An outage under twenty agents of twelve identities: what they have to do again, and what is there afterwards.

The server is down first. Then only this process does not reach it, and another host evicts one of the identities.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from session_reuse import BrowserSession, SaveOutcome, SessionManager, reusable_session
from session_reuse.testing import state_with_cookie

IDENTITIES: Final = tuple(f"shop/{number}" for number in range(12))
EVICTED: Final = IDENTITIES[3]
AGENTS: Final = 20

Act = Callable[[], Awaitable[None]]


@dataclass
class Outage:
    """One outage.

    Args:
        here: the manager that loses the store.
        there: the one of another host.
        kill: ends the server.
        cut: has this process not reach it.
        start: starts it with its data.
        heal: has this process reach it again.
        seconds: for which the server is down, and for which this process does not reach it after that.

    Attributes:
        logins: how often an agent had to log in, by identity.
        written: what each agent has noted last under its name, by identity.
        saves: sessions that were left during the outage.
    """

    here: SessionManager
    there: SessionManager
    kill: Act
    cut: Act
    start: Act
    heal: Act
    seconds: tuple[float, float]
    logins: Counter[str] = field(default_factory=Counter)
    written: dict[str, dict[str, int]] = field(default_factory=lambda: {name: {} for name in IDENTITIES})
    saves: list[BrowserSession] = field(default_factory=list)

    async def run(self) -> None:
        """Run it, and check what is promised."""
        for name in IDENTITIES:
            await self._visit(name, "first")
        once = dict.fromkeys(IDENTITIES, 1)
        assert self.logins == once
        self.saves.clear()
        await self.kill()
        self.ends = asyncio.get_running_loop().time() + sum(self.seconds)
        agents = [asyncio.create_task(self._agent(number)) for number in range(AGENTS)]
        await asyncio.sleep(self.seconds[0])
        await self.cut()
        await self.start()
        assert await self.there.evict(EVICTED)
        await asyncio.gather(*agents)
        assert self.logins == once, "an agent logged in again"
        assert {session.stale for session in self.saves} == {True}
        await self.heal()
        outcomes = {session.fingerprint: set[SaveOutcome]() for session in self.saves}
        for session in self.saves:
            outcomes[session.fingerprint].add(await session.settled())
        await self._check(outcomes)

    async def _agent(self, number: int) -> None:
        """Visit one identity again and again, for as long as the store is away."""
        chance, loop, pause = Random(number), asyncio.get_running_loop(), sum(self.seconds) / 60
        while loop.time() < self.ends - 2 * pause:
            await asyncio.sleep(chance.uniform(0.2 * pause, 1.8 * pause))
            await self._visit(IDENTITIES[number % len(IDENTITIES)], f"agent-{number}")

    async def _visit(self, name: str, agent: str) -> None:
        async with reusable_session(name, manager=self.here) as session:
            if not session.reused:
                self.logins[name] += 1
                session.storage_state = state_with_cookie(value=f"{name} {self.logins[name]}")
            self.written[name][agent] = session.data[agent] = session.data.get(agent, 0) + 1
        self.saves.append(session)

    async def _check(self, outcomes: dict[str, set[SaveOutcome]]) -> None:
        assert set(outcomes) == set(IDENTITIES)
        assert outcomes.pop(EVICTED) == {SaveOutcome.STALE}
        assert set.union(*outcomes.values()) <= {SaveOutcome.SAVED, SaveOutcome.MERGED}
        for manager in (self.here, self.there):
            assert await manager.restore(EVICTED) is None
            for name in outcomes:
                session = await manager.restore(name)
                assert session is not None
                assert session.data == self.written[name]
                assert session.storage_state["cookies"] == state_with_cookie(value=f"{name} 1")["cookies"]

"""Agent starts while Redis is frozen: 200 starts over 4 seconds after a SIGSTOP, ours beside plain redis-py.

    python benchmarks/outage.py [--quick] [--starts 200] [--cap 5] [--json FILE]

An agent start is the enter of one `async with reusable_session(...)`, for its own accounts. The connections are open and
have worked before the server is frozen, as in a fleet that has been running for a while. `ours, cold` has never spoken to
the server. Plain redis-py is one GET with a client as the manual shows it. Each of its starts would take a minute, so it is
given up after `--cap` seconds, and the time shown is that cap.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

import redis.asyncio

from benchmarks.reporting import Goal, Results, command, number, table
from session_reuse import SessionManager, reusable_session
from tests.harness.servers import RedisServer

DELAYED: Final = 0.05
"""Seconds from which on a start counts as delayed."""
_ATTEMPT: Final = 0.15

Start = Callable[[int], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Starts:
    """What a fleet's starts took.

    Attributes:
        name: who started.
        seconds: what each start took, in order.
        outcomes: how often which.
        lag: how late the machine was at most to wake a task that sleeps: no start can be more punctual than that.
    """

    name: str
    seconds: list[float]
    outcomes: dict[str, int]
    lag: float

    @property
    def delayed(self) -> int:
        """How many took longer than 50 ms."""
        return sum(1 for second in self.seconds if second > DELAYED)

    @property
    def row(self) -> tuple[str, ...]:
        """One line of the table."""
        p50, p99 = quantiles(self.seconds, n=100)[49], quantiles(self.seconds, n=100)[98]
        times = (p50, p99, max(self.seconds))
        outcomes = ", ".join(f"{name} {count}" for name, count in sorted(self.outcomes.items()))
        total = number(sum(self.seconds))
        times_ms = (number(time * 1000) for time in (*times, self.lag))
        return self.name, str(self.delayed), *times_ms, total, outcomes


async def fleet(name: str, start: Start, count: int, over: float) -> Starts:
    """Start agents at even intervals and measure each."""
    seconds, outcomes = [0.0] * count, Counter[str]()
    loop = asyncio.get_running_loop()
    begin = loop.time()

    async def one(number: int) -> None:
        await asyncio.sleep(begin + number * over / count - loop.time())
        began = perf_counter()
        outcome = await start(number)
        seconds[number] = perf_counter() - began
        outcomes[outcome] += 1

    watch = asyncio.create_task(_longest_lag())
    await asyncio.gather(*(one(number) for number in range(count)))
    watch.cancel()
    return Starts(name, seconds, dict(outcomes), await watch)


async def _longest_lag() -> float:
    longest = 0.0
    try:
        while True:
            due = perf_counter() + 0.005
            await asyncio.sleep(0.005)
            longest = max(longest, perf_counter() - due)
    except asyncio.CancelledError:
        return longest


async def ours(server: RedisServer, count: int, over: float, *, warm: bool) -> Starts:
    """Measure the SDK with its default settings."""
    async with SessionManager(server.url, registry=None, close_timeout=0.1) as manager:
        if warm:
            await fleet("warm-up", lambda number: _enter_only(manager, number), 40, 0.4)
        server.pause()
        try:
            return await fleet(
                f"ours, {'warm' if warm else 'cold'}", lambda number: _enter_only(manager, number), count, over
            )
        finally:
            server.resume()


async def _enter_only(manager: SessionManager, number: int) -> str:
    visit = reusable_session(f"shop.example/{number}", manager=manager)
    session = await visit.__aenter__()  # the exit is not part of an agent's start
    session.discard()
    _leave_later(visit)
    return session.outcome.value


_leaving: set[asyncio.Task[None]] = set()


def _leave_later(visit: reusable_session) -> None:
    task = asyncio.create_task(visit.__aexit__(None, None, None))
    _leaving.add(task)
    task.add_done_callback(_leaving.discard)


async def plain(server: RedisServer, count: int, over: float, cap: float) -> Starts:
    """Measure a plain client with redis-py's defaults."""
    client = redis.asyncio.Redis(port=server.port)

    async def start(number: int) -> str:
        try:
            async with asyncio.timeout(cap):
                await client.get(f"plain:{number}")
        except TimeoutError:
            return f"given up after {cap:g} s"
        except redis.RedisError as error:
            return type(error).__name__
        return "answered"

    await fleet("warm-up", start, 40, 0.4)
    server.pause()
    try:
        return await fleet("redis-py defaults", start, count, over)
    finally:
        server.resume()
        await client.aclose()


async def _frozen(count: int, over: float, cap: float) -> list[Starts]:
    found = []
    for warm in (True, False):
        with RedisServer() as server:
            found.append(await ours(server, count, over, warm=warm))
    with RedisServer() as server:
        found.append(await plain(server, count, over, cap))
    return found


def frozen(*, quick: bool = False, starts: int = 200, cap: float = 5.0) -> Results:
    """Start agents while Redis is frozen. Plain redis-py is given up after `cap` seconds."""
    count, over, cap = (40, 0.8, 1.0) if quick else (starts, starts / 50, cap)
    found = asyncio.run(_frozen(count, over, cap))
    heads = ("who", "delayed", "p50 ms", "p99 ms", "longest ms", "lag ms", "sum s", "outcomes")
    title = f"{count} agent starts over {over:g} s, Redis frozen (load {os.getloadavg()[0]:.1f})"
    table(title, heads, [each.row for each in found])
    *own, other = found
    peer = f"{other.name}: {other.delayed}, {max(other.seconds):.1f} s or more"
    goals = [
        goal
        for each in own
        for goal in (
            Goal(f"{each.name}: of {count} starts with Redis frozen, delayed over 50 ms", 15, each.delayed, peer=peer),
            Goal(f"{each.name}: longest start less the machine's lag, ms", *_longest(each)),
        )
    ]
    return [asdict(each) for each in found], goals


def _longest(starts: Starts) -> tuple[float, float]:
    return _ATTEMPT * 1000 + 10, (max(starts.seconds) - starts.lag) * 1000


async def _away(names: list[str]) -> tuple[Counter[str], Counter[str], float]:
    """Return the outcomes of the enters during an outage, those of the saves, and the longest enter."""
    enters, saves, longest = Counter[str](), Counter[str](), 0.0
    with RedisServer(appendonly=True) as server:
        async with SessionManager(server.url, registry=None, close_timeout=60.0) as manager:
            for name in names:
                async with reusable_session(name, manager=manager) as session:
                    session.data["visits"] = 1
            server.kill()
            for name in names:
                began = perf_counter()
                async with reusable_session(name, manager=manager) as session:
                    longest = max(longest, perf_counter() - began)
                    enters[session.outcome.value] += 1
                    session.data["visits"] = session.data.get("visits", 0) + 1
            await asyncio.to_thread(server.start)
        async with SessionManager(server.url, registry=None) as manager:
            for name in names:
                found = await manager.restore(name)
                saves["arrived" if found is not None and found.data["visits"] == 2 else "lost"] += 1
    return enters, saves, longest


def reuse(*, quick: bool = False, sessions: int = 200) -> Results:
    """Kill Redis, let the agents of a running process come back, start it again, and count what arrived."""
    names = [f"shop.example/{number}" for number in range(20 if quick else sessions)]
    enters, saves, longest = asyncio.run(_away(names))
    goals = [
        Goal("Redis killed: share of known sessions that are reused", 1.0, enters["reused"] / len(names), at_least=True, peer="others: 0"),
        Goal("Redis killed: longest enter, s", 0.55, longest),
        Goal("Redis back: saves lost", 0, saves["lost"]),
    ]  # fmt: skip
    return {"enters": enters, "saves": saves, "longest enter": longest}, goals


if __name__ == "__main__":
    sys.exit(command(__doc__, frozen))

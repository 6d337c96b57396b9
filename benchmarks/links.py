"""Stores that are healthy but busy, far away or behind a slow link: what an agent meets there with the default settings.

`burst` starts thousands of agents at once in one process. `far` puts 80 ms, TLS, a password and a database number between
client and store. `slow` moves a session of 2 MB over 8 MB/s beside small ones. The proxy that delays is in `tests/harness`.
The scorecard runs them: `python benchmarks/scorecard.py --only burst,far,slow`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.contestants import Naive, NaiveByDefault
from benchmarks.reporting import Goal, Results, number, table
from benchmarks.states import SIZES, made_state
from session_reuse import SessionManager, reusable_session
from tests.harness.fault_proxy import FaultProxy
from tests.harness.servers import HOST, RedisServer

DEFAULTS: Final[dict[str, Any]] = {"registry": None, "reuse_while_away": 0}
"""Default settings, but for the reuse of what this process knows: what is reused here, the store has answered."""
_SMALL: Final = [f"shop.example/{number}" for number in range(20)]


# Many agents at once --------------------------------------------------------------------------------------------------


async def crowd(url: str, agents: int) -> Counter[str]:
    """Let so many agents enter, wait for one another, and leave. Return how often each went how."""
    entered, inside, found = asyncio.Event(), 0, Counter[str]()
    async with SessionManager(url, **DEFAULTS) as manager:

        async def agent(number: int) -> None:
            nonlocal inside
            async with reusable_session(f"site/{number}", f"agent-{number}", manager=manager) as session:
                session.data["n"] = 1
                inside += 1
                if inside == agents:
                    entered.set()
                await entered.wait()
            found["degraded" if session.degraded else f"{session.save_outcome}"] += 1

        await asyncio.gather(*map(agent, range(agents)))
        found["lost"] += manager.stats().lost
        found["breakers open"] += sum(state != "closed" for state in manager.stats().breakers.values())
    return found


async def errors_of(contestant: Naive, url: str, agents: int) -> int:
    """Return how many of so many agents that start at once get an error from a plain client."""
    await contestant.open(url, made_state(SIZES["2 KB"]))
    try:
        results = await asyncio.gather(*(contestant.cycle(task) for task in range(agents)), return_exceptions=True)
    finally:
        await contestant.close()
    return sum(isinstance(result, Exception) for result in results)


def burst(*, quick: bool = False, agents: int = 5000) -> Results:
    """Start and end agents at once, with ours and with redis-py as it comes."""
    agents = 500 if quick else agents
    with RedisServer(args=("--maxclients", "20000")) as server:
        found = asyncio.run(crowd(server.url, agents))
        errors = asyncio.run(errors_of(NaiveByDefault(), server.url, agents))
    title = f"{agents:,} agents at once"
    goals = [
        Goal(f"{title}: saves lost", 0, found["lost"], peer=f"redis-py: {errors} errors"),
        Goal(f"{title}: degraded", 0, found["degraded"]),
        Goal(f"{title}: saved at their exit", agents, found["saved"], at_least=True),
        Goal(f"{title}: breakers opened", 0, found["breakers open"]),
    ]
    return {"ours": found, "errors of redis-py": errors}, goals


# Far and slow stores --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def behind_a_proxy(**server: Any) -> AsyncIterator[tuple[FaultProxy, str]]:
    """Start a server behind a proxy. Yield the proxy and the URL that leads through it."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # connections that are cut at the end are reported there
    with RedisServer(**server) as redis_server:
        async with FaultProxy((HOST, redis_server.port)) as proxy:
            yield proxy, redis_server.url.replace(f":{redis_server.port}/0", f":{proxy.port}/3")


async def enter(manager: SessionManager, name: str, *, save: str = "") -> tuple[str, float]:
    """Enter and leave. Return the outcome and the seconds that the enter took."""
    began = perf_counter()
    async with reusable_session(name, manager=manager) as session:
        took = perf_counter() - began
        if save:
            session.data["pad"] = save
        else:
            session.discard()
    return session.outcome.value, took


async def _far(rounds: int) -> tuple[list[tuple[str, float]], list[float]]:
    found: list[tuple[str, float]] = []
    naive: list[float] = []
    async with behind_a_proxy(tls=True, password="secret") as (proxy, url):
        async with SessionManager(url, **DEFAULTS) as manager:
            for name in _SMALL:
                await enter(manager, name, save="x")
        proxy.latency = 0.08
        for _ in range(rounds):  # each is a process that has just started
            async with SessionManager(url, **DEFAULTS, close_timeout=0.1) as manager:
                found.append(await enter(manager, _SMALL[0]))
                found += await asyncio.gather(*(enter(manager, name) for name in _SMALL))
            other = Naive()
            await other.open(url, {"cookies": [], "origins": []})
            naive.append(await _seconds(lambda other=other: other.load(0)))
            await other.close()
    return found, naive


async def _seconds(work: Callable[[], Awaitable[Any]]) -> float:
    began = perf_counter()
    await work()
    return perf_counter() - began


def far(*, quick: bool = False) -> Results:
    """Enter over 80 ms, TLS and a password, also as the first thing a process does."""
    found, naive = asyncio.run(_far(2 if quick else 10))
    reused = sum(outcome == "reused" for outcome, _ in found) / len(found)
    first = [took for _, took in found[:: len(_SMALL) + 1]]
    rows = [("ours", *_times(first)), ("redis-py, GET alone", *_times(naive))]
    table("The first enter of a process, 80 ms away", ("", "median ms", "longest ms"), rows)
    peer = f"redis-py: first GET {1000 * median(naive):.0f} ms"
    goals = [
        Goal("store 80 ms away, TLS, AUTH, database 3: share of enters that reuse", 1.0, reused, at_least=True, peer=peer),
        Goal("store 80 ms away: the first enter of a process, median s", 0.5, median(first)),
    ]  # fmt: skip
    return {"enters": found, "redis-py": naive}, goals


def _times(seconds: list[float]) -> tuple[str, str]:
    return number(1000 * median(seconds)), number(1000 * max(seconds))


async def _slow(rounds: int) -> tuple[list[str], list[tuple[str, float]], list[tuple[str, float]]]:
    large: list[str] = []
    alone: list[tuple[str, float]] = []
    beside: list[tuple[str, float]] = []
    pad = os.urandom(1_000_000).hex()
    async with behind_a_proxy() as (proxy, url):
        async with SessionManager(url, **DEFAULTS, compression="none") as manager:
            await enter(manager, "big", save=pad)
            for name in _SMALL:
                await enter(manager, name, save="x")
        proxy.download_rate = 8_000_000
        for _ in range(rounds):
            async with SessionManager(url, **DEFAULTS, compression="none") as manager:
                await enter(manager, _SMALL[0])
                alone += await asyncio.gather(*(enter(manager, name) for name in _SMALL))
                big = asyncio.create_task(enter(manager, "big"))
                await asyncio.sleep(0.01)
                beside += await asyncio.gather(*(enter(manager, name) for name in _SMALL))
                large.append((await big)[0])
    return large, alone, beside


def slow(*, quick: bool = False) -> Results:
    """Enter a session of 2 MB over 8 MB/s, and small ones at the same time."""
    large, alone, beside = asyncio.run(_slow(2 if quick else 10))
    table(
        "Small sessions over 8 MB/s", ("", "median ms", "longest ms"),
        [("alone", *_times([took for _, took in alone])), ("beside one of 2 MB", *_times([took for _, took in beside]))],
    )  # fmt: skip
    reused = [
        sum(outcome == "reused" for outcome in found) / len(found) for found in (large, [kind for kind, _ in beside])
    ]
    goals = [
        Goal("2 MB over 8 MB/s: share of enters that reuse", 1.0, reused[0], at_least=True),
        Goal("beside it, small sessions: share of enters that reuse", 1.0, reused[1], at_least=True),
        Goal("beside it, small sessions: median enter, ms", 50.0, 1000 * median(took for _, took in beside)),
    ]
    return {"large": large, "alone": alone, "beside": beside}, goals

"""What the package takes before it does anything: time to import and to enter first, memory, and `session-reuse ls` of 50,000.

Each sample is its own process. The scorecard runs the parts: `python benchmarks/scorecard.py --only cold-start,memory,ls`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.contestants import ENOUGH_CONNECTIONS
from benchmarks.growth import fill
from benchmarks.reporting import Goal, Results, number, table
from benchmarks.states import SIZES, made_state
from session_reuse import SessionManager, reusable_session
from session_reuse._store.keys import Keys
from tests.harness.servers import RedisServer

ROOT: Final = Path(__file__).parents[1]
_TIMED: Final = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"
_FIRST_ENTER: Final = """
import asyncio, sys, time
began = time.perf_counter()
from session_reuse import reusable_session
async def main():
    async with reusable_session("shop.example/alice", agent_id="a") as session:
        print(time.perf_counter() - began)
        session.discard()
asyncio.run(main())
"""
_FIRST_GET: Final = """
import asyncio, os, time
began = time.perf_counter()
import redis.asyncio
async def main():
    async with redis.asyncio.Redis.from_url(os.environ["SESSION_REUSE_URL"]) as client:
        await client.get("shop.example/alice")
        print(time.perf_counter() - began)
asyncio.run(main())
"""
_MEASURED: Final = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(json.dumps([time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024]))
"""
"""Runs a command from a small process: on Linux the peak of a process counts what its parent had in memory."""


def cold_start(*, quick: bool = False) -> Results:
    """Import, and enter for the first time, in processes that have just started."""
    programs = {
        "import session_reuse": _TIMED.format("import session_reuse"),
        "import redis.asyncio": _TIMED.format("import redis.asyncio"),
        "import playwright.async_api": _TIMED.format("import playwright.async_api"),
        "first enter, with imports": _FIRST_ENTER,
        "first GET of redis-py, with imports": _FIRST_GET,
    }
    found: dict[str, list[float]] = {name: [] for name in programs}
    with RedisServer() as server:
        environment = {**os.environ, "SESSION_REUSE_URL": server.url, "PYTHONPATH": str(ROOT)}
        for _ in range(3 if quick else 15):
            for name, program in programs.items():
                done = subprocess.run(
                    [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
                )
                found[name].append(float(done.stdout))
    medians = {name: median(seconds) for name, seconds in found.items()}
    table(
        "A process that has just started", ("", "ms"), [(name, number(1000 * each)) for name, each in medians.items()]
    )
    ours, get = medians["first enter, with imports"], medians["first GET of redis-py, with imports"]
    playwright = medians["import playwright.async_api"]
    goals = [
        Goal("import session_reuse, ms", None, 1000 * medians["import session_reuse"], peer=f"Playwright {1000 * playwright:.0f}"),
        Goal("first enter of a process, with imports / first GET of redis-py", None, ours / get, peer=f"redis-py {1000 * get:.0f} ms"),
    ]  # fmt: skip
    return found, goals


# Memory ---------------------------------------------------------------------------------------------------------------


def memory(*, quick: bool = False) -> Results:
    """Weigh managers that do nothing, and sessions that are open."""
    managers, sessions, rounds = (20, 200, 1) if quick else (100, 2000, 5)
    found: dict[str, list[float]] = {name: [] for name in ("idle manager", "open session", "the same state as a dict")}
    with RedisServer(args=("--maxclients", "20000")) as server:
        for _ in range(rounds):
            found["idle manager"].append(_in_a_process(_idle_managers, server.url, managers))
            found["open session"].append(_in_a_process(_open_sessions, server.url, sessions))
            found["the same state as a dict"].append(_in_a_process(_open_states, server.url, sessions))
    medians = {name: median(sizes) for name, sizes in found.items()}
    table("Memory of the process, KB each", ("", "KB"), [(name, number(each / 1000)) for name, each in medians.items()])
    plain = medians["the same state as a dict"]
    goals = [
        Goal("an idle manager, KB", None, medians["idle manager"] / 1000),
        Goal("an open session of 20 KB / the same state as a dict", None, medians["open session"] / plain, peer=f"dict {plain / 1000:.0f} KB"),
    ]  # fmt: skip
    return found, goals


def _in_a_process(work: Callable[[str, int], float], url: str, count: int) -> float:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, url, count).result()


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _idle_managers(url: str, count: int) -> float:
    async def run() -> float:
        async with SessionManager(url, registry=None) as first:
            await first.restore("nothing")
            before = _resident()
            managers = [SessionManager(url, registry=None) for _ in range(count)]
            for manager in managers:
                await manager.restore("nothing")
            grown = _resident() - before
            await asyncio.gather(*(manager.aclose() for manager in managers))
        return grown / count

    return asyncio.run(run())


def _open_sessions(url: str, count: int) -> float:
    async def run() -> float:
        async with SessionManager(url, registry=None, recent_bytes=0) as manager:
            await _stored(manager)
            scopes = [reusable_session("shop.example/alice", f"agent-{at}", manager=manager) for at in range(count)]
            await scopes[0].__aenter__()
            before = _resident()
            opened = [await scope.__aenter__() for scope in scopes[1:]]
            grown = _resident() - before
            for session in opened:
                session.discard()
            for scope in scopes:
                await scope.__aexit__(None, None, None)
        return grown / len(opened)

    return asyncio.run(run())


def _open_states(url: str, count: int) -> float:
    import orjson
    from redis.asyncio import Redis

    async def run() -> float:
        async with Redis.from_url(url, max_connections=ENOUGH_CONNECTIONS) as client:
            await client.set("plain", orjson.dumps(made_state(SIZES["20 KB"])))
            first = orjson.loads(await client.get("plain"))
            before = _resident()
            states = [orjson.loads(await client.get("plain")) for _ in range(count)]
            grown = _resident() - before
        return grown / len([first, *states][1:])

    return asyncio.run(run())


async def _stored(manager: SessionManager) -> None:
    async with reusable_session("shop.example/alice", manager=manager) as session:
        session.storage_state = made_state(SIZES["20 KB"])


# The list -------------------------------------------------------------------------------------------------------------


def listing(*, quick: bool = False, sessions: int = 50_000) -> Results:
    """List the sessions of a large store by the command line."""
    sessions = min(sessions, 5000) if quick else sessions
    with RedisServer() as server, server.client(socket_timeout=60.0) as client:
        fill(client, Keys(), range(sessions))
        words = [sys.executable, "-m", "session_reuse.cli", "ls", "--url", server.url]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *words], env=environment, capture_output=True, text=True, check=True
        )
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    goals = [
        Goal(f"`session-reuse ls` of {sessions:,} sessions, s", 10, seconds),
        Goal(f"`session-reuse ls` of {sessions:,} sessions, MB", 150, peak / 1e6),
    ]
    return {"seconds": seconds, "bytes": peak}, goals

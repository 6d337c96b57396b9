"""Cycles per second of several worker processes together, ours beside naive, on one server or on a Cluster.

    python benchmarks/processes.py [--quick] [--workers 1,2,4] [--tasks 64] [--cluster] [--json FILE]

Each worker is its own process with its own connections. All begin at the same moment. With more workers than cores,
and the server on the same machine, nothing can grow any more: what counts is the ratio at the same number of workers. The
naive contestant speaks to one server only, so on a Cluster ours stands alone.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.reporting import Results, command, number, table
from benchmarks.rounds import timed
from benchmarks.states import SIZES, made_state
from tests.harness.servers import RedisCluster, RedisServer

BASE: Final = "naive GET+SET"
WORKER: Final = "worker"


class _Worker:
    """One contestant in its own process."""

    def __init__(self, name: str, url: str, size: str, tasks: int, each: int, first: int) -> None:
        words = [sys.executable, __file__, WORKER, json.dumps([name, url, size, tasks, each, first])]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait_ready(self) -> None:
        """Wait until it has connected and warmed up."""
        self._line()

    def begin(self) -> None:
        """Let it run."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, float]:
        """Return what it measured, once it is done."""
        found: dict[str, float] = json.loads(self._line())
        self._process.communicate(timeout=60)
        return found

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a worker ended early; its error stands above")
        return line


class _Shifted:
    """A contestant whose sessions are not those of other workers."""

    def __init__(self, contestant: Contestant, first: int) -> None:
        self._contestant = contestant
        self._first = first

    async def cycle(self, task: int) -> None:
        await self._contestant.cycle(self._first + task)


async def work(name: str, url: str, size: str, tasks: int, each: int, first: int) -> None:
    """Be a worker: warm up, wait for the word, measure, print."""
    contestant = CONTESTANTS[name]()
    await contestant.open(url, made_state(SIZES[size]))
    cycle = _Shifted(contestant, first).cycle
    await timed(cycle, tasks, 1)
    print("ready", flush=True)
    sys.stdin.readline()
    sample = await timed(cycle, tasks, each)
    print(json.dumps({"cycles": tasks * each, "wall": sample.wall * tasks * each, "cpu": sample.cpu}), flush=True)
    await contestant.close()


def throughput(name: str, url: str, workers: int, size: str, tasks: int, each: int) -> float:
    """Return cycles per second of all workers together."""
    running = [_Worker(name, url, size, tasks, each, first=number * tasks) for number in range(workers)]
    for worker in running:
        worker.wait_ready()
    for worker in running:
        worker.begin()
    results = [worker.result() for worker in running]
    return sum(result["cycles"] for result in results) / max(result["wall"] for result in results)


def measure(
    *,
    quick: bool = False,
    workers: str = "1,2,4",
    size: str = "20 KB",
    tasks: int = 64,
    rounds: int = 5,
    cluster: bool = False,
) -> Results:
    """Measure in interleaved rounds. `cluster` takes three primaries and three replicas instead of one server."""
    names = ["ours", "ours, unchanged"] if cluster else list(CONTESTANTS)
    rounds, each = (1, 4) if quick else (rounds, 20)
    found: dict[str, dict[str, list[float]]] = {count: {name: [] for name in names} for count in workers.split(",")}
    with ExitStack() as stack:
        server: Any = stack.enter_context(RedisCluster() if cluster else RedisServer())
        for _ in range(rounds):
            for count in found:
                for name in names:
                    found[count][name].append(throughput(name, server.url, int(count), size, tasks, each))
    heads = ("contestant", *(f"{count} workers" for count in found))
    rows = [(name, *(_cell(found[count], name) for count in found)) for name in names]
    table(f"Cycles per second, {size}, {tasks} tasks each, {'Cluster' if cluster else 'one server'}", heads, rows)
    return found, []


def _cell(found: dict[str, list[float]], name: str) -> str:
    rate = number(round(median(found[name])))
    if BASE not in found:
        return rate
    return f"{rate} (x{median(one / base for one, base in zip(found[name], found[BASE], strict=True)):.2f})"


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        asyncio.run(work(*json.loads(sys.argv[2])))
    else:
        sys.exit(command(__doc__, measure))

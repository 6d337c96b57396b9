"""Our safe cycle beside a naive one and beside other libraries, in interleaved rounds.

    python benchmarks/compare.py [--quick] [--rounds 7] [--sizes "2 KB,20 KB"] [--tasks 1,128] [--only NAME;...] [--json FILE]

A cycle is one restore and one save of a task's own session, of which one cookie changes. Every number is a ratio to the
naive cycle of the same round. Below 1 is cheaper. CPU is of this process, that of the server is in wire.py.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.reporting import Goal, Results, command, number, table
from benchmarks.rivals import PEERS, installed_peers
from benchmarks.rounds import Ratio, Sample, interleaved, ratio, timed
from benchmarks.states import SIZES, made_state
from tests.harness.servers import RedisServer

BASE: Final = "naive GET+SET"
_CYCLES: Final = {"2 KB": 1200, "20 KB": 900, "200 KB": 200, "2 MB": 30}
"""Cycles in one sample, so that each takes about half a second; never less than one for each task."""


async def sample(contestant: Contestant, url: str, state: dict[str, Any], tasks: int, cycles: int) -> Sample:
    """Measure one contestant, newly connected."""
    await contestant.open(url, state)
    try:
        return await timed(contestant.cycle, tasks, max(1, cycles // tasks))
    finally:
        await contestant.close()


def compare(
    url: str, kinds: dict[str, Any], size: str, tasks: int, rounds: int, cycles: int = 0
) -> dict[str, list[Sample]]:
    """Measure all contestants with one size and one number of tasks. `cycles` in one sample, 0 for the usual number."""
    state, cycles = made_state(SIZES[size]), cycles or _CYCLES[size]
    runs = {
        name: partial(lambda kind: asyncio.run(sample(kind(), url, state, tasks, cycles)), kind)
        for name, kind in kinds.items()
    }
    return interleaved(runs, rounds)


def goals_of(results: dict[str, dict[str, Ratio]]) -> list[Goal]:
    """Return the goals that these results speak of. All are about CPU."""
    goals = []
    for size, tasks, what, limit in _GOALS:
        ratios = results.get(f"{size}, {tasks} tasks", {})
        if what in ratios:
            goals.append(
                Goal(f"{what} / {BASE}, {size}, {tasks} tasks, CPU", limit, ratios[what].cpu, peer=_best(ratios))
            )
    ratios = results.get("20 KB, 128 tasks", {})
    if "ours" in ratios and (peers := _peers(ratios)):
        best = min(peers.values())
        goals.append(
            Goal("ours / best peer, 20 KB, 128 tasks, CPU", 0.6, ratios["ours"].cpu / best, peer=_best(ratios))
        )
    return goals


_GOALS: Final = (
    ("20 KB", 128, "ours", 1.0),
    ("2 KB", 128, "ours", 0.75),
    ("20 KB", 128, "ours, unchanged", 0.8),
    ("20 KB", 1, "ours", 1.3),
)


def _peers(ratios: dict[str, Ratio]) -> dict[str, float]:
    return {name: ratios[name].cpu for name in PEERS if name in ratios}


def _best(ratios: dict[str, Ratio]) -> str:
    peers = _peers(ratios)
    return f"{min(peers, key=peers.__getitem__)} {min(peers.values()):.2f}" if peers else ""


def _show(title: str, samples: dict[str, list[Sample]], ratios: dict[str, Ratio]) -> None:
    rows = []
    for name, found in ratios.items():
        micros = [1e6 * min(getattr(one, kind) for one in samples[name]) for kind in ("wall", "cpu")]
        numbers = (found.wall, found.wall_min, found.cpu, found.cpu_min)
        rows.append((name, *(f"{value:.2f}" for value in numbers), *(number(round(value)) for value in micros)))
    table(title, ("contestant", "wall", "wall min", "cpu", "cpu min", "µs wall min", "µs cpu min"), rows)


def measure(
    *, quick: bool = False, rounds: int = 7, sizes: str = "2 KB,20 KB", tasks: str = "1,128", only: str = ""
) -> Results:
    """Compare over sizes and numbers of tasks.

    Args:
        quick: three rounds.
        rounds: of each contestant.
        sizes: of 2 KB, 20 KB, 200 KB and 2 MB, separated by commas.
        tasks: numbers of tasks at a time.
        only: names of contestants, separated by semicolons. The base is always there.
    """
    peers, missing = installed_peers()
    chosen = {BASE, *only.split(";")} if only else {*CONTESTANTS, *peers}
    kinds: dict[str, Any] = {name: kind for name, kind in {**CONTESTANTS, **peers}.items() if name in chosen}
    if missing and not only:
        print(f"not installed, left out: {', '.join(missing)}")
    results: dict[str, dict[str, Ratio]] = {}
    with RedisServer() as server:
        for size in sizes.split(","):
            for count in map(int, tasks.split(",")):
                with server.client() as client:
                    client.flushall()
                title = f"{size}, {count} tasks"
                samples = compare(server.url, kinds, size, count, 3 if quick else rounds)
                results[title] = {name: ratio(found, samples[BASE]) for name, found in samples.items()}
                _show(title, samples, results[title])
    numbers = {title: {name: asdict(found) for name, found in ratios.items()} for title, ratios in results.items()}
    return numbers, goals_of(results)


if __name__ == "__main__":
    sys.exit(command(__doc__, measure))

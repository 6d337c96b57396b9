"""Our safe cycle beside a naive one and beside other libraries, in interleaved rounds.

    python benchmarks/compare.py [--quick] [--rounds 7] [--sizes "2 KB,20 KB"] [--tasks 1,128] [--only NAME,...] [--json FILE]

A cycle is one restore and one save of a task's own session, of which one cookie changes. Every number is a ratio to the
naive cycle of the same round; below 1 is cheaper. CPU is this process's; the server's is in wire.py.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.contestants import CONTESTANTS, Contestant, NaiveByDefault, OursByDefault
from benchmarks.reporting import Goal, arguments, bar_chart, goals_table, number, table, write_json
from benchmarks.rivals import PEERS, installed_rivals
from benchmarks.rounds import Ratio, Sample, interleaved, ratio, timed
from benchmarks.states import SIZES, made_state
from tests.harness.servers import RedisServer

BASE: Final = "naive GET+SET"
_CYCLES: Final = {"2 KB": 1200, "20 KB": 900, "200 KB": 200, "2 MB": 30}
"""Cycles in one sample, so that each takes about half a second; never less than one for each task."""

Results = dict[str, dict[str, Ratio]]


async def sample(contestant: Contestant, url: str, state: dict[str, Any], tasks: int, cycles: int) -> Sample:
    """Measure one contestant, connected anew."""
    await contestant.open(url, state)
    try:
        return await timed(contestant.cycle, tasks, max(1, cycles // tasks))
    finally:
        await contestant.close()


def compare(
    url: str, kinds: dict[str, Any], size: str, tasks: int, rounds: int, cycles: int = 0
) -> dict[str, list[Sample]]:
    """Measure all contestants with one size and one number of tasks; `cycles` in one sample, 0 for the usual number."""
    state, cycles = made_state(SIZES[size]), cycles or _CYCLES[size]
    runs = {
        name: partial(lambda kind: asyncio.run(sample(kind(), url, state, tasks, cycles)), kind)
        for name, kind in kinds.items()
    }
    return interleaved(runs, rounds)


async def errors_of(contestant: Contestant, url: str, agents: int) -> int:
    """Return how many of so many agents that start at once get an error."""
    await contestant.open(url, made_state(SIZES["20 KB"]))
    try:
        results = await asyncio.gather(*(contestant.cycle(task) for task in range(agents)), return_exceptions=True)
    finally:
        await contestant.close()
    return sum(isinstance(result, Exception) for result in results)


def goals_of(results: Results) -> list[Goal]:
    """Return the goals that these results speak of."""
    goals = []
    for size, tasks, what, limit, base in _GOALS:
        ratios = results.get(f"{size}, {tasks} tasks", {})
        if what not in ratios or base not in ratios:
            continue
        for kind in ("wall", "cpu"):
            measured = getattr(ratios[what], kind) / getattr(ratios[base], kind)
            goals.append(Goal(f"{what} / {base}, {size}, {tasks} tasks, {kind}", limit, measured))
    return goals + _peer_goals(results)


_GOALS: Final = (
    ("20 KB", 128, "ours", 0.50, BASE),
    ("2 KB", 128, "ours", 0.35, BASE),
    ("20 KB", 1, "ours", 1.10, BASE),
    ("20 KB", 1, "ours", 0.75, "seed GET+SET+SET"),
    ("20 KB", 1, "ours, unchanged", 0.60, BASE),
    ("20 KB", 128, "ours, unchanged", 0.40, BASE),
)


def _peer_goals(results: Results) -> list[Goal]:
    ratios = results.get("20 KB, 128 tasks", {})
    peers = [ratios[name] for name in PEERS if name in ratios]
    if not peers or "ours" not in ratios:
        return []
    best = min(peer.wall for peer in peers), min(peer.cpu for peer in peers)
    return [
        Goal("ours / best peer, 20 KB, 128 tasks, wall", 0.33, ratios["ours"].wall / best[0]),
        Goal("ours / best peer, 20 KB, 128 tasks, cpu", 0.33, ratios["ours"].cpu / best[1]),
    ]


def _show(title: str, samples: dict[str, list[Sample]], ratios: dict[str, Ratio]) -> None:
    rows = []
    for name, found in ratios.items():
        micros = [1e6 * min(getattr(one, kind) for one in samples[name]) for kind in ("wall", "cpu")]
        numbers = (found.wall, found.wall_min, found.cpu, found.cpu_min)
        rows.append((name, *(f"{value:.2f}" for value in numbers), *(number(round(value)) for value in micros)))
    table(title, ("contestant", "wall", "wall min", "cpu", "cpu min", "µs wall min", "µs cpu min"), rows)


def measure(
    sizes: list[str], tasks: list[int], rounds: int, only: list[str] | None = None, *, crowd: bool = True
) -> tuple[dict[str, Any], list[Goal]]:
    """Compare over all sizes and numbers of tasks; print tables; return numbers and goals."""
    rivals, missing = installed_rivals()
    kinds: dict[str, Any] = {
        name: kind for name, kind in {**CONTESTANTS, **rivals}.items() if not only or name in {BASE, *only}
    }
    if missing and not only:
        print(f"not installed, left out: {', '.join(missing)}")
    results: Results = {}
    errors = {}
    with RedisServer() as server:
        for size in sizes:
            for count in tasks:
                with server.client() as client:
                    client.flushall()
                title = f"{size}, {count} tasks"
                samples = compare(server.url, kinds, size, count, rounds)
                results[title] = {name: ratio(found, samples[BASE]) for name, found in samples.items()}
                _show(title, samples, results[title])
        if crowd:
            errors = {
                "ours": asyncio.run(errors_of(OursByDefault(), server.url, 1000)),
                "naive, redis-py's defaults": asyncio.run(errors_of(NaiveByDefault(), server.url, 1000)),
            }
            table("1,000 agents at once", ("contestant", "errors"), [(name, str(n)) for name, n in errors.items()])
    goals = goals_of(results) + ([Goal("errors of 1,000 agents at once", 0, errors["ours"])] if crowd else [])
    numbers = {title: {name: asdict(found) for name, found in ratios.items()} for title, ratios in results.items()}
    return {"ratios to naive": numbers, "errors of 1,000 agents": errors}, goals


def main() -> int:
    """Compare, print, write; the exit status says whether all goals were met."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", default="2 KB,20 KB,200 KB", help="from 2 KB, 20 KB, 200 KB, 2 MB")
    parser.add_argument("--tasks", default="1,16,128,1000")
    parser.add_argument("--only", help="names of contestants, separated by commas; the base is always there")
    chosen = parser.parse_args()
    sizes, tasks, rounds = chosen.sizes.split(","), [int(count) for count in chosen.tasks.split(",")], chosen.rounds
    if chosen.quick:
        sizes, tasks, rounds = ["2 KB", "20 KB"], [1, 128], 3
    results, goals = measure(sizes, tasks, rounds, chosen.only.split(",") if chosen.only else None)
    goals_table(goals)
    write_json(chosen.json, results, goals)
    bars = {
        f"{title}: {name}": found["cpu"]
        for title, all_ in results["ratios to naive"].items()
        for name, found in all_.items()
    }
    bar_chart(chosen.plot, "Client CPU per cycle, naive = 1", "ratio", bars, line=1.0)
    return 0 if all(goal.met for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Interleaved rounds: every contestant runs once per round, so that other load meets all alike.

Wall time on a busy machine moves by a factor of two. The ratio of two contestants within one round moves much less, and
the ratio of their CPU time less again. So a result is a ratio to the base, as median and minimum over the rounds.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time

Cycle = Callable[[int], Awaitable[None]]
"""One restore and one save of the session of the task with this number."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds per cycle, wall and CPU time of this process."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """One contestant's cost, as a multiple of the base's in the same round."""

    wall: float
    wall_min: float
    cpu: float
    cpu_min: float


async def timed(cycle: Cycle, tasks: int, each: int) -> Sample:
    """Run `each` cycles in each of `tasks` concurrent tasks, after one more to warm up."""

    async def work(task: int, count: int) -> None:
        for _ in range(count):
            await cycle(task)

    await asyncio.gather(*(work(task, 1) for task in range(tasks)))
    gc.collect()
    gc.freeze()  # else each collection walks through what all the other libraries have imported
    try:
        wall, cpu = perf_counter(), process_time()
        await asyncio.gather(*(work(task, each) for task in range(tasks)))
        total = tasks * each
        return Sample((perf_counter() - wall) / total, (process_time() - cpu) / total)
    finally:
        gc.unfreeze()


def interleaved(runs: dict[str, Callable[[], Sample]], rounds: int) -> dict[str, list[Sample]]:
    """Run every contestant once per round, each round beginning with another one."""
    samples: dict[str, list[Sample]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            samples[name].append(runs[name]())
    return samples


def ratio(samples: list[Sample], base: list[Sample]) -> Ratio:
    """Compare round by round."""
    walls = [one.wall / other.wall for one, other in zip(samples, base, strict=True)]
    cpus = [one.cpu / other.cpu for one, other in zip(samples, base, strict=True)]
    return Ratio(median(walls), min(walls), median(cpus), min(cpus))

"""Run histories: `python -m tests.simulation --seeds 1000 --start 0 --jobs 2`."""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def main() -> int:
    """Run, print what was found, and return 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many histories")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--list", default="", help="these seeds, with commas between them, one by one")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--ignore", default="", help="invariants to leave out, with commas between them")
    parser.add_argument("--only", default="", help="invariants to look at, with commas between them")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first violation: count them")
    parser.add_argument("--no-shrink", action="store_true", help="print a failing history as it is")
    parser.add_argument("--show", action="store_true", help="print each history")
    parser.add_argument("--without", default="", help="words of history.LATER to leave out, with commas between them")
    parser.add_argument("--mutant", default="", help="put one fault back first: a name of mutants.py")
    arguments = parser.parse_args()
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SESSION_REUSE_")}
    plain["PYTHONHASHSEED"] = "0"
    if plain != os.environ:
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], plain)
    return Runs(arguments).run()


def start_worker(mutant: str = "") -> None:
    """Prepare a process that runs histories."""
    from tests.simulation import seams
    from tests.simulation.world import World

    logging.getLogger("session_reuse").setLevel(logging.CRITICAL + 1)
    logging.getLogger("session_reuse").addHandler(logging.NullHandler())
    World.room = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
    seams.patch()
    seams.without_disk_sync()
    if mutant:
        from tests.simulation.mutants import MUTANTS

        MUTANTS[mutant].apply()
    gc.collect()
    gc.freeze()
    gc.disable()


def run_seed(  # type: ignore[no-untyped-def]
    seed: int, ignored: frozenset[str] = frozenset(), without: frozenset[str] = frozenset(), *, count_all: bool = False
):
    """Run one history, drawn from its seed."""
    from tests.simulation.history import draw
    from tests.simulation.world import World

    result = World(draw(seed, without), ignored, count_all=count_all).run()
    if seed % 50 == 0:
        gc.collect()
    return result


def _chunk(task: tuple[int, int, frozenset[str], frozenset[str], bool]) -> list[tuple[int, str, str]]:
    first, count, ignored, without, count_all = task
    return [
        (seed, violation.kind, str(violation))
        for seed in range(first, first + count)
        for violation in run_seed(seed, ignored, without, count_all=count_all).violations
    ]


class Runs:
    """Many histories, and what came of them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from tests.simulation.oracle import Oracle

        self.arguments = arguments
        kinds = set(_kinds(Oracle))
        ignored = set(filter(None, arguments.ignore.split(",")))
        if arguments.only:
            ignored |= kinds - set(arguments.only.split(","))
        self.ignored = frozenset(ignored)
        self.without = frozenset(filter(None, arguments.without.split(",")))
        self.failed: list[tuple[int, str, str]] = []

    def run(self) -> int:
        """Run all."""
        arguments, began = self.arguments, time.perf_counter()
        start_worker(arguments.mutant)
        done = self._one_by_one() if arguments.jobs == 1 else self._side_by_side()
        took = time.perf_counter() - began
        rate = done / took
        _tell(
            f"{done} histories in {took:.1f} s ({took / max(1, done) * 1000:.1f} ms each, {rate * 3600:,.0f} an hour), {len({seed for seed, *_ in self.failed})} broken"
        )
        counts = Counter(kind for _, kind, _ in self.failed)
        for kind, count in counts.most_common():
            found = [(seed, text) for seed, of, text in self.failed if of == kind]
            _tell(f"  {kind:10} {count:6}   first seed {found[0][0]}: {found[0][1]}")
            if len(found) > 1:
                _tell(f"{'':21}also", ", ".join(str(seed) for seed, _ in found[1:20]))
        return 1 if self.failed else 0

    def _one_by_one(self) -> int:
        arguments = self.arguments
        seeds = [int(seed) for seed in arguments.list.split(",") if seed]
        seeds = seeds or list(range(arguments.start, arguments.start + arguments.seeds))
        for done, seed in enumerate(seeds, 1):
            result = run_seed(seed, self.ignored, self.without, count_all=arguments.keep_going)
            if arguments.show:
                _tell(result.text(), "\n")
            self.failed += [(seed, violation.kind, str(violation)) for violation in result.violations]
            if self.failed and not arguments.keep_going:
                self._explain(seed)
                return done
        return len(seeds)

    def _side_by_side(self) -> int:
        arguments, size = self.arguments, 50
        tasks = [
            (
                start,
                min(size, arguments.start + arguments.seeds - start),
                self.ignored,
                self.without,
                arguments.keep_going,
            )
            for start in range(arguments.start, arguments.start + arguments.seeds, size)
        ]
        done = 0
        with ProcessPoolExecutor(
            arguments.jobs, get_context("spawn"), initializer=start_worker, initargs=(arguments.mutant,)
        ) as pool:
            for task, found in zip(tasks, pool.map(_chunk, tasks), strict=True):
                done += task[1]
                self.failed += found
                if found and not arguments.keep_going:
                    self._explain(found[0][0])
                    pool.shutdown(cancel_futures=True)
                    return done
        return done

    def _explain(self, seed: int) -> None:
        from tests.simulation.history import draw
        from tests.simulation.shrink import shrunk
        from tests.simulation.world import World

        history = draw(seed, self.without)
        result = World(history, self.ignored).run() if self.arguments.no_shrink else shrunk(history, self.ignored)
        _tell(result.text(), "\n")


def _tell(*lines: str) -> None:
    sys.stdout.write(" ".join(lines) + "\n")


def _kinds(oracle: type) -> list[str]:
    module = sys.modules[oracle.__module__]
    return [line.split("`")[1] for line in (module.__doc__ or "").splitlines() if line.startswith("`")]


if __name__ == "__main__":
    # By its name: a process that is started looks its functions up there.
    sys.exit(importlib.import_module("tests.simulation.__main__").main())

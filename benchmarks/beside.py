"""CPU of a cycle of this checkout, as a multiple of that of another checkout, such as an older commit.

    git worktree add ../older COMMIT
    python benchmarks/beside.py ../older [--rounds 9] [--sizes "2 KB,20 KB"] [--tasks 8,128] [--json FILE]

Each checkout runs in its own process over the same server, with this environment's libraries, and they take turns. A cycle is
that of compare.py: one restore and one save of a task's own session, of which one cookie changes. Only public names are used.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
WORKER: Final = "worker"
_CYCLES: Final = 512
_PATIENT: Final = {"attempt_timeout": 5.0, "connect_timeout": 5.0, "restore_timeout": 10.0, "save_timeout": 20.0}


class _Checkout:
    """A process that runs cycles of one checkout."""

    def __init__(self, folder: Path, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, WORKER, url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder.resolve())},
        )  # fmt: skip
        assert self._process.stdout is not None
        used = Path(self._process.stdout.readline().strip())
        if used.parents[1] != folder.resolve():
            self.close()
            raise SystemExit(f"{used} would be measured, not the package of {folder}")

    def measure(self, state: dict[str, Any], tasks: int) -> float:
        """Return the CPU seconds of a cycle."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([state, tasks]) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=60)


async def work(url: str) -> None:
    """Be a worker: for each line of state and number of tasks, print what a cycle takes."""
    import gc
    from time import process_time

    import session_reuse
    from session_reuse import SessionManager, reusable_session

    print(session_reuse.__file__, flush=True)
    async with SessionManager(url, registry=None, encryption_keys=bytes(32), **_PATIENT) as manager:
        for line in sys.stdin:
            state, tasks = json.loads(line)
            case = f"{len(line)}-{tasks}"

            async def agent(task: int, times: int, case: str = case, state: dict[str, Any] = state) -> None:
                for _ in range(times):
                    async with reusable_session(f"{case}/{task}", f"agent-{task}", manager=manager) as session:
                        if not session.reused:
                            session.storage_state = json.loads(json.dumps(state))
                        session.storage_state["cookies"][0]["value"] = os.urandom(16).hex()

            await asyncio.gather(*(agent(task, 2) for task in range(tasks)))
            gc.collect()
            began, each = process_time(), max(1, _CYCLES // tasks)
            await asyncio.gather(*(agent(task, each) for task in range(tasks)))
            print((process_time() - began) / (each * tasks), flush=True)


def measure(
    other: Path, *, quick: bool = False, rounds: int = 9, sizes: str = "2 KB,20 KB", tasks: str = "8,128"
) -> Any:
    """Measure both, in turns."""
    from benchmarks.reporting import number, table
    from benchmarks.states import SIZES, made_state
    from tests.harness.servers import RedisServer

    found, rows = {}, []
    with RedisServer() as server, ExitStack() as opened:
        both: dict[str, _Checkout] = {}
        for database, (name, folder) in enumerate((("this", ROOT), ("other", other))):
            both[name] = _Checkout(folder, f"{server.url.rpartition('/')[0]}/{database}")
            opened.callback(both[name].close)
        for size in sizes.split(","):
            for count in map(int, tasks.split(",")):
                pairs = []
                for turn in range(2 if quick else rounds):
                    order = list(both) if turn % 2 else list(both)[::-1]
                    took = {name: both[name].measure(made_state(SIZES[size]), count) for name in order}
                    pairs.append((took["this"], took["other"]))
                found[f"{size}, {count} tasks"] = pairs
                ratio = median(this / beside for this, beside in pairs)
                ours, theirs = (median(column) * 1e6 for column in zip(*pairs, strict=True))
                rows.append((size, str(count), number(ours), number(theirs), f"{ratio:.2f}"))
    table("CPU of a cycle", ("size", "tasks", "this, µs", "other, µs", "this / other"), rows)
    return found, []


def main() -> int:
    """Read the command line."""
    sys.path.insert(0, str(ROOT))
    from functools import partial

    from benchmarks.reporting import command

    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        return 0 if sys.argv[1:2] in (["--help"], ["-h"]) else 2
    other = Path(sys.argv.pop(1))
    return command(__doc__, partial(measure, other))


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        asyncio.run(work(sys.argv[2]))
    else:
        raise SystemExit(main())

"""What a cycle asks of the server: commands, bytes in and out, bytes stored, CPU time of the server itself.

    python benchmarks/wire.py [--quick] [--size "20 KB"] [--tasks 64] [--json FILE]

Commands are counted by MONITOR, without those that scripts run. Bytes and CPU by INFO, in interleaved rounds. What INFO
counts for its own connection is taken off. Server CPU is the sum of user and system time and is coarse: read the ratio.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.reporting import Goal, Results, command, number, table
from benchmarks.rounds import timed
from benchmarks.states import SIZES, made_state
from tests.harness.servers import RedisServer

BASE: Final = "naive GET+SET"
_EACH: Final = 8


@dataclass(frozen=True, slots=True)
class Cost:
    """What the server saw of one cycle: bytes, and its own µs of CPU time."""

    received: float
    sent: float
    cpu: float

    @property
    def bytes(self) -> float:
        """Bytes in both directions."""
        return self.received + self.sent


def _read(server: RedisServer) -> tuple[float, float, float]:
    with server.client() as client:
        found = client.info("everything")
    return (
        found["total_net_input_bytes"],
        found["total_net_output_bytes"],
        1e6 * (found["used_cpu_user"] + found["used_cpu_sys"]),
    )


async def cost(contestant: Contestant, server: RedisServer, state: dict[str, Any], tasks: int) -> Cost:
    """Run some cycles and return the server's cost of one."""
    await contestant.open(server.url, state)
    await timed(contestant.cycle, tasks, 1)
    idle = [after - before for before, after in zip(_read(server), _read(server), strict=True)]
    before = _read(server)
    cycles = tasks * _EACH
    for _ in range(_EACH):
        await asyncio.gather(*(contestant.cycle(task) for task in range(tasks)))
    spent = [(after - first - own) / cycles for after, first, own in zip(_read(server), before, idle, strict=True)]
    await contestant.close()
    return Cost(*spent)


async def commands(contestant: Contestant, server: RedisServer, state: dict[str, Any]) -> dict[str, int]:
    """Return the client commands of one cycle that finds a session, by name."""
    await contestant.open(server.url, state)
    await contestant.cycle(0)
    await contestant.cycle(0)
    async with server.monitor() as monitor:
        await contestant.cycle(0)
    await contestant.close()
    return dict(Counter(monitor.names))


def stored_bytes(server: RedisServer) -> dict[str, int]:
    """Return the memory that one session takes in Redis, naive and ours."""
    with server.client() as client:
        keys = {"naive GET+SET": "naive:0", "ours": "browser:session:site/0"}
        return {name: int(client.memory_usage(key) or 0) for name, key in keys.items()}


def measure(*, quick: bool = False, size: str = "20 KB", tasks: int = 64) -> Results:
    """Measure all contestants in interleaved rounds."""
    state = made_state(SIZES[size])
    costs: dict[str, list[Cost]] = {name: [] for name in CONTESTANTS}
    with RedisServer() as server:
        for _ in range(1 if quick else 9):
            for name, kind in CONTESTANTS.items():
                costs[name].append(asyncio.run(cost(kind(), server, state, tasks)))
        asked = {name: asyncio.run(commands(kind(), server, state)) for name, kind in CONTESTANTS.items()}
        stored = stored_bytes(server)
    _show(f"Server's view of one cycle, {size}, {tasks} tasks", costs, asked)
    table("Memory of one session in Redis", ("", "bytes"), [(name, str(count)) for name, count in stored.items()])
    numbers = {name: [asdict(one) for one in found] for name, found in costs.items()}
    return {"costs": numbers, "commands": asked, "stored": stored}, goals_of(size, costs, stored)


def goals_of(size: str, costs: dict[str, list[Cost]], stored: dict[str, int]) -> list[Goal]:
    """Return the goals with what was measured."""
    return [
        Goal(f"bytes on the wire / naive, {size}", 0.5, _ratio(costs, "ours", "bytes")),
        Goal(f"bytes in Redis / naive, {size}", 0.5, stored["ours"] / stored["naive GET+SET"]),
        Goal(f"server CPU / naive, {size}", 0.7, _ratio(costs, "ours", "cpu")),
    ]


def _ratio(costs: dict[str, list[Cost]], name: str, what: str) -> float:
    return median(getattr(one, what) / getattr(base, what) for one, base in zip(costs[name], costs[BASE], strict=True))


def _show(title: str, costs: dict[str, list[Cost]], asked: dict[str, dict[str, int]]) -> None:
    rows = []
    for name, found in costs.items():
        values = [median(getattr(one, what) for one in found) for what in ("received", "sent", "cpu")]
        ratios = [f"{_ratio(costs, name, what):.2f}" for what in ("bytes", "cpu")]
        said = " ".join(f"{command}x{count}" if count > 1 else command for command, count in asked[name].items())
        rows.append((name, *(number(round(value)) for value in values), *ratios, said))
    table(title, ("contestant", "bytes in", "bytes out", "CPU µs", "bytes ratio", "CPU ratio", "commands"), rows)


if __name__ == "__main__":
    sys.exit(command(__doc__, measure))

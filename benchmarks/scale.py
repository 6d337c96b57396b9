"""What many agents and sessions need: measured for one session, one cycle and one process, and multiplied.

    python benchmarks/scale.py [--agents 100000] [--sessions 10000000] [--minutes 5] [--saves 10] [--quick] [--json FILE]

Measured here, on its own server, with encryption and compression on: memory of the server for each stored session, with
all its side keys (INFO memory), CPU and bytes of the server for each cycle (INFO), the client's CPU for each cycle, and the
connections of one process. Computed from that: what so many agents need, when each stays for so many minutes and saves so
often meanwhile. Each save is counted as a whole cycle, so the figures are upper bounds.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from statistics import median
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.contestants import Ours, OursUnchanged
from benchmarks.reporting import Results, command, number, table
from benchmarks.rounds import timed
from benchmarks.states import SIZES, made_state
from benchmarks.wire import Cost, cost
from tests.harness.servers import RedisCluster, RedisServer

_SIZES: Final = ("2 KB", "20 KB", "200 KB")
_TASKS: Final = 64
_FULL: Final = 0.7
"""The share of a node's memory, and of its one core, that is to be used at most."""
_NODE_GB: Final = 25
"""A common size: a fork to rewrite the append-only file or for a full synchronisation still fits beside it."""


async def _store(url: str, size: str, count: int) -> None:
    contestant = Ours()
    await contestant.open(url, made_state(SIZES[size]))
    for start in range(0, count, 100):
        await asyncio.gather(*(contestant.cycle(task) for task in range(start, min(count, start + 100))))
    await contestant.close()


def memory_of_a_session(size: str, count: int) -> float:
    """Return the bytes of the server for one session with its side keys, by INFO memory."""
    with RedisServer() as server, server.client() as client:
        asyncio.run(_store(server.url, size, 1))  # scripts are loaded, and the first keys of the index are there
        before = client.info("memory")["used_memory"]
        asyncio.run(_store(server.url, size, count))
        return float((client.info("memory")["used_memory"] - before) / count)


async def _client_cpu(kind: type[Ours], url: str, size: str) -> float:
    contestant = kind()
    await contestant.open(url, made_state(SIZES[size]))
    try:
        return 1e6 * (await timed(contestant.cycle, _TASKS, 8)).cpu
    finally:
        await contestant.close()


def costs(size: str, rounds: int) -> dict[str, tuple[Cost, float]]:
    """Return what the server and the client spend on one cycle, changed and unchanged."""
    found = {}
    with RedisServer() as server:
        for kind in (Ours, OursUnchanged):
            seen = [asyncio.run(cost(kind(), server, made_state(SIZES[size]), _TASKS)) for _ in range(rounds)]
            client = [asyncio.run(_client_cpu(kind, server.url, size)) for _ in range(rounds)]
            middle = [median(getattr(one, part) for one in seen) for part in ("received", "sent", "cpu")]
            found["changed" if kind is Ours else "unchanged"] = Cost(*middle), median(client)
    return found


async def _in_use(url: str, agents: int, servers: list[RedisServer]) -> list[tuple[int, int]]:
    contestant = Ours()
    await contestant.open(url, made_state(SIZES["200 KB"]))
    for _ in range(2):
        await asyncio.gather(*(contestant.cycle(task) for task in range(agents)))
    found = []
    for server in servers:
        with server.client() as client:
            # A replica's link and the connection that asks are none of the process.
            own = [each for each in client.client_list(_type="normal") if each["cmd"] != "client|list"]
            found.append((len(own), max(int(each["tot-mem"]) for each in own)))
    await contestant.close()
    return found


def connections(agents: int) -> dict[str, list[tuple[int, int]]]:
    """Return how many connections one process with so many agents has to each server, and the most bytes one takes there."""
    with RedisServer() as server:
        one = asyncio.run(_in_use(server.url, agents, [server]))
    with RedisCluster() as cluster:
        return {
            "one server": one,
            "each primary of a Cluster": asyncio.run(_in_use(cluster.url, agents, cluster.nodes[:3])),
        }


def measure(
    *, quick: bool = False, agents: int = 100_000, sessions: int = 10_000_000, minutes: float = 5.0, saves: float = 10.0
) -> Results:
    """Measure, and multiply."""
    sizes, rounds, count = (_SIZES[:2], 1, 200) if quick else (_SIZES, 5, 3000)
    memory = {size: memory_of_a_session(size, count if size != "200 KB" else count // 10) for size in sizes}
    spent = {size: costs(size, rounds) for size in sizes}
    used = connections(50 if quick else 500)
    rows = []
    for size, kinds in spent.items():
        for kind, (server, client) in kinds.items():
            row = [number(round(value)) for value in (server.received, server.sent, server.cpu, client, memory[size])]
            rows.append((f"{size}, {kind}", *row))
    heads = ("one cycle", "bytes in", "bytes out", "server CPU µs", "client CPU µs", "bytes stored")
    table("Measured for one session", heads, rows)
    rows = [(place, *map(str, max(each))) for place, each in used.items()]
    table("Connections of one process", ("to", "connections", "bytes of the server for one"), rows)
    needs = {
        size: _needs(agents * saves / (60 * minutes), sessions, memory[size], *spent[size]["changed"]) for size in sizes
    }
    title = f"Computed: {agents:,} agents of {minutes:g} minutes and {saves:g} saves each, {sessions:,} sessions"
    table(title, ("", *sizes), [(what, *(number(needs[size][what]) for size in sizes)) for what in needs[sizes[0]]])
    return {"memory": memory, "connections": used, "needs": needs}, []


def _needs(cycles: float, sessions: int, memory: float, server: Cost, client: float) -> dict[str, float]:
    gigabytes = sessions * memory / 1e9
    cores = cycles * server.cpu / 1e6
    return {
        "cycles a second": cycles,
        "memory of all primaries, GB": gigabytes,
        "CPU of all primaries, cores": cores,
        "network of all primaries, Mbit/s": 8 * cycles * server.bytes / 1e6,
        "CPU of the agents' side for this package, cores": cycles * client / 1e6,
        f"primaries of {_NODE_GB} GB": max(1.0, -(-gigabytes // (_NODE_GB * _FULL)), -(-cores // _FULL)),
    }


if __name__ == "__main__":
    sys.exit(command(__doc__, measure))

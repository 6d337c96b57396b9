"""The real thing for long: agents in real Chromium on three hosts, a Redis Cluster between them, random faults, a report.

    python -m tests.chaos.hours [--minutes 60] [--agents 60] [--rest 60] [--seed N] [--faults NAME,...] [--folder DIR]
                                [--proxies]

Each host is a network namespace with a primary, a replica, one Chromium and a third of the agents (root and /dev/net/tun are
needed. Without them, or with --proxies, TCP proxies stand in front of the servers). Agents share sessions, log in once, and
count upwards in the session's notes, in localStorage and in cookies. Between two visits an agent rests for --rest seconds at
most: as many as the machine needs to have a core to spare, if not given. Faults part a host from the others, delay and lose
packets, kill and freeze servers, promote replicas, move slots, freeze a host's Python and kill browsers.

Fails when a state is of another session, a confirmed item is older than it was (unless the primary that confirmed it was
replaced at that time: Redis replicates asynchronously), a save is lost, less than 0.8 is reused, or Python's memory grows.
Writes `report.json` and `report.png`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from session_reuse import SessionManager
from tests.chaos.hours.cluster import Cluster
from tests.chaos.hours.host import KEY, Task
from tests.chaos.hours.network import HOSTS, Network, Proxies, best_network
from tests.chaos.hours.report import Report, Struck
from tests.chaos.testbed import PATIENT
from tests.harness.servers import free_port

ROOT: Final = Path(__file__).parents[3]
_CALM: Final = (5.0, 15.0)
"""Seconds between two faults, at least and at most."""
_VISIT_CPU: Final = 2.0
"""Four times the seconds of CPU that a visit takes, browser and servers included: with such a longest rest half of a machine is used."""
_PATIENCE: Final = 300.0
"""Seconds in which a host starts, and ends."""

Fault = Callable[["Run"], Awaitable[str]]


class Run:
    """One run."""

    def __init__(
        self, network: Network, folder: Path, *, minutes: float, agents: int, rest: float, seed: int, faults: list[str]
    ) -> None:  # fmt: skip
        self.network, self.folder, self.seed = network, folder, seed
        self.cluster = Cluster(network)
        self.chance = random.Random(seed)
        self.sessions = max(6, agents // 2)
        self.faults = [
            fault for fault in FAULTS if fault.__name__ in faults and (fault is not lose or network.can_lose)
        ]
        self.hosts: list[subprocess.Popen[str]] = []
        self._agents, self._seconds, self._rest = agents, 60 * minutes, rest
        about = {
            "minutes": minutes,
            "agents": agents,
            "rest": rest,
            "sessions": self.sessions,
            "seed": seed,
            "network": network.describes,
        }
        self.report = Report(about, time.time())

    @property
    def names(self) -> list[str]:
        """The fingerprints of all sessions."""
        return [f"shop.example/user-{account}" for account in range(self.sessions)]

    async def all(self) -> Report:
        """Build, run, heal, check."""
        try:
            async with self.network:
                await self.cluster.build()
                await self._start_hosts()
                self.report.began = time.time()
                await self._inject_until(time.monotonic() + self._seconds)
                await self.network.heal()
                await self._end_hosts()
                self._read_events()
                await self._check_the_store()
        finally:
            for host in self.hosts:
                host.kill()
            self.cluster.close()
        return self.report

    async def _start_hosts(self) -> None:
        port = free_port()
        for host in range(HOSTS):
            task = Task(
                host, self.cluster.url, list(range(host, self._agents, HOSTS)), self.sessions,
                list(range(host, self.sessions, HOSTS)), self.seed, self._rest, port, str(self._log(host)),
            )  # fmt: skip
            words = self.network.words(host, sys.executable, "-m", "tests.chaos.hours.host", json.dumps(asdict(task)))
            self.hosts.append(self._started(words, self.folder / f"host-{host}.log"))
        for host in self.hosts:
            async with asyncio.timeout(_PATIENCE):
                await asyncio.to_thread(self._wait_ready, host)
        for host in range(HOSTS):
            self.say(host, "go")

    @staticmethod
    def _started(words: list[str], log: Path) -> subprocess.Popen[str]:
        with log.open("w") as errors:
            return subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT
            )

    @staticmethod
    def _wait_ready(host: subprocess.Popen[str]) -> None:
        assert host.stdout is not None
        if host.stdout.readline().strip() != "ready":
            raise RuntimeError("a host ended early; its log is in the folder")

    def say(self, host: int, word: str) -> None:
        """Write a word to a host."""
        process = self.hosts[host]
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(f"{word}\n")
            process.stdin.flush()

    async def _inject_until(self, end: float) -> None:
        while True:
            await asyncio.sleep(min(self.chance.uniform(*_CALM), max(0.0, end - time.monotonic())))
            if end - time.monotonic() < _CALM[1]:
                return
            fault = self.chance.choice(self.faults)
            struck = Struck(fault.__name__, time.time(), may_lose=fault in LOSING)
            self.report.faults.append(struck)
            try:
                detail = await fault(self)
                await self.network.heal()
                await self.cluster.whole()
                await self._spread()
            except TimeoutError as error:
                self.report.broken.append(f"after {fault.__name__}: {error}")
                return
            struck.ended = time.time()
            print(f"{(time.time() - self.report.began) / 60:5.1f} min  {fault.__name__}: {detail}", flush=True)  # noqa: T201

    async def _spread(self) -> None:
        """Promote replicas until each host has a primary again: with two on one host, its partition would be an outage."""
        for node in await asyncio.to_thread(lambda: list(self.cluster.spread())):
            await asyncio.to_thread(node.cluster, "FAILOVER")
            await self.cluster.eventually(lambda node=node: node.is_primary, "a replica is promoted")
            await self.cluster.whole()

    async def _end_hosts(self) -> None:
        for host in range(HOSTS):
            self.say(host, "stop")
        for host in self.hosts:
            try:
                await asyncio.to_thread(host.wait, _PATIENCE)
            except subprocess.TimeoutExpired:
                self.report.broken.append("a host did not end")
            if host.returncode:
                self.report.broken.append(f"a host ended with status {host.returncode}; its log is in the folder")

    def _log(self, host: int) -> Path:
        return self.folder / f"events-{host}.jsonl"

    def _read_events(self) -> None:
        for host in range(HOSTS):
            lines = self._log(host).read_text("utf-8").splitlines()
            self.report.events += [{**json.loads(line), "host": host} for line in lines]
        self.report.events.sort(key=lambda event: event["t"])

    async def _check_the_store(self) -> None:
        """Compare what every host has confirmed with the stored state."""
        found: dict[str, Any] = {}
        async with SessionManager(self.cluster.url, registry=None, encryption_keys=(KEY,), **PATIENT) as manager:
            for name in self.names:
                found[name] = await manager.restore(name)
        for end in self.report.of("end"):
            for name, key, confirmed, _written, at in end["items"]:
                number = _stored(found[name], key)
                if number < confirmed:
                    self.report.at_the_end.append(
                        {"name": name, "key": key, "found": number, "confirmed": confirmed, "at": at}
                    )


def _stored(session: Any, key: str) -> int:
    if session is None:
        return 0
    agent = key.removeprefix("browser:")
    if agent == key:
        return int(session.data.get(key, 0))
    items = [item for entry in session.storage_state["origins"] for item in entry.get("localStorage", ())]
    return max((int(item["value"]) for item in items if item["name"] == agent), default=0)


# Faults -----------------------------------------------------------------------------------------------------------------


async def part(run: Run) -> str:
    """Part one host from the others."""
    host, lasts = run.chance.randrange(HOSTS), run.chance.uniform(2.0, 15.0)
    await run.network.isolate(host)
    await asyncio.sleep(lasts)
    return f"host {host + 1}, {lasts:.0f} s"


async def delay(run: Run) -> str:
    """Put the hosts far from one another."""
    seconds, lasts = run.chance.uniform(0.02, 0.12), run.chance.uniform(5.0, 20.0)
    await run.network.disturb(seconds, 0.0)
    await asyncio.sleep(lasts)
    return f"{1000 * seconds:.0f} ms, {lasts:.0f} s"


async def lose(run: Run) -> str:
    """Lose packets between the hosts."""
    share, lasts = run.chance.uniform(0.01, 0.1), run.chance.uniform(5.0, 20.0)
    await run.network.disturb(0.01, share)
    await asyncio.sleep(lasts)
    return f"{100 * share:.0f} % of the packets, {lasts:.0f} s"


async def kill_server(run: Run) -> str:
    """Kill a primary, and start it again later."""
    node = run.chance.choice(await asyncio.to_thread(run.cluster.primaries))
    await asyncio.to_thread(node.kill)
    await asyncio.sleep(lasts := run.chance.uniform(1.0, 15.0))
    node.start()
    return f"on host {node.host + 1}, {lasts:.0f} s"


async def freeze_server(run: Run) -> str:
    """Freeze a primary."""
    node = run.chance.choice(await asyncio.to_thread(run.cluster.primaries))
    node.signal(signal.SIGSTOP)
    await asyncio.sleep(lasts := run.chance.uniform(0.5, 12.0))
    node.signal(signal.SIGCONT)
    return f"on host {node.host + 1}, {lasts:.0f} s"


async def promote(run: Run) -> str:
    """Promote a replica, as an operator does before an upgrade."""
    replicas = [node for node in run.cluster.nodes if node not in await asyncio.to_thread(run.cluster.primaries)]
    node = run.chance.choice(replicas)
    await asyncio.to_thread(node.cluster, "FAILOVER")
    await run.cluster.eventually(lambda: node.is_primary, "a replica is promoted")
    return f"on host {node.host + 1}"


async def move_slots(run: Run) -> str:
    """Move the slots of some sessions to other primaries."""
    keys = [f"browser:session:{name}" for name in run.chance.sample(run.names, len(run.names))]
    moved = await asyncio.to_thread(run.cluster.move_slots, keys, run.chance.randint(1, 5))
    return f"{moved} slots"


async def freeze_host(run: Run) -> str:
    """Freeze the Python of a host, as a laptop that sleeps."""
    host, lasts = run.chance.randrange(HOSTS), run.chance.uniform(1.0, 8.0)
    os.kill(run.hosts[host].pid, signal.SIGSTOP)
    await asyncio.sleep(lasts)
    os.kill(run.hosts[host].pid, signal.SIGCONT)
    return f"host {host + 1}, {lasts:.0f} s"


async def kill_browser(run: Run) -> str:
    """Kill the browser of a host."""
    host = run.chance.randrange(HOSTS)
    run.say(host, "crash")
    return f"on host {host + 1}"


FAULTS: Final[tuple[Fault, ...]] = (
    part, delay, lose, kill_server, freeze_server, promote, move_slots, freeze_host, kill_browser,
)  # fmt: skip
LOSING: Final[frozenset[Fault]] = frozenset({part, lose, kill_server, freeze_server})
"""After these a replica may have replaced a primary that had confirmed more."""


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--agents", type=int, default=60)
    parser.add_argument("--rest", type=float, help="longest time between two visits of an agent, in seconds")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--folder", type=Path, help="where report, events and logs go; a temporary one if not given")
    parser.add_argument(
        "--faults", default=",".join(fault.__name__ for fault in FAULTS), help="names, separated by commas"
    )
    parser.add_argument("--proxies", action="store_true", help="without network namespaces, also where there are some")
    chosen = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # the proxies' cut connections are reported there
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="session-reuse-hours-"))
    folder.mkdir(parents=True, exist_ok=True)
    network = Proxies() if chosen.proxies else best_network()
    print(f"{network.describes}\nseed {chosen.seed}, report in {folder}", flush=True)  # noqa: T201
    rest = chosen.agents * _VISIT_CPU / (os.cpu_count() or 1) if chosen.rest is None else chosen.rest
    run = Run(
        network, folder, minutes=chosen.minutes, agents=chosen.agents, rest=rest, seed=chosen.seed,
        faults=chosen.faults.split(","),
    )  # fmt: skip
    report = asyncio.run(run.all())
    report.write(folder)
    for what, found in report.numbers().items():
        print(f"{what}: {json.dumps(found)}")  # noqa: T201
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())

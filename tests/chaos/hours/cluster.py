"""A Redis Cluster over the hosts: a primary on each, and the replica of another host's primary."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from tests.chaos.hours.network import HOSTS, Network
from tests.harness.servers import free_port, redis_binary

SLOTS: Final = 16384
NODE_TIMEOUT: Final = 3000
"""Milliseconds of silence after which a node counts as failed."""


class Node:
    """One redis-server on a host."""

    def __init__(self, network: Network, host: int, announced: int, port: int) -> None:
        self.network, self.host, self.port, self.announced = network, host, port, announced
        self.address = network.address(host)
        self.folder = Path(tempfile.mkdtemp(prefix="session-reuse-hours-"))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again with what is on its disk."""
        announce = ["--cluster-announce-ip", self.address, "--cluster-announce-port", str(self.announced)]
        words = [
            redis_binary(), "--bind", self.address, "--port", str(self.port), "--protected-mode", "no", "--save", "",
            "--dir", str(self.folder), "--appendonly", "yes", "--appendfsync", "everysec", "--cluster-enabled", "yes",
            "--cluster-node-timeout", str(NODE_TIMEOUT), "--cluster-replica-validity-factor", "0",
            "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", *announce,
            "--cluster-announce-bus-port", str(self.port + 10_000),
        ]  # fmt: skip
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.network.words(self.host, *words), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End it with kill -9."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def close(self) -> None:
        """End it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, *words: Any) -> Any:
        """Run a command on it."""
        with redis.Redis(
            self.address, self.port, socket_timeout=3.0, socket_connect_timeout=3.0, retry=Retry(NoBackoff(), 0)
        ) as client:
            return client.execute_command(*words)

    def cluster(self, *words: Any) -> Any:
        """Run a command of CLUSTER on it."""
        return self.ask("CLUSTER", *words)

    @property
    def name(self) -> str:
        """Its name in the Cluster."""
        return str(self.cluster("MYID"), "ascii")

    @property
    def is_primary(self) -> bool:
        """Whether it says so itself."""
        return self.ask("ROLE")[0] == b"master"


class Cluster:
    """Six nodes on three hosts."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.nodes: list[Node] = []

    @property
    def url(self) -> str:
        """The address that clients are given."""
        return "redis+cluster://" + ",".join(f"{node.address}:{node.announced}" for node in self.nodes)

    async def build(self) -> None:
        """Start the nodes and wait until each slot has a primary and a replica."""
        for number in range(2 * HOSTS):
            port = free_port(bus=True)
            host = number % HOSTS
            self.nodes.append(Node(self.network, host, await self.network.expose(host, port), port))
            self.nodes[-1].start()
        await self.eventually(lambda: all(node.ask("PING") for node in self.nodes), "the nodes answer")
        await asyncio.to_thread(self._introduce)
        await self.eventually(lambda: all(map(self._knows_all, self.nodes)), "the nodes have met")
        for number, replica in enumerate(self.nodes[HOSTS:]):
            await asyncio.to_thread(replica.cluster, "REPLICATE", self.nodes[(number + 1) % HOSTS].name)
        await self.whole()

    def close(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.close()

    def _introduce(self) -> None:
        bounds = [share * SLOTS // HOSTS for share in range(HOSTS + 1)]
        for number, node in enumerate(self.nodes):
            node.cluster("SET-CONFIG-EPOCH", number + 1)
            if number < HOSTS:
                node.cluster("ADDSLOTS", *range(bounds[number], bounds[number + 1]))
            for other in self.nodes[:number]:
                node.cluster("MEET", other.address, other.port, other.port + 10_000)

    def _knows_all(self, node: Node) -> bool:
        lines = node.cluster("NODES").decode().splitlines()
        return len(lines) == len(self.nodes) and not any("handshake" in line or "noaddr" in line for line in lines)

    async def whole(self, timeout: float = 90.0) -> None:
        """Wait until all nodes agree that each slot has a primary and a replica that follows it."""
        await self.eventually(lambda: all(map(self._is_whole, self.nodes)), "the cluster is whole", timeout)

    def _is_whole(self, node: Node) -> bool:
        ranges = node.cluster("SLOTS")
        covered = sum(last - first + 1 for first, last, *_ in ranges)
        role = node.ask("ROLE")
        linked = role[0] == b"master" or role[3] == b"connected"
        state_ok = b"cluster_state:ok" in node.cluster("INFO")
        return state_ok and linked and covered == SLOTS and all(len(servers) > 1 for _, _, *servers in ranges)

    @staticmethod
    async def eventually(condition: Callable[[], bool], what: str, timeout: float = 90.0) -> None:
        """Wait for servers to agree. One that is too busy to answer has not agreed yet."""
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(redis.RedisError, OSError):
                if await asyncio.to_thread(condition):
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout:g} s: {what}")
            await asyncio.sleep(0.3)

    def primaries(self) -> list[Node]:
        """Return the nodes that are primaries now."""
        return [node for node in self.nodes if node.is_primary]

    def spread(self) -> Iterator[Node]:
        """Return replicas to promote, until each host has a primary again."""
        busy = [node.host for node in self.primaries()]
        for node in self.nodes:
            if node.host not in busy and not node.is_primary:
                busy.append(node.host)
                yield node

    def move_slots(self, keys: list[str], count: int) -> int:
        """Move the slots of some keys to another primary, key by key as `redis-cli --cluster reshard` does. Return how many."""
        primaries = self.primaries()
        names = {node.name: node for node in primaries}
        moved = 0
        for slot in list({key_slot(key.encode()) for key in keys})[:count]:
            owner = self._owner(names, slot)
            target = next(node for node in primaries if node is not owner)
            target.cluster("SETSLOT", slot, "IMPORTING", owner.name)
            owner.cluster("SETSLOT", slot, "MIGRATING", target.name)
            while found := owner.cluster("GETKEYSINSLOT", slot, 100):
                owner.ask("MIGRATE", target.address, target.port, "", 0, 5000, "KEYS", *found)
            for node in (target, owner, *(each for each in primaries if each not in (target, owner))):
                node.cluster("SETSLOT", slot, "NODE", target.name)
            moved += 1
        return moved

    @staticmethod
    def _owner(names: dict[str, Node], slot: int) -> Node:
        for first, last, primary, *_ in next(iter(names.values())).cluster("SLOTS"):
            if first <= slot <= last:
                return names[str(primary[2], "ascii")]
        raise LookupError(f"slot {slot} has no node")

"""Networks between hosts that delay, lose and cut on command.

`Namespaces` gives each host its own network: a Linux network namespace with a TUN device. One thread carries the packets
between the devices, and delays and drops them, as netem would, which few kernels for virtual machines have. It needs root
and `/dev/net/tun`. `Proxies` is for machines without: all hosts share loopback, and a TCP proxy stands in front of each
server. It delays and cuts connections, but loses no packets, and parts no server from another.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final, Self

from tests.harness.fault_proxy import Fault, FaultProxy
from tests.harness.servers import HOST

HOSTS: Final = 3
_TUNSETIFF: Final = 0x400454CA
_TUN_WITHOUT_HEADER: Final = 0x1001
_PACKETS: Final = 256
"""How many packets of one device are carried before the others have their turn."""
_MTU: Final = 9000


class Network(ABC):
    """What the hosts are connected by. An async context manager.

    Attributes:
        describes: one line for the report.
        can_lose: whether packets can be lost.
    """

    describes: str
    can_lose: bool

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Build it."""

    @abstractmethod
    async def __aexit__(self, *_: object) -> None:
        """Remove it."""

    @abstractmethod
    def address(self, host: int) -> str:
        """Return the address that servers of a host listen on."""

    @abstractmethod
    def words(self, host: int, *words: str) -> list[str]:
        """Return the command that runs a program on a host."""

    @abstractmethod
    async def expose(self, host: int, port: int) -> int:
        """Return the port that a server of a host is to announce to clients."""

    @abstractmethod
    async def isolate(self, host: int) -> None:
        """Part a host from all others."""

    @abstractmethod
    async def disturb(self, delay: float, loss: float) -> None:
        """Delay what goes between hosts by so many seconds, and lose this share of it."""

    @abstractmethod
    async def heal(self) -> None:
        """End what disturbs."""


def best_network() -> Network:
    """Return a network of namespaces where this machine has them, else one of proxies."""
    return Namespaces() if Namespaces.available() else Proxies()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Namespaces(Network):
    """A network namespace for each host, and one more address for the process that watches."""

    describes = "network namespaces, a thread carries, delays and drops the packets between them"
    can_lose = True

    def __init__(self) -> None:
        self._name = f"sr{os.getpid()}"
        self._subnet = f"10.77.{os.getpid() % 250}"
        self._router = _Router()

    @staticmethod
    def available() -> bool:
        """Return whether this process may make namespaces and TUN devices."""
        name = f"srtry{os.getpid()}"
        try:
            os.close(_tun(name))
            _ip("netns", "add", name)
            _ip("netns", "del", name)
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    async def __aenter__(self) -> Self:
        """Make the namespaces and start to carry packets. The watcher is host `HOSTS`."""
        for host in range(HOSTS + 1):
            device, namespace = f"{self._name}t{host}", self._namespace(host)
            self._router.devices[self._packed(host)] = _tun(device)
            if host < HOSTS:
                _ip("netns", "add", namespace)
                _ip("link", "set", device, "netns", namespace)
            inside = ["-n", namespace] if host < HOSTS else []
            _ip(*inside, "addr", "add", f"{self.address(host)}/24", "dev", device)
            _ip(*inside, "link", "set", device, "mtu", str(_MTU), "up")
            if host < HOSTS:
                _ip(*inside, "link", "set", "lo", "up")
        self._router.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Remove the namespaces. Their devices go with the file descriptors."""
        self._router.stop()
        for host in range(HOSTS):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", self._namespace(host))

    def _namespace(self, host: int) -> str:
        return f"{self._name}h{host}"

    def _packed(self, host: int) -> bytes:
        return bytes(int(part) for part in self.address(host).split("."))

    def address(self, host: int) -> str:
        """Return the host's address in its namespace."""
        return f"{self._subnet}.{host + 1}"

    def words(self, host: int, *words: str) -> list[str]:
        """Return the command in the host's namespace. `ip` becomes the program, so the process id is the program's."""
        return ["ip", "netns", "exec", self._namespace(host), *words]

    async def expose(self, host: int, port: int) -> int:
        """Return the port itself."""
        return port

    async def isolate(self, host: int) -> None:
        """Drop all packets between a host and the others. The watcher still sees it."""
        mine = self._packed(host)
        others = [self._packed(other) for other in range(HOSTS) if other != host]
        self._router.cut = {pair for other in others for pair in ((mine, other), (other, mine))}

    async def disturb(self, delay: float, loss: float) -> None:
        """Delay and lose packets between the hosts."""
        self._router.delay, self._router.loss = delay, loss

    async def heal(self) -> None:
        """Carry all packets at once."""
        self._router.cut = set()
        self._router.delay = self._router.loss = 0.0


def _tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN_WITHOUT_HEADER))
    except OSError:
        os.close(device)
        raise
    return device


class _Router(threading.Thread):
    """Carries packets between TUN devices."""

    def __init__(self) -> None:
        super().__init__(name="router", daemon=True)
        self.devices: dict[bytes, int] = {}
        self.cut: set[tuple[bytes, bytes]] = set()
        self.delay = self.loss = 0.0
        self._stopping = False
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._chance = random.Random()

    def stop(self) -> None:
        """End the thread and remove the devices."""
        self._stopping = True
        self.join()
        for device in self.devices.values():
            os.close(device)

    def run(self) -> None:
        """Carry packets until stopped."""
        poll, number = select.poll(), 0
        for device in self.devices.values():
            poll.register(device, select.POLLIN)
        while not self._stopping:
            patience = self._waiting[0][0] - time.monotonic() if self._waiting else 0.2
            for device, _ in poll.poll(max(0.0, min(0.2, patience)) * 1000):
                number = self._read(device, number)
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, _, device, packet = heapq.heappop(self._waiting)
                self._write(device, packet)

    def _read(self, device: int, number: int) -> int:
        for _ in range(_PACKETS):
            try:
                packet = os.read(device, 65536)
            except BlockingIOError:
                break
            source, target = packet[12:16], packet[16:20]
            number += 1
            self._carry(source, target, packet, number)
        return number

    def _carry(self, source: bytes, target: bytes, packet: bytes, number: int) -> None:
        device = self.devices.get(target)
        if device is None or packet[0] >> 4 != 4 or (source, target) in self.cut:
            return
        watcher = list(self.devices)[-1]
        if watcher in (source, target) or not (self.delay or self.loss):
            self._write(device, packet)
        elif self._chance.random() >= self.loss:
            heapq.heappush(self._waiting, (time.monotonic() + self.delay, number, device, packet))

    @staticmethod
    def _write(device: int, packet: bytes) -> None:
        with contextlib.suppress(OSError):  # the device's queue is full, or its host is going: a packet is lost
            os.write(device, packet)


class Proxies(Network):
    """All hosts on loopback, a proxy in front of each server."""

    describes = "no network namespaces here (they need root and /dev/net/tun): TCP proxies that delay and cut"
    can_lose = False

    def __init__(self) -> None:
        self._proxies: list[tuple[int, FaultProxy]] = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Begin without any."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the proxies."""
        await self._stack.aclose()

    def address(self, host: int) -> str:
        """Return the address of loopback."""
        return HOST

    def words(self, host: int, *words: str) -> list[str]:
        """Return the command itself."""
        return list(words)

    async def expose(self, host: int, port: int) -> int:
        """Put a proxy in front of a server."""
        proxy = await self._stack.enter_async_context(FaultProxy((HOST, port)))
        self._proxies.append((host, proxy))
        return proxy.port

    async def isolate(self, host: int) -> None:
        """Let no byte through to the servers of a host."""
        for of, proxy in self._proxies:
            if of == host:
                await proxy.switch(Fault.BLACK_HOLE)

    async def disturb(self, delay: float, loss: float) -> None:
        """Delay all replies."""
        for _, proxy in self._proxies:
            proxy.latency = delay

    async def heal(self) -> None:
        """Pass all bytes at once."""
        for _, proxy in self._proxies:
            await proxy.heal()


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started. None when it has ended."""
    with contextlib.suppress(OSError):
        lists = [(task / "children").read_text("ascii").split() for task in Path(f"/proc/{pid}/task").iterdir()]
        return [int(word) for words in lists for word in words]
    return []


def memory_of(pid: int, *, below: bool = False) -> int:
    """Return the resident bytes of a process, or with `below` of it and of all that it has started. 0 when it has ended."""
    own = 0
    with contextlib.suppress(OSError):
        own = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return own + (sum(memory_of(child, below=True) for child in children_of(pid)) if below else 0)

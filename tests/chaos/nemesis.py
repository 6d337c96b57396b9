"""The faults of a soak, each over in a few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from tests.harness.fault_proxy import Cut, Fault, FaultProxy
from tests.harness.servers import RedisServer


class HasServer(Protocol):
    """What a fault needs to know of a soak."""

    server: RedisServer


Strike = Callable[[HasServer, list[FaultProxy], float], Awaitable[None]]


async def killed(soak: HasServer, _proxies: list[FaultProxy], lasts: float) -> None:
    """Kill -9 and, later, start."""
    await asyncio.to_thread(soak.server.kill)
    await asyncio.sleep(lasts)
    await asyncio.to_thread(soak.server.start)


async def restarted(soak: HasServer, _proxies: list[FaultProxy], _lasts: float) -> None:
    """An orderly restart."""
    await asyncio.to_thread(soak.server.restart)


async def frozen(soak: HasServer, _proxies: list[FaultProxy], lasts: float) -> None:
    """SIGSTOP."""
    await asyncio.to_thread(soak.server.pause)
    await asyncio.sleep(lasts)
    soak.server.resume()


def network(fault: Fault) -> Strike:
    """Return a loss of the network."""

    async def lost(_soak: HasServer, proxies: list[FaultProxy], lasts: float) -> None:
        for proxy in proxies:
            await proxy.switch(fault)
        await asyncio.sleep(lasts)
        for proxy in proxies:
            await proxy.heal()

    lost.__name__ = fault.value
    return lost


async def slow(_soak: HasServer, proxies: list[FaultProxy], lasts: float) -> None:
    """Replies are late, now and then too late."""
    for proxy in proxies:
        proxy.latency = 0.2
    await asyncio.sleep(lasts)
    for proxy in proxies:
        await proxy.heal()


async def lossy(_soak: HasServer, proxies: list[FaultProxy], lasts: float) -> None:
    """Commands are executed and their replies lost."""
    for proxy in proxies:
        proxy.cut_replies(5, Cut.RESET, times=20)
    await asyncio.sleep(lasts)
    for proxy in proxies:
        await proxy.heal()


async def loading(_soak: HasServer, proxies: list[FaultProxy], lasts: float) -> None:
    """The server says that it is loading."""
    for proxy in proxies:
        proxy.inject(b"-LOADING Redis is loading the dataset in memory\r\n")
    await asyncio.sleep(lasts)
    for proxy in proxies:
        await proxy.heal()


async def disconnected(soak: HasServer, _proxies: list[FaultProxy], _lasts: float) -> None:
    """CLIENT KILL and SCRIPT FLUSH."""

    def kick() -> None:
        with soak.server.client() as client:
            client.script_flush()
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    await asyncio.to_thread(kick)


FAULTS: Final[tuple[Strike, ...]] = (
    killed, restarted, frozen, slow, lossy, loading, disconnected,
    network(Fault.REFUSE), network(Fault.BLACK_HOLE), network(Fault.SYN_BLACK_HOLE), network(Fault.RESET),
)  # fmt: skip

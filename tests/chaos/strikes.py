"""How faults strike a world and how they heal."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import time_machine

from tests.chaos.world import HOST, MINE, NAMES, World
from tests.harness.fault_proxy import Cut, Fault
from tests.harness.polling import until
from tests.harness.probes import breakers_of, pool_of, runtime

Act = Callable[[World], Awaitable[None]]


async def nothing(world: World) -> None:
    """Heals by itself."""


async def kill(world: World) -> None:
    """Kill -9."""
    await asyncio.to_thread(world.server.kill)


async def start(world: World) -> None:
    """Start again on what is on disk."""
    await asyncio.to_thread(world.server.start)


async def kill_and_restart(world: World) -> None:
    """Kill -9, and back at once with the data."""
    await kill(world)
    await start(world)


async def restart_empty(world: World) -> None:
    """Restart without the data."""
    await asyncio.to_thread(lambda: world.server.restart(empty=True))


async def pause(world: World) -> None:
    """SIGSTOP."""
    await asyncio.to_thread(world.server.pause)


async def resume(world: World) -> None:
    """SIGCONT."""
    world.server.resume()


async def stop_and_go(world: World) -> None:
    """SIGSTOP and SIGCONT within the body."""
    await pause(world)
    await resume(world)


def switch(fault: Fault) -> Act:
    """Return a strike of the network."""

    async def strike(world: World) -> None:
        await world.proxy.switch(fault)

    return strike


async def heal_network(world: World) -> None:
    """End all faults of the network."""
    await world.proxy.heal()


def late(seconds: float) -> Act:
    """Return a strike that makes replies late."""

    async def strike(world: World) -> None:
        world.proxy.latency = seconds

    return strike


def cut(how: Cut, times: int | None) -> Act:
    """Return a strike that cuts connections in the middle of a reply."""

    async def strike(world: World) -> None:
        world.proxy.cut_replies(8, how, times=times)

    return strike


async def drip(world: World) -> None:
    """Replies come byte by byte."""
    world.proxy.drip, world.proxy.tick = 1, 0.02


async def flip_a_bit(world: World) -> None:
    """Damage the stored value."""
    key = f"browser:session:{MINE}"
    value = bytearray(await world.admin("GET", key))
    value[-20] ^= 0x10
    await world.admin("SET", key, bytes(value))


async def become_replica(world: World) -> None:
    """The server turns read-only."""
    await world.admin("REPLICAOF", HOST, 1)


async def become_primary(world: World) -> None:
    """The server takes writes again."""
    await world.admin("REPLICAOF", "NO", "ONE")


def config(name: str, value: Any) -> Act:
    """Return a CONFIG SET."""

    async def strike(world: World) -> None:
        await world.admin("CONFIG", "SET", name, value)

    return strike


async def lose_the_disk(world: World) -> None:
    """The data folder is gone, and a snapshot has failed."""
    shutil.rmtree(world.folder / "data")
    await world.admin("BGSAVE")

    async def failed() -> bool:
        return (await world.admin("INFO", "persistence"))["rdb_last_bgsave_status"] == "err"

    await until(failed)


async def change_password(world: World) -> None:
    """A password is asked for from now on."""
    await world.admin("CONFIG", "SET", "requirepass", "another")
    await asyncio.to_thread(_kill_clients, world, "another")


async def take_password_back(world: World) -> None:
    """As before; an operator closes the breakers, which would stay open for ten seconds."""
    await asyncio.to_thread(_run_as, world, "another", "CONFIG", "SET", "requirepass", "")
    _close_breakers(world)


def _run_as(world: World, password: str, *command: Any) -> Any:
    with world.server.client(password=password) as client:
        return client.execute_command(*command)


def _kill_clients(world: World, password: str | None = None) -> None:
    with world.server.client(password=password) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def _close_breakers(world: World) -> None:
    for breaker in breakers_of(world.manager):
        breaker.reset()


async def take_rights(world: World) -> None:
    """Our user may do nothing with keys any more."""
    await world.admin("ACL", "SETUSER", "default", "resetkeys")


async def give_rights(world: World) -> None:
    """As before."""
    await world.admin("ACL", "SETUSER", "default", "allkeys")
    _close_breakers(world)


def answer(reply: bytes, *, greetings: bool = False) -> Act:
    """Return a strike that answers in the server's stead."""

    async def strike(world: World) -> None:
        world.proxy.inject(reply, greetings=greetings)
        if greetings:
            world.proxy.cut(Cut.CLOSE)

    return strike


async def fail_over(world: World) -> None:
    """The replica becomes the primary, the old primary its replica; the name points to the new one."""
    assert world.second is not None
    await world.admin("REPLICAOF", "NO", "ONE", server=world.second)
    await world.admin("REPLICAOF", HOST, world.second.port)
    world.proxy.upstream = (HOST, world.second.port)


async def kill_clients(world: World) -> None:
    """CLIENT KILL."""
    await asyncio.to_thread(_kill_clients, world)


async def fill_up(world: World) -> None:
    """No connection is left on the server: one is held, and only one is allowed."""
    client = world.server.client()
    client.ping()
    world.held.append(client)
    client.execute_command("CONFIG", "SET", "maxclients", 1)
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def let_in(world: World) -> None:
    """Connections are free again."""
    client = world.held.pop()
    client.execute_command("CONFIG", "SET", "maxclients", 1000)
    client.close()


async def take_own_connection(world: World) -> None:
    """Somebody else in the process uses the only connection of the user's client."""
    pool = pool_of(world.manager)
    world.held.append(await pool.get_connection())


async def return_own_connection(world: World) -> None:
    """It is free again."""
    await pool_of(world.manager).release(world.held.pop())


async def client_pause(world: World) -> None:
    """CLIENT PAUSE 400."""
    await world.admin("CLIENT", "PAUSE", 400, "ALL")


def resolver(answer: str) -> Act:
    """Return a change of what the resolver says of the host's name."""

    async def strike(world: World) -> None:
        NAMES[world.name] = answer

    return strike


async def flap(world: World) -> None:
    """300 ms down, 300 ms up, and so on."""

    async def toggle() -> None:
        while world.is_flapping:
            await world.proxy.switch(Fault.REFUSE)
            await asyncio.sleep(0.3)
            await world.proxy.switch(Fault.OK)
            await asyncio.sleep(0.3)

    world.is_flapping = True
    world.background.append(asyncio.create_task(toggle()))
    await until(lambda: world.proxy.fault is Fault.REFUSE)


async def settle_down(world: World) -> None:
    """The network stays up."""
    world.is_flapping = False
    await world.background.pop()  # one that is cancelled while it takes the port would keep it, and answer nobody
    await world.proxy.heal()


async def cancel(world: World) -> None:
    """The agent's task is cancelled."""
    assert world.visiting is not None
    world.visiting.cancel()


def jump(seconds: float) -> Act:
    """Return a jump of the wall clock."""

    async def strike(world: World) -> None:
        traveller = time_machine.travel(time.time() + seconds, tick=True)
        traveller.start()
        world.held.append(traveller)

    return strike


async def jump_back(world: World) -> None:
    """The right time."""
    while world.held:
        world.held.pop().stop()


async def kill_private_server(world: World) -> None:
    """Kill -9 of the embedded server, by its own process id."""
    async with world.direct() as manager:
        await manager.affinity("nobody")
        connection = runtime(manager).connection
        assert connection is not None
        pid = (await connection.client.info("server"))["process_id"]
    os.kill(pid, signal.SIGKILL)

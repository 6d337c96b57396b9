"""How faults are injected into a testbed, and how they heal."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import time_machine

from tests.chaos.testbed import HOST, MINE, NAMES, Testbed
from tests.harness.fault_proxy import Cut, Fault
from tests.harness.polling import until
from tests.harness.probes import breakers_of, pool_of, runtime

Act = Callable[[Testbed], Awaitable[None]]


async def nothing(testbed: Testbed) -> None:
    """Heals on its own."""


async def kill(testbed: Testbed) -> None:
    """Kill -9."""
    await asyncio.to_thread(testbed.server.kill)


async def start(testbed: Testbed) -> None:
    """Start again on what is on disk."""
    await asyncio.to_thread(testbed.server.start)


async def kill_and_restart(testbed: Testbed) -> None:
    """Kill -9, and back at once with the data."""
    await kill(testbed)
    await start(testbed)


async def restart_empty(testbed: Testbed) -> None:
    """Restart without the data."""
    await asyncio.to_thread(lambda: testbed.server.restart(empty=True))


async def pause(testbed: Testbed) -> None:
    """SIGSTOP."""
    await asyncio.to_thread(testbed.server.pause)


async def resume(testbed: Testbed) -> None:
    """SIGCONT."""
    testbed.server.resume()


async def stop_and_go(testbed: Testbed) -> None:
    """SIGSTOP and SIGCONT within the body."""
    await pause(testbed)
    await resume(testbed)


def switch(fault: Fault) -> Act:
    """Return an injection of the network."""

    async def inject(testbed: Testbed) -> None:
        await testbed.proxy.switch(fault)

    return inject


async def heal_network(testbed: Testbed) -> None:
    """End all faults of the network."""
    await testbed.proxy.heal()


def late(seconds: float) -> Act:
    """Return an injection that makes replies late."""

    async def inject(testbed: Testbed) -> None:
        testbed.proxy.latency = seconds

    return inject


def cut(how: Cut, times: int | None) -> Act:
    """Return an injection that cuts connections in the middle of a reply."""

    async def inject(testbed: Testbed) -> None:
        testbed.proxy.cut_replies(8, how, times=times)

    return inject


async def drip(testbed: Testbed) -> None:
    """Replies come byte by byte."""
    testbed.proxy.drip, testbed.proxy.tick = 1, 0.02


async def flip_a_bit(testbed: Testbed) -> None:
    """Damage the stored value."""
    key = f"browser:session:{MINE}"
    value = bytearray(await testbed.admin("GET", key))
    value[-20] ^= 0x10
    await testbed.admin("SET", key, bytes(value))


async def become_replica(testbed: Testbed) -> None:
    """The server turns read-only."""
    await testbed.admin("REPLICAOF", HOST, 1)


async def become_primary(testbed: Testbed) -> None:
    """The server takes writes again."""
    await testbed.admin("REPLICAOF", "NO", "ONE")


def config(name: str, value: Any) -> Act:
    """Return a CONFIG SET."""

    async def inject(testbed: Testbed) -> None:
        await testbed.admin("CONFIG", "SET", name, value)

    return inject


async def lose_the_disk(testbed: Testbed) -> None:
    """The data folder was deleted, and a snapshot has failed."""
    shutil.rmtree(testbed.folder / "data")
    await testbed.admin("BGSAVE")

    async def failed() -> bool:
        return (await testbed.admin("INFO", "persistence"))["rdb_last_bgsave_status"] == "err"

    await until(failed)


async def change_password(testbed: Testbed) -> None:
    """A password is asked for from now on."""
    await testbed.admin("CONFIG", "SET", "requirepass", "another")
    await asyncio.to_thread(_kill_clients, testbed, "another")


async def take_password_back(testbed: Testbed) -> None:
    """As before. An operator closes the breakers, which would stay open for ten seconds."""
    await asyncio.to_thread(_run_as, testbed, "another", "CONFIG", "SET", "requirepass", "")
    _close_breakers(testbed)


def _run_as(testbed: Testbed, password: str, *command: Any) -> Any:
    with testbed.server.client(password=password) as client:
        return client.execute_command(*command)


def _kill_clients(testbed: Testbed, password: str | None = None) -> None:
    with testbed.server.client(password=password) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def _close_breakers(testbed: Testbed) -> None:
    for breaker in breakers_of(testbed.manager):
        breaker.reset()


async def take_rights(testbed: Testbed) -> None:
    """Our user may do nothing with keys any more."""
    await testbed.admin("ACL", "SETUSER", "default", "resetkeys")


async def give_rights(testbed: Testbed) -> None:
    """As before."""
    await testbed.admin("ACL", "SETUSER", "default", "allkeys")
    _close_breakers(testbed)


def answer(reply: bytes, *, greetings: bool = False) -> Act:
    """Return an injection that answers in the server's stead."""

    async def inject(testbed: Testbed) -> None:
        testbed.proxy.inject(reply, greetings=greetings)
        if greetings:
            testbed.proxy.cut(Cut.CLOSE)

    return inject


async def fail_over(testbed: Testbed) -> None:
    """The replica becomes the primary, the old primary its replica. The name points to the new one."""
    assert testbed.second is not None
    await testbed.admin("REPLICAOF", "NO", "ONE", server=testbed.second)
    await testbed.admin("REPLICAOF", HOST, testbed.second.port)
    testbed.proxy.upstream = (HOST, testbed.second.port)


async def kill_clients(testbed: Testbed) -> None:
    """CLIENT KILL."""
    await asyncio.to_thread(_kill_clients, testbed)


async def fill_up(testbed: Testbed) -> None:
    """No connection is left on the server: one is held, and only one is allowed."""
    client = testbed.server.client()
    client.ping()
    testbed.held.append(client)
    client.execute_command("CONFIG", "SET", "maxclients", 1)
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def let_in(testbed: Testbed) -> None:
    """Connections are free again."""
    client = testbed.held.pop()
    client.execute_command("CONFIG", "SET", "maxclients", 1000)
    client.close()


async def take_own_connection(testbed: Testbed) -> None:
    """Someone else in the process uses the only connection of the user's client."""
    pool = pool_of(testbed.manager)
    testbed.held.append(await pool.get_connection())


async def return_own_connection(testbed: Testbed) -> None:
    """It is free again."""
    await pool_of(testbed.manager).release(testbed.held.pop())


async def client_pause(testbed: Testbed) -> None:
    """CLIENT PAUSE 400."""
    await testbed.admin("CLIENT", "PAUSE", 400, "ALL")


def resolver(answer: str) -> Act:
    """Return a change of what the resolver says of the host's name."""

    async def inject(testbed: Testbed) -> None:
        NAMES[testbed.name] = answer

    return inject


async def flap(testbed: Testbed) -> None:
    """300 ms down, 300 ms up, and so on."""

    async def toggle() -> None:
        while testbed.is_flapping:
            await testbed.proxy.switch(Fault.REFUSE)
            await asyncio.sleep(0.3)
            await testbed.proxy.switch(Fault.OK)
            await asyncio.sleep(0.3)

    testbed.is_flapping = True
    testbed.background.append(asyncio.create_task(toggle()))
    await until(lambda: testbed.proxy.fault is Fault.REFUSE)


async def settle_down(testbed: Testbed) -> None:
    """The network stays up."""
    testbed.is_flapping = False
    await testbed.background.pop()  # one that is cancelled while it takes the port would keep it, and answer nobody
    await testbed.proxy.heal()


async def cancel(testbed: Testbed) -> None:
    """The agent's task is cancelled."""
    assert testbed.visiting is not None
    testbed.visiting.cancel()


def jump(seconds: float) -> Act:
    """Return a jump of the wall clock."""

    async def inject(testbed: Testbed) -> None:
        traveller = time_machine.travel(time.time() + seconds, tick=True)
        traveller.start()
        testbed.held.append(traveller)

    return inject


async def jump_back(testbed: Testbed) -> None:
    """The right time."""
    while testbed.held:
        testbed.held.pop().stop()


async def kill_private_server(testbed: Testbed) -> None:
    """Kill -9 of the embedded server, by its own process id."""
    async with testbed.direct() as manager:
        await manager.affinity("nobody")
        connection = runtime(manager).connection
        assert connection is not None
        pid = (await connection.client.info("server"))["process_id"]
    os.kill(pid, signal.SIGKILL)

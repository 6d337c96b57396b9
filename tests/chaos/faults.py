"""Every fault of the matrix: how it strikes, how it heals, what each phase must then find. Must never sleep to hit a moment."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import time_machine

from session_reuse.outcome import Outcome, SaveOutcome
from tests.chaos.world import HOST, MINE, NAMES, World
from tests.support.fault_proxy import Cut, Fault
from tests.support.polling import until

Act = Callable[[World], Awaitable[None]]

R: Final = frozenset({Outcome.REUSED})
T: Final = frozenset({Outcome.TIMEOUT})
U: Final = frozenset({Outcome.UNAVAILABLE})
AUTH: Final = frozenset({Outcome.AUTH})
CORRUPT: Final = frozenset({Outcome.CORRUPT})
MISSING: Final = frozenset({Outcome.MISSING})
F: Final = frozenset({Outcome.TIMEOUT, Outcome.UNAVAILABLE, Outcome.CIRCUIT_OPEN})
SAVED: Final = frozenset({SaveOutcome.SAVED, SaveOutcome.MERGED})
PEND: Final = frozenset({SaveOutcome.PENDING})
SKIPPED: Final = frozenset({SaveOutcome.SKIPPED})
EITHER: Final = SAVED | PEND

COLD, WARM, ENTER, BODY, EXIT = PHASES = ("before, cold", "before, warm", "enter", "body", "exit")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one fault must lead to in one phase.

    Attributes:
        enter: outcomes allowed.
        save: save outcomes allowed.
        restarted_empty: the data is gone, so that a fresh session may become the stored one.
        cancelled: the caller is cancelled: CancelledError comes out, and an enter leaves nothing behind.
    """

    enter: frozenset[Outcome] = R
    save: frozenset[SaveOutcome] = SAVED
    restarted_empty: bool = False
    cancelled: bool = False


HIT: Final = Cell()
PENDING: Final = Cell(save=PEND)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault.

    Attributes:
        strike, heal: begin and end it.
        cells: by phase: what is expected, or why there is nothing to try.
        world: arguments of the `World`.
        breakers_closed: whether the fault must leave both breakers closed; `"read"`: only the one for reads.
        alone: whether it changes something of the whole process, so that nothing may run beside it.
    """

    name: str
    strike: Act
    heal: Act
    cells: dict[str, Cell | str]
    world: dict[str, Any] = field(default_factory=dict)
    breakers_closed: bool | str = False
    alone: bool = False


def _row(name: str, strike: Act, heal: Act, *cells: Cell | str, **more: Any) -> Row:
    return Row(name=name, strike=strike, heal=heal, cells=dict(zip(PHASES, cells, strict=True)), **more)


# How they strike and heal -----------------------------------------------------------------------------------------------


async def nothing(world: World) -> None:
    """Heals by itself."""


async def kill(world: World) -> None:
    """kill -9."""
    await asyncio.to_thread(world.server.kill)


async def start(world: World) -> None:
    """Start again on what is on disk."""
    await asyncio.to_thread(world.server.start)


async def kill_and_restart(world: World) -> None:
    """kill -9, and back at once with the data."""
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
    world.services.guard.read.reset()
    world.services.guard.write.reset()


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
    pool = world.manager._given.connection_pool
    world.held.append(await pool.get_connection())


async def return_own_connection(world: World) -> None:
    """It is free again."""
    await world.manager._given.connection_pool.release(world.held.pop())


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
        while True:
            await world.proxy.switch(Fault.REFUSE)
            await asyncio.sleep(0.3)
            await world.proxy.switch(Fault.OK)
            await asyncio.sleep(0.3)

    world.background.append(asyncio.create_task(toggle()))
    await until(lambda: world.proxy.fault is Fault.REFUSE)


async def settle_down(world: World) -> None:
    """The network stays up."""
    world.background.pop().cancel()
    await world.proxy.heal()


async def cancel(world: World) -> None:
    """The agent's task is cancelled."""
    assert world.visiting is not None
    world.visiting.cancel()


def jump(seconds: float) -> Act:
    """Return a jump of the wall clock."""

    async def strike(world: World) -> None:
        import time

        traveller = time_machine.travel(time.time() + seconds, tick=True)
        traveller.start()
        world.held.append(traveller)

    return strike


async def jump_back(world: World) -> None:
    """The right time."""
    while world.held:
        world.held.pop().stop()


async def kill_private_server(world: World) -> None:
    """kill -9 of the embedded server, by its own process id."""
    async with world.direct() as manager:
        await manager.affinity("nobody")
        connection = manager._connection
        assert connection is not None
        pid = (await connection.client.info("server"))["process_id"]
    os.kill(pid, signal.SIGKILL)


# The table --------------------------------------------------------------------------------------------------------------

_AWAY = (Cell(enter=U, save=PEND), Cell(enter=U, save=PEND), Cell(enter=F, save=PEND), PENDING, PENDING)
_SILENT = (Cell(enter=T, save=PEND), Cell(enter=T, save=PEND), Cell(enter=T, save=PEND), PENDING, PENDING)
_BLIP = (HIT, HIT, HIT, HIT, HIT)
_NO_WRITES = (PENDING, PENDING, PENDING, PENDING, PENDING)
_REFUSING = (Cell(enter=U, save=PEND), Cell(enter=U, save=PEND), Cell(enter=U, save=PEND), PENDING, PENDING)
_DENIED = (Cell(enter=AUTH, save=PEND), Cell(enter=AUTH, save=PEND), Cell(enter=AUTH, save=PEND), PENDING, PENDING)
_MIXED = Cell(enter=R | F, save=EITHER | SKIPPED)
_LATE_HIT = Cell(enter=R | F, save=EITHER | SKIPPED)

ROWS: Final[tuple[Row, ...]] = (
    _row("kill -9, stays down", kill, start, *_AWAY, world={"appendonly": True}),
    _row(
        "kill -9, back with its data", kill_and_restart, nothing,
        HIT, HIT, _LATE_HIT, HIT, Cell(save=EITHER), world={"appendonly": True},
    ),
    _row(
        "restart without data", restart_empty, nothing,
        Cell(enter=MISSING), Cell(enter=MISSING), Cell(enter=MISSING | F, save=EITHER, restarted_empty=True),
        HIT, Cell(save=EITHER),
    ),
    _row("SIGSTOP", pause, resume, *_SILENT),
    _row("SIGSTOP and SIGCONT", stop_and_go, nothing, HIT, HIT, _LATE_HIT, HIT, Cell(save=EITHER)),
    _row("refused", switch(Fault.REFUSE), heal_network, *_AWAY),
    _row("black hole", switch(Fault.BLACK_HOLE), heal_network, *_SILENT),
    _row(
        "SYN black hole", switch(Fault.SYN_BLACK_HOLE), heal_network,
        *_SILENT[:2], "the connection is made before the command: the same as a black hole", PENDING, PENDING,
    ),
    _row("latency 50 ms", late(0.05), heal_network, *_BLIP, breakers_closed=True),
    _row("latency 2 s", late(2.0), heal_network, *_SILENT),
    _row("reset in a reply, once", cut(Cut.RESET, 1), heal_network, *_BLIP, breakers_closed=True),
    _row("reset in every reply", cut(Cut.RESET, None), heal_network, *_AWAY),
    _row("end in a reply, once", cut(Cut.CLOSE, 1), heal_network, *_BLIP, breakers_closed=True),
    _row("end in every reply", cut(Cut.CLOSE, None), heal_network, *_AWAY),
    _row(
        "bit flipped in the value", flip_a_bit, nothing,
        Cell(enter=CORRUPT), Cell(enter=CORRUPT), Cell(enter=CORRUPT), HIT, HIT, breakers_closed=True,
    ),
    _row("drip, 1 byte per 20 ms", drip, heal_network, *_SILENT),
    _row("READONLY", become_replica, become_primary, *_NO_WRITES, breakers_closed="read"),
    _row(
        "out of memory", config("maxmemory", 1), config("maxmemory", 0), *_NO_WRITES, breakers_closed="read",
        world={"server_args": ("--maxmemory-policy", "noeviction")},
    ),
    _row(
        "disk lost (MISCONF)", lose_the_disk, config("stop-writes-on-bgsave-error", "no"),
        *_NO_WRITES, breakers_closed="read", world={"server_args": ("--save", "3600 1", "--dir", "FOLDER/data")},
    ),
    _row("password changed", change_password, take_password_back, *_DENIED),
    _row("rights taken (NOPERM)", take_rights, give_rights, *_DENIED),
    _row("LOADING", answer(b"-LOADING Redis is loading the dataset in memory\r\n"), heal_network, *_REFUSING),
    _row("CLUSTERDOWN", answer(b"-CLUSTERDOWN The cluster is down\r\n"), heal_network, *_REFUSING),
    _row("TRYAGAIN", answer(b"-TRYAGAIN Multiple keys request during rehashing\r\n"), heal_network, *_REFUSING),
    _row("failover", fail_over, nothing, HIT, HIT, HIT, HIT, Cell(save=EITHER), world={"replica": True}),
    _row("CLIENT KILL", kill_clients, nothing, *_BLIP, breakers_closed=True),
    _row("maxclients", fill_up, let_in, *_AWAY),
    _row(
        "own pool exhausted", take_own_connection, return_own_connection,
        Cell(enter=U, save=PEND), *["a lane keeps the connection it has"] * 4, world={"pool": 1}, breakers_closed=True,
    ),
    _row("CLIENT PAUSE 400 ms", client_pause, nothing, *[_LATE_HIT] * 3, Cell(save=EITHER), Cell(save=EITHER)),
    _row(
        "name without address", resolver("unknown"), resolver("known"), Cell(enter=U, save=PEND), HIT,
        "the name is resolved before the command", HIT, HIT, world={"named": True},
    ),
    _row(
        "resolver without answer", resolver("slow"), resolver("known"), Cell(enter=T, save=PEND), HIT,
        "the name is resolved before the command", HIT, HIT, world={"named": True},
    ),
    _row(
        "wrong server (HTTP)", answer(b"HTTP/1.1 400 Bad Request\r\n\r\n", greetings=True), heal_network,
        *_AWAY,
    ),
    _row("flapping, 300 ms", flap, settle_down, *[_MIXED] * 3, Cell(save=EITHER), Cell(save=EITHER)),
    _row(
        "agent cancelled", cancel, nothing, "a task that has not begun is not ours", "a task that has not begun is not ours",
        Cell(cancelled=True), Cell(cancelled=True), Cell(cancelled=True), breakers_closed=True,
    ),
    _row("clock one hour ahead", jump(3600.0), jump_back, *_BLIP, alone=True, breakers_closed=True),
    _row("clock one hour behind", jump(-3600.0), jump_back, *_BLIP, alone=True, breakers_closed=True),
    _row(
        "embedded server killed", kill_private_server, nothing, _LATE_HIT, _LATE_HIT,
        "no proxy stands before a private socket", Cell(save=EITHER), "no proxy stands before a private socket",
        world={"embedded": True},
    ),
    _row(
        "spool unwritable", kill, start, "nothing is spooled at enter", "nothing is spooled at enter",
        "nothing is spooled at enter", PENDING, PENDING,
        world={"appendonly": True, "config": {"spool_dir": "a-file/spool", "encryption_keys": (b"k" * 32,)}},
    ),
)  # fmt: skip

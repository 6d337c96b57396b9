"""Every fault of the matrix, and what each phase must then find."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from session_reuse.outcome import Outcome, SaveOutcome
from tests.chaos.fault_injection import (
    Act,
    answer,
    become_primary,
    become_replica,
    cancel,
    change_password,
    client_pause,
    config,
    cut,
    drip,
    fail_over,
    fill_up,
    flap,
    flip_a_bit,
    give_rights,
    heal_network,
    jump,
    jump_back,
    kill,
    kill_and_restart,
    kill_clients,
    kill_private_server,
    late,
    let_in,
    lose_the_disk,
    nothing,
    pause,
    resolver,
    restart_empty,
    resume,
    return_own_connection,
    settle_down,
    start,
    stop_and_go,
    switch,
    take_own_connection,
    take_password_back,
    take_rights,
)
from tests.harness.fault_proxy import Cut, Fault

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
        cancelled: the caller is cancelled: CancelledError comes out, and an enter leaves nothing behind.
    """

    enter: frozenset[Outcome] = R
    save: frozenset[SaveOutcome] = SAVED
    cancelled: bool = False


HIT: Final = Cell()
PENDING: Final = Cell(save=PEND)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault.

    Attributes:
        inject, heal: begin and end it.
        cells: by phase: what is expected, or why there is nothing to try.
        testbed: arguments of the `Testbed`.
        breakers_closed: whether the fault must leave both breakers closed. `"read"`: only the one for reads.
        alone: whether it changes something of the whole process, so that nothing may run beside it.
    """

    name: str
    inject: Act
    heal: Act
    cells: dict[str, Cell | str]
    testbed: dict[str, Any] = field(default_factory=dict)
    breakers_closed: bool | str = False
    alone: bool = False


def _row(name: str, inject: Act, heal: Act, *cells: Cell | str, **more: Any) -> Row:
    return Row(name=name, inject=inject, heal=heal, cells=dict(zip(PHASES, cells, strict=True)), **more)


_AWAY = (Cell(enter=U, save=PEND), Cell(enter=U, save=PEND), Cell(enter=F, save=PEND), PENDING, PENDING)
_SILENT = (Cell(enter=T, save=PEND), Cell(enter=T, save=PEND), Cell(enter=T, save=PEND), PENDING, PENDING)
_BLIP = (HIT, HIT, HIT, HIT, HIT)
_NO_WRITES = (PENDING, PENDING, PENDING, PENDING, PENDING)
_REFUSING = (Cell(enter=U, save=PEND), Cell(enter=U, save=PEND), Cell(enter=U, save=PEND), PENDING, PENDING)
_DENIED = (Cell(enter=AUTH, save=PEND), Cell(enter=AUTH, save=PEND), Cell(enter=AUTH, save=PEND), PENDING, PENDING)
_MIXED = Cell(enter=R | F, save=EITHER | SKIPPED)
_LATE_HIT = Cell(enter=R | F, save=EITHER | SKIPPED)

ROWS: Final[tuple[Row, ...]] = (
    _row("kill -9, stays down", kill, start, *_AWAY, testbed={"appendonly": True}),
    _row(
        "kill -9, back with its data", kill_and_restart, nothing,
        HIT, HIT, _LATE_HIT, HIT, Cell(save=EITHER), testbed={"appendonly": True},
    ),
    _row(
        "restart without data", restart_empty, nothing,
        Cell(enter=MISSING), Cell(enter=MISSING), Cell(enter=MISSING | F, save=EITHER),
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
        testbed={"server_args": ("--maxmemory-policy", "noeviction")},
    ),
    _row(
        "disk lost (MISCONF)", lose_the_disk, config("stop-writes-on-bgsave-error", "no"),
        *_NO_WRITES, breakers_closed="read", testbed={"server_args": ("--save", "3600", "1", "--dir", "FOLDER/data")},
    ),
    _row("password changed", change_password, take_password_back, *_DENIED),
    _row("rights taken (NOPERM)", take_rights, give_rights, *_DENIED),
    _row("LOADING", answer(b"-LOADING Redis is loading the dataset in memory\r\n"), heal_network, *_REFUSING),
    _row("CLUSTERDOWN", answer(b"-CLUSTERDOWN The cluster is down\r\n"), heal_network, *_REFUSING),
    _row("TRYAGAIN", answer(b"-TRYAGAIN Multiple keys request during rehashing\r\n"), heal_network, *_REFUSING),
    _row("failover", fail_over, nothing, HIT, HIT, HIT, HIT, Cell(save=EITHER), testbed={"replica": True}),
    _row("CLIENT KILL", kill_clients, nothing, *_BLIP, breakers_closed=True),
    _row("maxclients", fill_up, let_in, *_AWAY),
    _row(
        "own pool exhausted", take_own_connection, return_own_connection,
        Cell(enter=U, save=PEND), *["a lane keeps the connection it has"] * 4, testbed={"pool": 1}, breakers_closed=True,
    ),
    _row("CLIENT PAUSE 400 ms", client_pause, nothing, *[_LATE_HIT] * 3, Cell(save=EITHER), Cell(save=EITHER)),
    _row(
        "name without address", resolver("unknown"), resolver("known"), Cell(enter=U, save=PEND), HIT,
        "the name is resolved before the command", HIT, HIT, testbed={"named": True},
    ),
    _row(
        "resolver without answer", resolver("slow"), resolver("known"), Cell(enter=T, save=PEND), HIT,
        "the name is resolved before the command", HIT, HIT, testbed={"named": True},
    ),
    _row(
        "wrong server (HTTP)", answer(b"HTTP/1.1 400 Bad Request\r\n\r\n", greetings=True), heal_network,
        *_AWAY,
    ),
    _row("flapping, 300 ms", flap, settle_down, *[_MIXED] * 3, Cell(save=EITHER), Cell(save=EITHER)),
    _row(
        "agent cancelled", cancel, nothing, "a task that has not begun is not ours", "a task that has not begun is not ours",
        Cell(cancelled=True), Cell(cancelled=True), Cell(save=EITHER, cancelled=True), breakers_closed=True,
    ),
    _row("clock one hour ahead", jump(3600.0), jump_back, *_BLIP, alone=True, breakers_closed=True),
    _row("clock one hour behind", jump(-3600.0), jump_back, *_BLIP, alone=True, breakers_closed=True),
    _row(
        "embedded server killed", kill_private_server, nothing, _LATE_HIT, _LATE_HIT,
        "no proxy stands before a private socket", Cell(save=EITHER), "no proxy stands before a private socket",
        testbed={"embedded": True},
    ),
    _row(
        "spool unwritable", kill, start, "nothing is spooled at enter", "nothing is spooled at enter",
        "nothing is spooled at enter", PENDING, PENDING,
        testbed={"appendonly": True, "config": {"spool_dir": "a-file/spool", "encryption_keys": (b"k" * 32,)}},
    ),
)  # fmt: skip

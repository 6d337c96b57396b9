"""What a server reports about itself, and which commands it accepts. `server_checks` judges it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Final

from session_reuse._store.keys import Keys
from session_reuse._store.redis.diagnosis import Diagnosis, Trouble, diagnose
from session_reuse.cli.doctor.wire import Wire

PINGS: Final = 50
SETTINGS: Final = ("notify-keyspace-events", "maxmemory", "maxmemory-policy", "save")
_EVENTS: Final = "__keyevent@0__:expired"
_LIFE: Final = 60_000
"""Milliseconds that a key of the doctor lives if it cannot be removed."""
_HARMLESS: Final = frozenset({Trouble.OTHER, Trouble.IN_CLUSTER})
"""Answers to a command that was allowed: no such key, no such script, the key belongs to another node."""


@dataclass(slots=True, kw_only=True)
class Facts:
    """One server.

    Attributes:
        name: of the server, if there are several.
        reported: the answers to CONFIG GET, INFO and HELLO by name. Many hosted servers forbid some of them.
        latencies: seconds of each read, sorted.
        clock_ahead: seconds by which the server's clock is ahead of ours. None if it is not known.
        refused: for each purpose, the commands that the user may not use.
        outside: whether the keys were refused, and not the commands.
        unknown: commands that the server does not have.
        trouble: why the server refuses writes.
    """

    name: str = ""
    reported: dict[str, str] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    clock_ahead: float | None = None
    refused: dict[str, list[str]] = field(default_factory=dict)
    outside: bool = False
    unknown: list[str] = field(default_factory=list)
    trouble: Diagnosis | None = None

    @property
    def has_info(self) -> bool:
        """Whether the user may use INFO."""
        return "used_memory" in self.reported

    def number(self, name: str) -> int:
        """Return a reported number. 0 if there is none, and for a setting of Dragonfly such as "8.00GiB"."""
        text = self.reported.get(name, "")
        return int(text) if text.isdecimal() else 0


async def facts_of(wire: Wire, keys: Keys, *, audit: bool = False) -> Facts:
    """Return what a server reports, and try every command of agents on keys of the doctor, and of the audit if it is on.

    Raises:
        UnfitError: the server does not answer any more.
    """
    facts = Facts(name=wire.name)
    # One by one: a server may hide one setting and show the others. INFO comes later: its numbers are always numbers.
    for words in (*(("CONFIG", "GET", name) for name in SETTINGS), ("INFO",), ("HELLO", 2)):
        facts.reported |= await wire.ask_for_pairs(*words)
    facts.latencies = await _latencies(wire, keys)
    facts.clock_ahead = await _clock_ahead(wire)
    await _try_commands(wire, keys, facts, audit=audit)
    return facts


async def _latencies(wire: Wire, keys: Keys) -> list[float]:
    # Reads of a missing session: each user of agents has the right to them.
    taken, key = [], keys.session(own_name())
    for _ in range(PINGS):
        began = time.perf_counter()
        await wire.ask("GET", key)
        taken.append(time.perf_counter() - began)
    return sorted(taken)


async def _clock_ahead(wire: Wire) -> float | None:
    began = time.time()
    answer = await wire.ask("TIME")
    if isinstance(answer, Exception):
        return None
    seconds, microseconds = answer
    return int(seconds) + int(microseconds) / 1e6 - (began + time.time()) / 2


# Commands ------------------------------------------------------------------------------------------------------------


def own_name() -> str:
    """Return a new fingerprint for a trial."""
    return f"session-reuse-doctor/{secrets.token_hex(8)}"


def needed_commands(keys: Keys, fingerprint: str, *, audit: bool = False) -> dict[str, list[tuple[str | int, ...]]]:
    """Return the commands for each purpose, those of our scripts included, in an order in which each finds its key."""
    session, lease, tombstone, agents, quarantine, bucket, *_ = names = keys.of(fingerprint)
    staging, agent = names.staging("0"), keys.affinity(fingerprint)
    script: tuple[str | int, ...] = ("return 1", 1, session)
    return {
        "restore": [("GETEX", session), ("GET", session), ("GET", agent)],
        "save": [
            ("SET", staging, "x", "PX", _LIFE), ("SETRANGE", staging, 0, "x"), ("RENAME", staging, session),
            ("EXISTS", session), ("TYPE", session), ("GETRANGE", session, 0, 1), ("PEXPIRE", session, _LIFE),
            ("PTTL", session), ("RENAME", session, quarantine), ("DEL", quarantine), ("EVAL", *script),
            ("EVALSHA", "0" * 40, 1, session), ("TIME",), ("SET", agent, "x", "PX", _LIFE), ("ZADD", agents, 1, "x"),
            ("ZREMRANGEBYRANK", agents, 0, -65), ("PEXPIRE", agents, _LIFE),
            ("ZADD", bucket, 9 * 10**15, fingerprint),  # never due
            ("ZSCORE", bucket, fingerprint), ("GETRANGE", tombstone, 0, 19),
        ],
        "leases": [("SET", lease, "x", "PX", _LIFE), ("GET", lease), ("PEXPIRE", lease, _LIFE), ("DEL", lease)],
        # Redis writes no line with this id.
        "audit": [("XADD", keys.audit, "0-0", "session", fingerprint)] if audit else [],
        "evict": [
            ("SET", tombstone, "x", "PX", _LIFE), ("DEL", tombstone, session), ("ZRANGE", agents, 0, -1), ("DEL", agents),
            ("DEL", agent), ("ZREM", bucket, fingerprint),
        ],
        "ls, stats, top": [("SCAN", 0), ("STRLEN", session), ("GETRANGE", session, 0, 1), ("PTTL", session)],
        "cleanup": [
            ("ZRANGEBYSCORE", bucket, 0, 1), ("ZMSCORE", bucket, fingerprint), ("ZREM", bucket, fingerprint),
            ("ZRANGE", agents, 0, -1), ("SUBSCRIBE", _EVENTS), ("UNSUBSCRIBE", _EVENTS),
        ],
    }  # fmt: skip


async def _try_commands(wire: Wire, keys: Keys, facts: Facts, *, audit: bool) -> None:
    fingerprint = own_name()
    try:
        for purpose, commands in needed_commands(keys, fingerprint, audit=audit).items():
            for words in commands:
                await _try(wire, purpose, words, facts)
                if facts.trouble is not None:  # a server that refuses one write refuses all
                    return
    finally:
        await remove_traces([wire], keys, fingerprint)


async def _try(wire: Wire, purpose: str, words: tuple[str | int, ...], facts: Facts) -> None:
    error = await wire.ask(*words)
    if not isinstance(error, Exception):
        return
    command, found = str(words[0]), diagnose(error)
    if found.trouble is Trouble.RIGHTS:
        refused = facts.refused.setdefault(purpose, [])
        # Redis: "No permissions to access a key", in place of "to run the 'x' command".
        facts.outside = facts.outside or " key" in str(error)
        if command not in refused:
            refused.append(command)
    elif found.trouble is Trouble.UNKNOWN_COMMAND:
        facts.unknown.append(command)
    elif found.trouble not in _HARMLESS:
        facts.trouble = found


async def remove_traces(wires: list[Wire], keys: Keys, fingerprint: str) -> None:
    """Delete every key of a trial. Each node of a Cluster refuses the keys of the other nodes."""
    names = keys.of(fingerprint)
    ours = (names.session, names.lease, names.tombstone, names.agents, names.quarantine, names.staging("0"))
    for wire in wires:
        for key in (*ours, keys.affinity(fingerprint)):
            await wire.ask("DEL", key)
        await wire.ask("ZREM", names.deadlines, fingerprint)

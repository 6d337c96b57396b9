"""What an agent does, done under keys of the doctor's own that are removed again."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final

from session_reuse._api import reusable_session
from session_reuse._manager import SessionManager
from session_reuse._store.keys import Keys
from session_reuse._store.redis.diagnosis import Diagnosis, Trouble, diagnose
from session_reuse.cli.doctor.finding import Finding, fail, ok
from session_reuse.cli.doctor.wire import GONE, Wire
from session_reuse.errors import SessionReuseError
from session_reuse.outcome import SaveOutcome

ESSENTIAL: Final = ("restore", "save", "leases", "evict")
"""Purposes without which agents do not work."""
TRIAL: Final = {"strict": True, "ttl": 60.0, "max_uses": None, "spool_dir": None, "wait_replicas": 0}
"""Settings of the manager that does so: it leaves nothing behind, and takes no saves that wait on disk."""
_EVENTS: Final = "__keyevent@0__:expired"
_LIFE: Final = 60_000
"""Milliseconds that a key of ours lives if it cannot be removed."""
_HARMLESS: Final = frozenset({Trouble.OTHER, Trouble.IN_CLUSTER})
"""Answers to a command that was allowed: no such key, no such script, the key is another node's."""


def own_name() -> str:
    """Return a fingerprint that nobody else uses."""
    return f"session-reuse-doctor/{secrets.token_hex(8)}"


def needed_commands(keys: Keys, fingerprint: str) -> dict[str, list[tuple[str | int, ...]]]:
    """Return the commands for each purpose, those inside our scripts included, in an order in which each finds its key."""
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
            ("ZREMRANGEBYRANK", agents, 0, -65), ("PEXPIRE", agents, _LIFE), ("ZADD", bucket, 9 * 10**15, fingerprint), ("ZSCORE", bucket, fingerprint),
            ("GETRANGE", tombstone, 0, 19),
        ],
        "leases": [("SET", lease, "x", "PX", _LIFE), ("GET", lease), ("PEXPIRE", lease, _LIFE), ("DEL", lease)],
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


@dataclass(slots=True)
class Tried:
    """How the commands ended.

    Attributes:
        refused: purposes, with the commands that the user may not use.
        outside: whether the keys were refused, rather than the commands.
        unknown: commands that the server does not have.
        trouble: why the server takes no writes.
    """

    refused: dict[str, list[str]] = field(default_factory=dict)
    outside: bool = False
    unknown: list[str] = field(default_factory=list)
    trouble: Diagnosis | None = None


async def try_commands(wire: Wire, keys: Keys) -> Tried:
    """Use every command on keys of our own, and remove these.

    Raises:
        UnfitError: the server does not answer any more.
    """
    tried, fingerprint = Tried(), own_name()
    try:
        for purpose, commands in needed_commands(keys, fingerprint).items():
            for words in commands:
                await _try(wire, purpose, words, tried)
                if tried.trouble is not None:
                    return tried
        return tried
    finally:
        await _removed([wire], keys, fingerprint)


async def _try(wire: Wire, purpose: str, words: tuple[str | int, ...], tried: Tried) -> None:
    command = str(words[0])
    try:
        await wire.ask(*words)
    except Exception as error:  # noqa: BLE001  (redis-py raises more than RedisError: see store/failures.py)
        found = diagnose(error)
        if found.trouble is Trouble.RIGHTS:
            refused = tried.refused.setdefault(purpose, [])
            tried.outside = tried.outside or " key" in str(error)
            if command not in refused:
                refused.append(command)
        elif found.trouble is Trouble.UNKNOWN_COMMAND:
            tried.unknown.append(command)
        elif found.trouble in GONE:
            raise wire.unfit(found) from None
        elif found.trouble not in _HARMLESS:
            tried.trouble = found


async def agent_finding(manager: SessionManager, wires: list[Wire]) -> Finding:
    """Enter, save, enter again, evict, as an exclusive agent does, and say how far that went."""
    fingerprint, keys = own_name(), Keys(manager.config.key_prefix)
    step = "enter"
    try:
        async with reusable_session(fingerprint, fingerprint, manager=manager, exclusive=True) as session:
            step = "save"
            session.data = {"doctor": fingerprint}
        if session.save_outcome is not SaveOutcome.SAVED:
            return fail("agent", f"a save ended as {session.save_outcome}", "see the findings above")
        step = "enter again"
        async with reusable_session(fingerprint, fingerprint, manager=manager, exclusive=True) as session:
            if session.data != {"doctor": fingerprint}:
                return fail("agent", f"what was saved is not restored: {session.outcome}", "see the findings above")
        step = "evict"
        await manager.evict(fingerprint)
    except SessionReuseError as error:
        return fail("agent", f"could not {step}: {error}", "see the findings above, and the server's log")
    finally:
        await _removed(wires, keys, fingerprint)
    return ok("agent", "enters, saves, is restored, leases and evicts")


async def _removed(wires: list[Wire], keys: Keys, fingerprint: str) -> None:
    """Remove every trace; of a Cluster's nodes, each refuses the keys of the others."""
    names = keys.of(fingerprint)
    ours = (names.session, names.lease, names.tombstone, names.agents, names.quarantine, names.staging("0"))
    for wire in wires:
        for key in (*ours, keys.affinity(fingerprint)):
            await wire.ask_if_allowed("DEL", key)
        await wire.ask_if_allowed("ZREM", names.deadlines, fingerprint)

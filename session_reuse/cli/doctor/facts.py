"""What a server reports about itself, and which commands it accepts. `server_checks` judges it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from session_reuse._store.keys import Keys
from session_reuse._store.redis.diagnosis import Diagnosis, Trouble, diagnose
from session_reuse.cli.doctor.wire import GONE, Wire

PINGS: Final = 50
SETTINGS: Final = ("notify-keyspace-events", "maxmemory", "maxmemory-policy", "save", "appendonly")
ESSENTIAL: Final = ("restore", "save", "leases", "evict")
"""Purposes without which agents do not work."""
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
        hello: version, mode and role, also for users with few rights.
        info: INFO. Empty if the user may not use it.
        settings: CONFIG GET. Empty if the user may not use it, as on many hosted servers.
        latencies: seconds of each read, sorted.
        clock_ahead: seconds by which the server's clock is ahead of ours. None if it is not known.
        refused: for each purpose, the commands that the user may not use.
        outside: whether the keys were refused, and not the commands.
        unknown: commands that the server does not have.
        trouble: why the server refuses writes.
    """

    name: str = ""
    hello: dict[str, str] = field(default_factory=dict)
    info: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    clock_ahead: float | None = None
    refused: dict[str, list[str]] = field(default_factory=dict)
    outside: bool = False
    unknown: list[str] = field(default_factory=list)
    trouble: Diagnosis | None = None

    def setting(self, name: str) -> str | None:
        """Return a setting, from INFO if CONFIG is forbidden. None if it is in neither."""
        return self.settings.get(name, self.info.get(name.replace("-", "_")))

    def number(self, name: str) -> int:
        """Return a number, from INFO if the setting is none, as "8.00GiB" of Dragonfly. 0 if it is in neither."""
        found = (self.settings.get(name), self.info.get(name.replace("-", "_")))
        return next((int(text) for text in found if text and text.isdecimal()), 0)


async def identity_of(wire: Wire) -> Facts:
    """Return the name, HELLO and INFO of a server."""
    lines = _text(await wire.execute_if_allowed("INFO") or b"").splitlines()
    info = dict(line.split(":", 1) for line in lines if ":" in line)
    return Facts(name=wire.name, hello=await hello_of(wire), info=info)


async def hello_of(wire: Wire) -> dict[str, str]:
    """Return version, mode and role. Empty for a server before 6.0, or if the user may not use HELLO."""
    return _pairs(await wire.execute_if_allowed("HELLO", 2))


async def gather(wire: Wire, keys: Keys, identity: Facts) -> Facts:
    """Return the other facts of a server, and try every command of agents on keys of the doctor.

    Raises:
        UnfitError: the server does not answer any more.
    """
    facts = replace(identity, latencies=await _latencies(wire, keys), clock_ahead=await _clock_ahead(wire))
    # One by one: a server may hide one setting and show the others.
    for name in SETTINGS:
        facts.settings |= _pairs(await wire.execute_if_allowed("CONFIG", "GET", name))
    await _try_commands(wire, keys, facts)
    return facts


async def _latencies(wire: Wire, keys: Keys) -> list[float]:
    # Reads of a missing session: each user of agents has the right to them.
    taken, key = [], keys.session(own_name())
    for _ in range(PINGS):
        began = time.perf_counter()
        await wire.execute_if_allowed("GET", key)
        taken.append(time.perf_counter() - began)
    return sorted(taken)


async def _clock_ahead(wire: Wire) -> float | None:
    began = time.time()
    answer = await wire.execute_if_allowed("TIME")
    if answer is None:
        return None
    seconds, microseconds = answer
    return int(seconds) + int(microseconds) / 1e6 - (began + time.time()) / 2


def _pairs(answer: Sequence[object] | None) -> dict[str, str]:
    words = [_text(each) for each in answer or ()]
    return dict(zip(words[::2], words[1::2], strict=False))


def _text(answer: object) -> str:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)


# Commands ------------------------------------------------------------------------------------------------------------


def own_name() -> str:
    """Return a new fingerprint for a trial."""
    return f"session-reuse-doctor/{secrets.token_hex(8)}"


def needed_commands(keys: Keys, fingerprint: str) -> dict[str, list[tuple[str | int, ...]]]:
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


async def _try_commands(wire: Wire, keys: Keys, facts: Facts) -> None:
    fingerprint = own_name()
    try:
        for purpose, commands in needed_commands(keys, fingerprint).items():
            for words in commands:
                await _try(wire, purpose, words, facts)
                if facts.trouble is not None:  # a server that refuses one write refuses all
                    return
    finally:
        await remove_traces([wire], keys, fingerprint)


async def _try(wire: Wire, purpose: str, words: tuple[str | int, ...], facts: Facts) -> None:
    command = str(words[0])
    try:
        await wire.execute(*words)
    except Exception as error:  # noqa: BLE001  (redis-py raises more than RedisError: see _store/redis/failures.py)
        found = diagnose(error)
        if found.trouble is Trouble.RIGHTS:
            refused = facts.refused.setdefault(purpose, [])
            # Redis: "No permissions to access a key", in place of "to run the 'x' command".
            facts.outside = facts.outside or " key" in str(error)
            if command not in refused:
                refused.append(command)
        elif found.trouble is Trouble.UNKNOWN_COMMAND:
            facts.unknown.append(command)
        elif found.trouble in GONE:
            raise wire.unfit(found) from None
        elif found.trouble not in _HARMLESS:
            facts.trouble = found


async def remove_traces(wires: list[Wire], keys: Keys, fingerprint: str) -> None:
    """Delete every key of a trial. Each node of a Cluster refuses the keys of the other nodes."""
    names = keys.of(fingerprint)
    ours = (names.session, names.lease, names.tombstone, names.agents, names.quarantine, names.staging("0"))
    for wire in wires:
        for key in (*ours, keys.affinity(fingerprint)):
            await wire.execute_if_allowed("DEL", key)
        await wire.execute_if_allowed("ZREM", names.deadlines, fingerprint)

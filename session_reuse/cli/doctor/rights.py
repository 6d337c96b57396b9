"""Which commands the store's user lacks. Must never run one: each is queued in a transaction that is then discarded.

A server checks the rights to a command and to its keys when the command is queued (Redis 6.2 to 8), so that nothing has to
be written to find out, and the user needs no right to look at rights.
"""

from __future__ import annotations

from typing import Final

from session_reuse.cli.doctor.wire import Wire, is_elsewhere, is_refused
from session_reuse.resilience.failure import Failure
from session_reuse.store.keys import Keys

ESSENTIAL: Final = ("restore", "save", "leases")
"""Purposes without which sessions are not reused."""


def needed_commands(keys: Keys, probe: str) -> dict[str, list[tuple[str, ...]]]:
    """Return the commands for each purpose, those inside our scripts included, on keys of a session called `probe`."""
    session, lease, tombstone, agents, quarantine, bucket, _ = names = keys.of(probe)
    staging, agent = names.staging("0"), keys.affinity(probe)
    script = ("return 1", "1", session)
    return {
        "restore": [("GETEX", session), ("GET", session), ("GET", agent)],
        "save": [
            ("SET", staging, ""), ("SET", agent, ""), ("EVAL", *script), ("EVALSHA", "0" * 40, "1", session),
            ("EXISTS", session), ("TYPE", session), ("GETRANGE", session, "0", "1"), ("SETRANGE", staging, "0", ""),
            ("RENAME", staging, session), ("RENAME", session, quarantine), ("PEXPIRE", session, "1"),
            ("PTTL", session), ("DEL", staging), ("TIME",), ("SADD", agents, ""), ("ZADD", bucket, "0", ""),
            ("ZSCORE", bucket, ""), ("GET", tombstone),
        ],
        "leases": [("GET", lease), ("SET", lease, ""), ("DEL", lease), ("PEXPIRE", lease, "1")],
        "evict": [
            ("SET", tombstone, ""), ("DEL", session), ("SMEMBERS", agents), ("DEL", agent),
            ("ZREM", bucket, ""),
        ],
        "ls, stats, top": [("SCAN", "0"), ("STRLEN", session), ("GETRANGE", session, "0", "1"), ("PTTL", session)],
        "cleanup": [
            ("ZRANGEBYSCORE", bucket, "0", "1"), ("ZMSCORE", bucket, ""), ("ZREM", bucket, ""), ("SMEMBERS", agents),
            ("PSUBSCRIBE", "__keyevent@0__:expired"),
        ],
    }  # fmt: skip


async def missing_rights(wire: Wire, keys: Keys, probe: str) -> dict[str, list[str]] | None:
    """Return the purposes with the commands that are refused for them; None when the user may not even ask.

    Raises:
        Failure: the server does not answer.
    """
    missing: dict[str, list[str]] = {}
    if await _is_refused(wire, "MULTI"):
        return None
    for purpose, commands in needed_commands(keys, probe).items():
        refused = {words[0] for words in commands if await _is_refused(wire, *words)}
        if refused:
            missing[purpose] = sorted(refused)
    await _is_refused(wire, "DISCARD")
    return missing


async def _is_refused(wire: Wire, *words: str) -> bool:
    """Return whether the user lacks the right; another server of a Cluster being asked for the key is no refusal."""
    try:
        await wire.ask(*words)
    except Failure as failure:
        if is_refused(failure):
            return True
        if not is_elsewhere(failure) and not failure.code.startswith("ResponseError"):
            raise
    return False

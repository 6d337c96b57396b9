"""Whether the stored sessions can be read here. No time to live starts anew, and nothing of a session is shown."""

from __future__ import annotations

from collections import Counter
from typing import Final

from session_reuse._session.composition import Runtime
from session_reuse._state.header import Header
from session_reuse._state.sealing import NO_KEY, key_id
from session_reuse._store.interface import Listed
from session_reuse.cli.connection import read_stored
from session_reuse.cli.doctor.finding import Finding, fail, ok, warn
from session_reuse.cli.formatting import plural
from session_reuse.config import Config, configured_keys
from session_reuse.errors import CorruptStateError

LOOKED_AT: Final = 1000
OPENED: Final = 20


class Sample:
    """Some stored sessions, counted by the key they are sealed with.

    Attributes:
        foreign: values that are no sessions of this schema.
        by_key: number of sessions for each key's name.
    """

    def __init__(self) -> None:
        self.foreign = 0
        self.by_key: Counter[str] = Counter()
        self.fingerprints: list[str] = []

    def add(self, listed: Listed) -> None:
        """Count one session."""
        try:
            self.by_key[Header.decode(listed.head).key_id] += 1
        except CorruptStateError:
            self.foreign += 1
            return
        self.fingerprints.append(listed.fingerprint)

    @property
    def count(self) -> int:
        """How many values were looked at."""
        return self.by_key.total() + self.foreign


async def stored_finding(services: Runtime, config: Config) -> Finding:
    """Look at some sessions and open a few.

    Raises:
        Failure, StoreError: the store does not answer.
    """
    sample = Sample()
    async for listed in services.store.sessions(timeout=config.save_timeout):
        sample.add(listed)
        if sample.count >= LOOKED_AT:
            break
    return judged(sample, _key_ids(config)) or await _opened(services, sample)


def _key_ids(config: Config) -> list[str]:
    return [key_id(key) for key in configured_keys(config)] or [NO_KEY]


def judged(sample: Sample, key_ids: list[str]) -> Finding | None:
    """Return what the heads alone say is wrong; None when nothing is.

    Args:
        sample: the sessions.
        key_ids: names of the configured keys, the one that encrypts first.
    """
    current, *older = key_ids
    unknown = {name: count for name, count in sample.by_key.items() if name not in key_ids}
    in_plain = unknown.pop(NO_KEY, 0)
    if unknown:
        told = f"{plural(sum(unknown.values()), 'session')} of {sample.count} sealed with keys not configured here: "
        remedy = "add the old keys behind the first in SESSION_REUSE_ENCRYPTION_KEYS, or evict these sessions"
        return fail("sessions", told + " ".join(unknown), remedy)
    if in_plain:
        told = f"{plural(in_plain, 'session')} of {sample.count} stored in plain before there were keys: not used"
        return fail("sessions", told, "session-reuse rotate --from-plain, if all who could write there are trusted")
    if sample.foreign:
        told = f"{plural(sample.foreign, 'value')} of {sample.count} that are no sessions of ours"
        return warn("sessions", told, "see which by session-reuse ls, and evict them or use another key_prefix")
    rotatable = sum(sample.by_key[name] for name in older)
    if rotatable:
        told = f"{plural(rotatable, 'session')} of {sample.count} sealed with an older key than {current}"
        return warn("sessions", told, "session-reuse rotate, after which the older keys can be dropped")
    return None


async def _opened(services: Runtime, sample: Sample) -> Finding:
    unreadable = []
    for fingerprint in sample.fingerprints[:OPENED]:
        try:
            await read_stored(services, fingerprint)
        except CorruptStateError:
            unreadable.append(fingerprint)
    if unreadable:
        told = f"{len(unreadable)} of {min(OPENED, sample.count)} opened are damaged"
        return fail(
            "sessions", told, "see session-reuse show; agents start fresh instead and set the damaged value aside"
        )
    more = "more than " if sample.count >= LOOKED_AT else ""
    return ok("sessions", f"{more}{plural(sample.count, 'session')}, readable with these keys")

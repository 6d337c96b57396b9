"""Use the store as an agent does, and open some of the stored sessions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from session_reuse import SessionManager, reusable_session
from session_reuse._resilience.failure import store_errors
from session_reuse._session.composition import Runtime
from session_reuse._state.sealing import NO_KEY, key_id
from session_reuse._store.keys import Keys
from session_reuse.cli.connection import read_stored
from session_reuse.cli.doctor.facts import own_name, remove_traces
from session_reuse.cli.doctor.finding import Finding, fail, ok, own_command, reason_in, warn
from session_reuse.cli.doctor.wire import Wire
from session_reuse.cli.formatting import plural
from session_reuse.cli.listing import key_id_in
from session_reuse.config import Config, ConfigOptions, configured_keys
from session_reuse.errors import CorruptStateError, SessionReuseError
from session_reuse.outcome import SaveOutcome

LISTED: Final = 1000
OPENED: Final = 20
TRIAL: Final[ConfigOptions] = {
    "strict": True, "ttl": 60.0, "max_uses": None, "spool_dir": None, "wait_replicas": 0, "audit": False,
}  # fmt: skip
"""Settings of the manager of a trial: it leaves nothing behind and takes no waiting saves from the disk."""
_FOREIGN: Final = ""
"""In place of the key of a value that is no session."""


async def agent_finding(manager: SessionManager, wires: list[Wire]) -> Finding:
    """Enter, save, enter again and evict, as an exclusive agent does."""
    fingerprint, step = own_name(), "enter"
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
        return fail("agent", f"could not {step}: {reason_in(error)}", "see the findings above, and the server's log")
    finally:
        await remove_traces(wires, Keys(manager.config.key_prefix), fingerprint)
    return ok("agent", "enters, saves, is restored, leases and evicts")


async def stored_finding(runtime: Runtime, config: Config) -> Finding:
    """Read some headers and open a few sessions. No time to live starts again, and no content is shown.

    Raises:
        StoreError: the store does not answer.
    """
    key_ids: dict[str, str] = {}
    with store_errors():
        async for entry in runtime.store.sessions(timeout=config.save_timeout):
            if entry.failure is not None:
                raise entry.failure.error
            key_ids[entry.fingerprint] = key_id_in(entry.head)
            if len(key_ids) >= LISTED:  # a sample: a listing of 50,000 sessions takes the server 0.5 s (2026-11)
                break
    configured = [key_id(key) for key in configured_keys(config)] or [NO_KEY]
    return finding_of(Counter(key_ids.values()), configured, config) or await _opened(runtime, key_ids, config)


def finding_of(by_key: Counter[str], configured: list[str], config: Config) -> Finding | None:
    """Return what the headers alone show to be wrong, or None, by the names of keys. The first one encrypts."""
    current, *older = configured
    total, foreign = by_key.total(), by_key[_FOREIGN]
    unknown = [name for name in by_key if name not in (*configured, NO_KEY, _FOREIGN)]
    if unknown:
        count = plural(sum(by_key[name] for name in unknown), "session")
        remedy = "add the old keys behind the first in SESSION_REUSE_ENCRYPTION_KEYS, or evict these sessions"
        text = f"{count} of {total} sealed with keys not configured here: {' '.join(unknown)}"
        return fail("sessions", text, remedy)
    # With keys, agents refuse plain sessions: they could be forged by any writer of the store.
    if NO_KEY not in configured and by_key[NO_KEY]:
        text = f"{plural(by_key[NO_KEY], 'session')} of {total} stored in plain before there were keys: not used"
        remedy = f"{own_command('rotate --from-plain', config)}, if all who could write there are trusted"
        return fail("sessions", text, remedy)
    if foreign:
        text = f"{plural(foreign, 'value')} of {total} that are no sessions of ours"
        return warn(
            "sessions", text, f"see which by {own_command('ls', config)}, and evict them or use another key_prefix"
        )
    rotatable = sum(by_key[name] for name in older)
    if rotatable:
        text = f"{plural(rotatable, 'session')} of {total} sealed with an older key than {current}"
        return warn("sessions", text, f"{own_command('rotate', config)}, after which the older keys can be dropped")
    return None


async def _opened(runtime: Runtime, fingerprints: Iterable[str], config: Config) -> Finding:
    names = list(fingerprints)
    damaged = 0
    for fingerprint in names[:OPENED]:  # a body may take megabytes
        try:
            await read_stored(runtime, fingerprint)
        except CorruptStateError:
            damaged += 1
    if damaged:
        remedy = f"see {own_command('show', config)}. Agents start fresh instead and set the damaged value aside"
        return fail("sessions", f"{damaged} of {min(OPENED, len(names))} opened are damaged", remedy)
    more = "more than " if len(names) >= LISTED else ""
    return ok("sessions", f"{more}{plural(len(names), 'session')}, readable with these keys")

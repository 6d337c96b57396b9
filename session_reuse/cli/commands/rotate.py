"""`session-reuse rotate`: encrypt every session with the first key.

Each session is read, opened with the key that fits, and written if the revision that was read is still stored. An agent
that saves meanwhile wins. Its save is sealed with the first key of that agent's settings.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Final

import typer

from session_reuse._manager import runtime_of
from session_reuse._resilience.failure import AttemptFailed, store_errors
from session_reuse._session.composition import Runtime
from session_reuse._session.guarded_store import Access
from session_reuse._session.one_time_codes import OneTimeCodes
from session_reuse._state.codec import Codec
from session_reuse._state.header import REMEMBERED_SAVES
from session_reuse._state.sealing import NO_KEY
from session_reuse._store.interface import Commit, Precondition
from session_reuse._stored_form import new_save_id
from session_reuse.cli.connection import Place, Stored, connected, execute, read_stored
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import plural, printable
from session_reuse.cli.listing import Refusals, key_id_in
from session_reuse.cli.output import Output
from session_reuse.errors import ConfigurationError, CorruptStateError

_ATTEMPTS: Final = 5
_REPORTED: Final = 1000
"""After so many sessions each, the progress is printed."""

DryRun = Annotated[bool, typer.Option("--dry-run", help="Report what would be done, and do nothing.")]
FromPlain = Annotated[
    bool,
    typer.Option(
        "--from-plain", help="Seal sessions stored before there were keys too: only if all writers are trusted."
    ),
]


class Rotation(StrEnum):
    """The result for one session."""

    CURRENT = "current"
    """It was sealed with the first key before."""
    ROTATED = "rotated"
    GONE = "gone"
    """It expired or was deleted meanwhile."""
    CONTENDED = "contended"
    """Agents saved it at each attempt. They seal it with their own first key."""
    UNREADABLE = "unreadable"
    """Damaged, or sealed with a key that is not configured."""


async def rotate(output: Output, place: Place, dry_run: DryRun = False, from_plain: FromPlain = False) -> ExitCode:
    """Encrypt every session again with the first of the encryption_keys, so that the older keys can be dropped."""
    counts: Counter[Rotation] = Counter()
    plain, refusals = 0, Refusals()
    async with connected(place) as manager:
        runtime = await runtime_of(manager)
        if runtime.codec.seal.key_id == NO_KEY:
            raise ConfigurationError(
                "there is no key to rotate to: set SESSION_REUSE_ENCRYPTION_KEYS, newest key first"
            )
        key_ids = await _key_ids(runtime, refusals)
        for number, (fingerprint, key_id) in enumerate(key_ids.items()):
            if number and not number % _REPORTED:
                output.note(f"{number} of {plural(len(key_ids), 'session')}")
            result, why = Rotation.CURRENT, ""
            if key_id != runtime.codec.seal.key_id:
                result, why = await _one(runtime, fingerprint, dry_run=dry_run, from_plain=from_plain)
            counts[result] += 1
            if result in {Rotation.UNREADABLE, Rotation.CONTENDED}:
                output.note(f"{result}: {printable(fingerprint)}{why and ', '}{why}")
                plain += result is Rotation.UNREADABLE and key_id == NO_KEY
        secrets = await _secrets(runtime, output, dry_run=dry_run)
        if not dry_run:
            try:
                await runtime.store.reseal_affinities(
                    runtime.snapshots.resealed_affinity, timeout=runtime.config.save_timeout
                )
            except AttemptFailed as failure:
                refusals.add("affinities of agents", str(failure.error))
    if plain:
        output.note(f"{plural(plain, 'session')} stored in plain: --from-plain seals them, if all writers are trusted")
    found = plural(counts.total(), "session")
    if secrets:
        found += f" and {plural(secrets.total(), 'secret')} of one-time codes"
    counts += secrets
    output.emit({each.value: counts[each] for each in Rotation} | {"dry_run": dry_run})
    text = ", ".join(f"{counts[each]} {each}" for each in Rotation if counts[each])
    output.show(f"{found}{': ' if text else ''}{text}{' (dry run)' if dry_run else ''}")
    code = ExitCode.WRONG if counts[Rotation.CONTENDED] else ExitCode.OK
    return refusals.end(output, ExitCode.UNREADABLE if counts[Rotation.UNREADABLE] else code)


async def _key_ids(runtime: Runtime, refusals: Refusals) -> dict[str, str]:
    """Return the name of each session's key. Empty for a value that is no session."""
    found: dict[str, str] = {}
    with store_errors():
        async for entry in runtime.store.sessions(timeout=runtime.config.save_timeout):
            if entry.failure is not None:
                refusals.add(entry.fingerprint, str(entry.failure.error))
                continue
            found[entry.fingerprint] = key_id_in(entry.head)
    return found


async def _secrets(runtime: Runtime, output: Output, *, dry_run: bool) -> Counter[Rotation]:
    """Seal the secrets of one-time codes with the first key."""
    counts: Counter[Rotation] = Counter()
    for name in await execute(runtime, lambda timeout: runtime.store.totp_secrets(timeout=timeout)):
        try:
            done = await OneTimeCodes(runtime.guarded, runtime.codec, runtime.config).rotate(name, dry_run=dry_run)
            counts[Rotation.ROTATED if done else Rotation.CURRENT] += 1
        except CorruptStateError:
            counts[Rotation.UNREADABLE] += 1
            output.note(f"{Rotation.UNREADABLE}: the secret of one-time codes of {printable(name)}")
    return counts


async def _one(runtime: Runtime, fingerprint: str, *, dry_run: bool, from_plain: bool) -> tuple[Rotation, str]:
    """Rotate one session. Return the result, and why it cannot be read if it cannot."""
    for _ in range(_ATTEMPTS):
        try:
            stored = await _read(runtime, fingerprint, from_plain=from_plain)
        except CorruptStateError as error:
            return Rotation.UNREADABLE, str(error).rpartition("cannot be read: ")[2]
        if stored is None or stored.ttl == 0:  # 0: it expired between the two reads
            return Rotation.GONE, ""
        if stored.header.key_id == runtime.codec.seal.key_id:
            return Rotation.CURRENT, ""
        if dry_run or await _commit(runtime, stored):
            return Rotation.ROTATED, ""
    return Rotation.CONTENDED, ""


async def _read(runtime: Runtime, fingerprint: str, *, from_plain: bool) -> Stored | None:
    try:
        return await read_stored(runtime, fingerprint)
    except CorruptStateError:
        if not from_plain:
            raise
        return await read_stored(runtime, fingerprint, Codec(max_bytes=runtime.config.max_state_bytes))


async def _commit(runtime: Runtime, stored: Stored) -> bool:
    """Write the session, sealed with the first key, if the revision that was read is still stored."""
    # A new version and save id: agents that hold the session merge with the rotation as with any other save.
    before, save_id = stored.header, new_save_id()
    header = replace(before, version=before.version + 1, save_ids=(save_id, *before.save_ids)[:REMEMBERED_SAVES])
    key = runtime.keys.session(stored.fingerprint)
    commit = Commit(
        fingerprint=stored.fingerprint,
        value=runtime.codec.encode(stored.body, before.flags[2], header, key),
        save_id=save_id,
        precondition=Precondition.MATCHES,
        known=before.revision.encode(),
        invalidated_at=before.invalidated_at,
        created_at=before.created_at,
        # The time that is left, so that a rotation keeps no session alive.
        ttl=runtime.config.ttl if stored.ttl is None else stored.ttl,
        age=before.saved_at / 1000,  # before the last save, whose time it keeps: the verdict of a probe stays
    )
    committed = await execute(runtime, lambda timeout: runtime.store.commit(commit, timeout=timeout), Access.WRITE)
    return committed.outcome.written

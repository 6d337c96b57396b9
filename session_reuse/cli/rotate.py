"""`session-reuse rotate`: encrypt every session with the first key.

Each session is read, opened with whichever key fits, and committed under the condition that the very revision that was
read still stands. An agent that saves meanwhile wins, and its save is sealed with the first key of that agent's settings.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Annotated, Final

import typer

from session_reuse._resilience.failure import Failure
from session_reuse._resilience.guard import Direction
from session_reuse._session.composition import Runtime
from session_reuse._state.codec import Codec
from session_reuse._state.header import REMEMBERED_SAVES, Header
from session_reuse._state.sealing import NO_KEY
from session_reuse._store.interface import Commit, Precondition
from session_reuse._stored_form import new_save_id
from session_reuse.cli.connection import Place, Stored, ask, connected, read_stored
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import plural, printable
from session_reuse.cli.options import AsJson, KeyPrefix, Url
from session_reuse.cli.output import Output
from session_reuse.cli.running import run
from session_reuse.errors import ConfigurationError, CorruptStateError

_ATTEMPTS: Final = 5

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
FromPlain = Annotated[
    bool,
    typer.Option(
        "--from-plain", help="Seal sessions stored before there were keys too: only if all writers are trusted."
    ),
]


class Rotation(StrEnum):
    """What became of one session."""

    CURRENT = "current"
    """It was sealed with the first key before."""
    ROTATED = "rotated"
    GONE = "gone"
    """It expired or was deleted meanwhile."""
    CONTENDED = "contended"
    """Agents kept saving it; they seal it with their own first key."""
    UNREADABLE = "unreadable"
    """Damaged, or sealed with a key that is not configured."""


def rotate(
    dry_run: DryRun = False,
    from_plain: FromPlain = False,
    url: Url = None,
    key_prefix: KeyPrefix = None,
    as_json: AsJson = False,
) -> None:
    """Encrypt every session anew with the first of the encryption_keys, so that the older keys can be dropped."""
    run(partial(_rotate, Place(url, key_prefix), dry_run, from_plain), as_json=as_json)


async def _rotate(place: Place, dry_run: bool, from_plain: bool, output: Output) -> ExitCode:
    from rich.progress import Progress

    counts: Counter[Rotation] = Counter()
    left: list[str] = []
    plain = 0
    async with connected(place) as manager:
        services = await manager.services()
        if services.codec.key_id == NO_KEY:
            raise ConfigurationError(
                "there is no key to rotate to: set SESSION_REUSE_ENCRYPTION_KEYS, newest key first"
            )
        heads = await _heads(services)
        with Progress(console=output.console, transient=True, disable=output.as_json) as progress:
            for fingerprint, head in progress.track(heads.items(), description="rotating"):
                result = await _one(services, fingerprint, head, dry_run=dry_run, from_plain=from_plain)
                counts[result] += 1
                if result in {Rotation.UNREADABLE, Rotation.CONTENDED}:
                    left.append(f"{result}: {printable(fingerprint)}")
                    plain += result is Rotation.UNREADABLE and _is_plain(head)
    for line in left:
        output.note(line)
    if plain:
        told = f"{plural(plain, 'session')} stored in plain, as before there were keys"
        output.note(f"{told}: --from-plain seals them, if all writers are trusted")
    return _report(output, counts, dry_run)


def _report(output: Output, counts: Counter[Rotation], dry_run: bool) -> ExitCode:
    output.emit({each.value: counts[each] for each in Rotation} | {"dry_run": dry_run})
    told = ", ".join(f"{counts[each]} {each}" for each in Rotation if counts[each])
    output.show(f"{plural(counts.total(), 'session')}{': ' if told else ''}{told}{' (dry run)' if dry_run else ''}")
    if counts[Rotation.UNREADABLE]:
        return ExitCode.UNREADABLE
    return ExitCode.WRONG if counts[Rotation.CONTENDED] else ExitCode.OK


async def _heads(services: Runtime) -> dict[str, bytes]:
    listing = services.store.sessions(timeout=services.config.save_timeout)
    try:
        return {listed.fingerprint: listed.head async for listed in listing}
    except Failure as failure:
        raise failure.error from None


async def _one(services: Runtime, fingerprint: str, head: bytes, *, dry_run: bool, from_plain: bool) -> Rotation:
    if _is_current(services, head):
        return Rotation.CURRENT
    for _ in range(_ATTEMPTS):
        try:
            stored = await _read(services, fingerprint, from_plain=from_plain)
        except CorruptStateError:
            return Rotation.UNREADABLE
        if stored is None or stored.ttl == 0:
            return Rotation.GONE
        if stored.header.key_id == services.codec.key_id:
            return Rotation.CURRENT
        if dry_run or await _commit(services, stored):
            return Rotation.ROTATED
    return Rotation.CONTENDED


def _is_current(services: Runtime, head: bytes) -> bool:
    try:
        return Header.decode(head).key_id == services.codec.key_id
    except CorruptStateError:
        return False


def _is_plain(head: bytes) -> bool:
    try:
        return Header.decode(head).key_id == NO_KEY
    except CorruptStateError:
        return False


async def _read(services: Runtime, fingerprint: str, *, from_plain: bool) -> Stored | None:
    try:
        return await read_stored(services, fingerprint)
    except CorruptStateError:
        if not from_plain:
            raise
        return await read_stored(services, fingerprint, Codec(max_bytes=services.config.max_state_bytes))


async def _commit(services: Runtime, stored: Stored) -> bool:
    """Put the session back, sealed with the first key, if the revision that was read still stands."""
    config, before, save_id = services.config, stored.header, new_save_id()
    header = replace(before, version=before.version + 1, save_ids=(save_id, *before.save_ids)[:REMEMBERED_SAVES])
    key = services.keys.session(stored.fingerprint)
    value = services.codec.encode(stored.body, before.flags[2], header, key)
    commit = Commit(
        fingerprint=stored.fingerprint,
        value=value,
        save_id=save_id,
        precondition=Precondition.MATCHES,
        known=before.revision.encode(),
        invalidated_at=before.invalidated_at,
        created_at=before.created_at,
        ttl=config.ttl if stored.ttl is None else stored.ttl,
    )
    committed = await ask(services, lambda timeout: services.store.commit(commit, timeout=timeout), Direction.WRITE)
    return committed.outcome.written

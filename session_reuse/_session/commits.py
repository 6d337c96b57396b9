"""What one commit asks of the store, made of the changes that are applied. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_reuse._session.changes import HOLD_LIMIT, Change, Found, Snapshot, StoredKind
from session_reuse._session.clock import Moment
from session_reuse._session.fold import Folded
from session_reuse._state.document import load
from session_reuse._state.header import LATEST, REMEMBERED_SAVES, Header
from session_reuse._state.storage_state import longest_cookie_life
from session_reuse._store.interface import Commit, CommitReply, Precondition

if TYPE_CHECKING:
    from session_reuse._state.document import Body
    from session_reuse.config import Config


def commit_of(
    folded: Folded, stored: Snapshot, moment: Moment, *, fingerprint: str, save_id: str, longest: float, now: float,
    agents: tuple[tuple[str, str], ...], value: bytes,
) -> Commit:  # fmt: skip
    """Return the commit for a folded result.

    Args:
        folded: the changes, applied.
        stored: what they were applied to.
        moment: now.
        fingerprint: whose session.
        save_id: names the request.
        longest: seconds for which a session is kept at most.
        now: `elapsed()` of now.
        agents: who used it, each with the value of its affinity entry.
        value: the stored form of the result; empty when it is what is stored.
    """
    changes = [change for change, _ in folded.applied]
    last, before = changes[-1], stored.header
    if before is not None and not value:
        precondition, known = Precondition.UNCHANGED, b""
    elif before is not None:
        precondition, known = Precondition.MATCHES, before.revision.encode()
    elif stored.kind is StoredKind.CORRUPT:
        precondition, known = Precondition.CORRUPT, stored.damaged
    else:
        precondition, known = Precondition.ABSENT, b""
    return Commit(
        fingerprint=fingerprint,
        save_id=save_id,
        precondition=precondition,
        known=known,
        value=value,
        invalidated_at=stored.invalidated_at or 0,
        may_recreate=max([change.login.age(moment) for change in changes]) <= HOLD_LIMIT,
        created_at=before.created_at if before else 0,
        ttl=_ttl_of(changes, longest, now),
        agents=agents,
        lease=last.lease,
        release=last.release,
        new_login=folded.result.new_login,
        score_change=sum([change.score_change for change in changes]),
        mark_id=changes[0].mark_id,
        age=_age_of(changes, now),
        indexed=stored.kind is StoredKind.PRESENT,
    )


def _age_of(changes: list[Change], now: float) -> float:
    """Return for how long the latest change of content has waited, or the latest of all."""
    content = [change for change in changes if change.before is not change.after]
    return min([change.age(now) for change in content or changes])


def has_payload(folded: Folded, stored: Snapshot) -> bool:
    """Return whether a result has to be sent: it differs from the stored session."""
    return stored.header is None or folded.result.body is not stored.body or folded.result.new_login


def next_header(folded: Folded, before: Header | None, *, save_id: str, now: float, config: Config) -> Header:
    """Return the header of a result that is stored at `now`, unix seconds."""
    result, last = folded.result, folded.applied[-1][0]
    logins = [change.login for change, rebased in folded.applied if not rebased.notes_only]
    continued = next((login.created_at for login in logins if login.found is Found.STORED), 0)
    if before is not None and not result.new_login:
        continued = before.created_at
    # Another process may have read a change on disk. The name shows that it is stored, so that it is not applied again.
    names = [change.name for change, _ in reversed(folded.applied) if change.name][: REMEMBERED_SAVES - 2]
    # Rounded down: nothing lives a millisecond longer than its limit.
    created_at = continued or _unlike(int(now * 1000), before)
    return Header(
        token=last.lease.token if last.lease else 0,
        version=before.version + 1 if before else 1,
        save_ids=(save_id, *names, *(before.save_ids if before else ()))[:REMEMBERED_SAVES],
        created_at=created_at,
        saved_at=int(now * 1000),
        retire_at=_retire_at(config, created_at, now, None if result.new_login else before, result.body),
    )


def _unlike(now: int, before: Header | None) -> int:
    """Return a time of creation that no other login of this key has."""
    return now if before is None or before.created_at != now else now + 1


def _retire_at(config: Config, created_at: int, now: float, before: Header | None, body: Body) -> int:
    if config.max_age is None and not config.ttl_from_cookies:
        return before.retire_at if before is not None else 0
    limits = [] if config.max_age is None else [created_at + round(config.max_age * 1000)]
    if config.ttl_from_cookies:
        life = longest_cookie_life(load(*body)["storage_state"], now)
        if life is not None:
            limits.append(int((now + life) * 1000))
    return min([*limits, LATEST]) if limits else 0


def _ttl_of(changes: list[Change], longest: float, now: float) -> float:
    """Return for how long to keep a session, counted from the latest save, not from when it is written."""
    if changes[-1].mark_only:
        return 0
    return max([0.001, *[min(change.ttl - max(0.0, now - change.made_at), longest) for change in changes]])


def as_stored(header: Header, reply: CommitReply) -> Header:
    """Return a header as the commit script has patched it."""
    # `dataclasses.replace` takes three times as long, at every save (2026-11).
    return Header(
        flags=header.flags, key_id=header.key_id, invalidated_at=reply.invalidated_at, token=header.token,
        version=header.version, save_ids=header.save_ids, created_at=header.created_at, saved_at=reply.saved_at,
        retire_at=header.retire_at, uses=reply.uses, score=reply.score, ttl=reply.ttl,
    )  # fmt: skip

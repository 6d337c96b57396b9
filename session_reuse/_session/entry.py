"""What an agent enters with: decided from what the store said, or from what this process knows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import field, replace

from session_reuse._session.changes import Change, Found, Login, Snapshot, StoredKind
from session_reuse._session.clock import Moment
from session_reuse._session.fold import Folded, fold
from session_reuse._session.guarded_store import Request
from session_reuse._session.options import ResolvedOptions
from session_reuse._state.document import Body, load
from session_reuse._state.header import Header, judge, may_shorten
from session_reuse._state.record import record
from session_reuse._state.shapes import Document
from session_reuse._store.interface import EnterReply
from session_reuse.config import Config
from session_reuse.errors import CorruptStateError
from session_reuse.outcome import Outcome


@record()
class Entry:
    """How an agent starts.

    Attributes:
        outcome: why there is a document, or why not.
        login: the login that its changes will belong to.
        document: the restored document; None for a fresh session.
        body: the same as JSON, the base of the agent's changes.
        stale: whether it comes from this process's replica, because the store was away.
        built_on: changes that wait, and are in the document.
    """

    outcome: Outcome
    login: Login
    document: Document | None = field(default=None, repr=False)
    body: Body | None = field(default=None, repr=False)
    stale: bool = False
    built_on: Sequence[Change] = ()


def enter_request(
    fingerprint: str, options: ResolvedOptions, config: Config, holder: str | None, use_id: str, *, timed: bool
) -> Request[EnterReply]:  # fmt: skip
    """Return the request with which an agent enters.

    Args:
        fingerprint: whose session.
        options: what the caller asked for.
        config: the settings.
        holder: of the lease to take; None for none.
        use_id: names the use, where uses are counted.
        timed: whether the reply brings the time of the server.
    """
    writes = options.save != "never"
    ttl = config.ttl if config.sliding and writes else None
    lease = (holder, config.lease_ttl) if holder is not None else None
    counted_as = use_id if writes else ""
    return lambda store, timeout: store.enter(
        fingerprint, ttl=ttl, lease=lease, use_id=counted_as, ceiling=has_ceiling(config), timed=timed, timeout=timeout
    )


def from_store(
    snapshot: Snapshot, document: Document | None, options: ResolvedOptions, moment: Moment,
    *, retire_after_bad: int, uses: int | None = None, folded: Folded | None = None,
) -> Entry:  # fmt: skip
    """Decide after the store has answered.

    Args:
        snapshot: what it holds.
        document: its document, if it is a session.
        options: what the caller asked for.
        moment: of the request.
        retire_after_bad: how many bad marks retire it.
        uses: reuses before this one, if counted.
        folded: changes of this process that wait, applied to the stored session.
    """
    login = Login(Found.ABSENT, moment.elapsed, moment.wall, invalidated_at=snapshot.invalidated_at)
    outcome = Outcome.MISSING
    if snapshot.kind is StoredKind.CORRUPT:
        return Entry(Outcome.CORRUPT, login)
    if snapshot.kind is StoredKind.UNREADABLE:
        login.found = Found.AWAY
        return Entry(Outcome.CORRUPT, login)
    if snapshot.header is not None:
        outcome = _judged(snapshot, options, moment, retire_after_bad, uses)
        login.continues(snapshot.header, Found.STORED if outcome is Outcome.REUSED else Found.UNUSABLE)
    is_usable = outcome is Outcome.REUSED or snapshot.header is None
    if folded is not None and folded.applied and (is_usable or folded.result.new_login):
        if folded.login is not None and (outcome is not Outcome.REUSED or folded.result.new_login):
            login = folded.login
        return _with_waiting(folded, login)
    if outcome is not Outcome.REUSED:
        return Entry(outcome, login)
    return Entry(outcome, login, document, snapshot.body)


def login_to_replace(stored: Snapshot, moment: Moment) -> Login:
    """Return the login of a session made by hand: it replaces what is stored, and nothing newer.

    Args:
        stored: what the store holds.
        moment: of the request.
    """
    login = Login(Found.ABSENT, moment.elapsed, moment.wall, invalidated_at=stored.invalidated_at)
    if stored.header is not None:
        login.continues(stored.header)
    return login


def has_ceiling(config: Config) -> bool:
    """Return whether sessions may retire before their time to live is over. Then a script sets it, within these limits."""
    return config.max_age is not None or config.ttl_from_cookies


def lives_too_long(value: bytes, options: ResolvedOptions, config: Config, now: float) -> bool:
    """Return whether an enter has set a time to live that passes a limit of the session itself.

    Args:
        value: the stored bytes.
        options: what the caller asked for.
        config: the settings.
        now: unix seconds.
    """
    sets_ttl = config.sliding and options.save != "never"
    if has_ceiling(config) or not sets_ttl or not may_shorten(value, config.ttl):
        return False
    with suppress(CorruptStateError):
        header = Header.decode(value)
        return header.ttl > config.ttl or 0 < header.retire_at < (now + config.ttl) * 1000
    return False


def while_away(
    reason: Outcome, base: Snapshot, outbox: Sequence[Change], options: ResolvedOptions, moment: Moment, config: Config
) -> Entry:  # fmt: skip
    """Decide while the store is away.

    Args:
        reason: why it could not be asked.
        base: what the store held when it was heard last.
        outbox: changes of this process that wait.
        options: what the caller asked for.
        moment: now.
        config: the settings.
    """
    fresh = Entry(reason, Login(Found.AWAY, moment.elapsed, moment.wall))
    changes = [change for change in outbox if not change.mark_only]
    heard_at = max([base.heard_at, *(change.made_at for change in changes)])
    kept_until = max([_kept_until(base, moment, config), *(change.made_at + change.ttl for change in changes)])
    if options.exclusive or moment.elapsed > min(heard_at + config.reuse_while_away, kept_until):
        return fresh
    folded = fold(outbox, base, moment, retire_after_bad=config.retire_after_bad)
    login = folded.login
    if base.header is not None:
        marks = sum(change.score_change for change in outbox)
        marked = replace(base, header=replace(base.header, score=base.header.score + marks))
        outcome = _judged(marked, options, moment, config.retire_after_bad, None)
        if outcome is not Outcome.REUSED and not folded.result.new_login:
            return replace(fresh, outcome=reason)
        if login is None or not folded.result.new_login:
            heard = moment.wall - (moment.elapsed - base.heard_at)
            login = Login(Found.STORED, base.heard_at, heard, invalidated_at=base.invalidated_at)
            login.continues(base.header)
    elif login is None:
        return fresh
    return replace(_with_waiting(folded, login), stale=True)


def _kept_until(base: Snapshot, moment: Moment, config: Config) -> float:
    """Return until when the store keeps a session, by `elapsed()`, if nobody has used it since it was heard."""
    if base.header is None:
        return float("-inf")
    life = max(config.ttl, base.header.ttl)
    if config.sliding or moment.server is None:
        return base.heard_at + life
    return moment.elapsed - (moment.server / 1_000_000 - base.header.saved_at / 1000) + life


def _with_waiting(folded: Folded, login: Login) -> Entry:
    body, built_on = folded.result.body, [change for change, _ in folded.applied]
    return Entry(Outcome.REUSED, login, load(*body), body, built_on=built_on)


def _judged(
    snapshot: Snapshot, options: ResolvedOptions, moment: Moment, retire_after_bad: int, uses: int | None
) -> Outcome:  # fmt: skip
    assert snapshot.header is not None  # noqa: S101  (the callers looked)
    return judge(
        snapshot.header, now=moment.wall, retire_after_bad=retire_after_bad, max_age=options.max_age,
        max_uses=options.max_uses, uses=uses,
    )  # fmt: skip

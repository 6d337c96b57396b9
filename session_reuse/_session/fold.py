"""Apply the changes of agents to the stored session. Pure.

`rebase` applies one change to the stored document as that has become meanwhile: directly, by a three-way merge, as a new
login, or not at all. `fold` applies many, the earliest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace

from session_reuse._session.changes import (
    ANOTHER_LOGIN,
    HOLD_LIMIT,
    INVALIDATED,
    REFUSED,
    Change,
    Found,
    Login,
    Snapshot,
    StoredKind,
)
from session_reuse._session.clock import Moment
from session_reuse._state import document
from session_reuse._state.document import Body
from session_reuse._state.domains import AllowedDomains
from session_reuse._state.header import judge
from session_reuse._state.merge import common_notes, merge_data, merge_documents, without_expired
from session_reuse._state.record import record
from session_reuse._state.storage_state import is_empty
from session_reuse.outcome import Outcome, SaveOutcome


@record()
class Rebased:
    """A document with a change applied.

    Attributes:
        body: the document.
        merged: whether it holds more than the agent's own document.
        new_login: whether it replaces the stored session as a whole.
        notes_only: whether another login is stored, to which the agent's notes were added.
        not_taken: whether a change of the agent's storage state was left out for that.
    """

    body: Body = field(repr=False)
    merged: bool = False
    new_login: bool = False
    notes_only: bool = False
    not_taken: bool = False


@record()
class Refused:
    """A change that must not be applied."""

    outcome: SaveOutcome
    why: str


def rebase(
    change: Change, stored: Snapshot, moment: Moment, *, retire_after_bad: int, stands_back: bool = False
) -> Rebased | Refused:  # fmt: skip
    """Apply a change to the stored session.

    Args:
        change: what an agent has changed.
        stored: what the store holds.
        moment: now.
        retire_after_bad: how many bad marks retire a session.
        stands_back: whether an earlier change of its login has given way to the stored one.
    """
    login, header = change.login, stored.header
    if (refused := _refusal(change, stored, moment)) is not None:
        return refused
    if change.mark_only:
        return _marked(login, stored)
    if header is None:
        return _onto_nothing(change, stored, moment)
    same = login.created_at == header.created_at
    if login.found is Found.ABSENT or (login.found is Found.STORED and same):
        return _merged(change, stored.body, header.saved_at, moment)
    if login.found is Found.UNUSABLE and same and not stands_back and not _is_later(header.saved_at, change, moment):
        return Rebased(change.after, new_login=True)
    retired = judge(header, now=moment.wall, retire_after_bad=retire_after_bad) is Outcome.RETIRED
    # A login that was restored or saved may be the younger one too, where a fail-over has brought back the one before. Times of
    # hosts do not tell.
    may_replace = login.found is not Found.STORED or not set(login.ancestors).isdisjoint(header.save_ids[:1])
    return _beside_another_login(change, stored.body, header.saved_at, moment, may_replace=may_replace, retired=retired)


def _onto_nothing(change: Change, stored: Snapshot, moment: Moment) -> Rebased:
    """Apply a change where the store holds no session. What this process knows of a lost one may be later than the change."""
    lost = _lost(change.login, stored)
    if lost is not None and lost.header is not None:
        was_before = lost.header.version <= change.sent_over  # a request with the change has found it there
        return _merged(change, lost.body, 0 if was_before else lost.header.saved_at, moment)
    is_damaged = stored.kind is StoredKind.CORRUPT
    return Rebased(change.after, new_login=is_damaged and change.login.found is not Found.STORED)


def _lost(login: Login, stored: Snapshot) -> Snapshot | None:
    """Return what this process knows of a session that the store has lost, if a login is that one, or would have joined it."""
    lost = stored.lost
    if lost is None or lost.header is None:
        return None
    joined = (
        login.found is Found.ABSENT and lost.heard_at > login.heard_at and lost.invalidated_at == login.invalidated_at
    )
    is_it = login.found is Found.STORED and lost.header.created_at == login.created_at
    return lost if joined or is_it else None


def _marked(login: Login, stored: Snapshot) -> Rebased | Refused:
    if stored.header is None or stored.header.created_at != login.created_at:
        return Refused(SaveOutcome.SKIPPED, "the session that was marked is gone")
    return Rebased(stored.body)


def _refusal(change: Change, stored: Snapshot, moment: Moment) -> Refused | None:
    login = change.login
    if stored.kind is StoredKind.UNREADABLE:
        return Refused(
            SaveOutcome.SKIPPED, "the stored session cannot be opened with the keys or limits of this process"
        )
    if _is_invalidated(login, stored.invalidated_at or 0, moment):
        return Refused(SaveOutcome.STALE, INVALIDATED)
    return _refusal_of_a_lost_one(change, moment) if stored.header is None else None


def _is_invalidated(login: Login, last: int, moment: Moment) -> bool:
    """Return whether a session was invalidated since a login of it was accepted. `last` is the last invalidation, 0 for none.

    One that the agent does not know came later, whatever its time. After a fail-over that has lost the one before, to a server
    with a late clock, it has an earlier time than that one.
    """
    if login.invalidated_at is not None:
        return last not in {0, login.invalidated_at}
    heard = moment.by_server(login.heard_at)
    return heard is not None and last > heard


def _refusal_of_a_lost_one(change: Change, moment: Moment) -> Refused | None:
    """Return why a change must not bring a session back that is not stored any more."""
    login = change.login
    if moment.elapsed - change.made_at > change.ttl:
        return Refused(SaveOutcome.SKIPPED, "it waited for longer than its time to live")
    is_unchanged = change.before is change.after
    if is_unchanged and login.found is Found.STORED and 0 < login.retire_at <= moment.wall * 1000:
        return Refused(SaveOutcome.SKIPPED, "the session is gone, and would be retired by now")
    if is_unchanged and any(one.outcome in REFUSED for one in change.built_on):
        return Refused(SaveOutcome.SKIPPED, "it holds a change that was refused, and the session is gone")
    if login.age(moment) > HOLD_LIMIT:
        return Refused(SaveOutcome.STALE, "the session is gone, and it is too long ago to know why")
    return None


def _merged(change: Change, stored: Body, saved_at: int, moment: Moment) -> Rebased:
    """Merge a change into a document that was saved at this time, server milliseconds."""
    if change.before is change.after:
        return Rebased(stored)
    if change.before == stored:
        return Rebased(change.after)
    mine, theirs = document.load(*change.after), document.load(*stored)
    before = without_expired(document.load(*change.before), mine, theirs, moment.wall)
    if _is_later(saved_at, change, moment):
        mine, theirs = theirs, mine
    return Rebased(document.dump(merge_documents(before, mine, theirs)), merged=True)


def _is_later(saved_at: int, change: Change, moment: Moment) -> bool:
    """Return whether the stored session was saved after a change was made: where both changed one item, the later wins.

    The server's clock decides, for the whole document, since single items have no times. So a change that did not wait
    is the later one: it lost a race with another save by milliseconds, and most of the stored items are older than it.
    """
    made_at = moment.by_server(change.made_at) if change.age(moment.elapsed) else None
    return made_at is not None and saved_at * 1000 > made_at


def _beside_another_login(
    change: Change, stored: Body, saved_at: int, moment: Moment, *, may_replace: bool, retired: bool
) -> Rebased | Refused:  # fmt: skip
    """Decide for a login that is not the stored one: two logins are never mixed, only the agent's notes are."""
    mine, theirs = document.load(*change.after), document.load(*stored)
    made_at = moment.by_server(change.login.heard_at)
    younger = not saved_at or (made_at is not None and made_at > saved_at * 1000)
    is_over = moment.elapsed - change.made_at > change.ttl  # it would end what is stored at once
    if may_replace and younger and not is_over and (change.vouched or retired) and not is_empty(mine["storage_state"]):
        return Rebased(change.after, new_login=True)
    before, notes = document.load(*change.before), (mine["data"], theirs["data"])
    if _is_later(saved_at, change, moment):
        notes = (theirs["data"], mine["data"])
    data = merge_data(common_notes(before["data"], mine["data"], theirs["data"]), *notes)
    not_taken = mine["storage_state"] != before["storage_state"]
    if data == theirs["data"]:
        outcome = SaveOutcome.STALE if change.login.found is Found.STORED else SaveOutcome.SKIPPED
        return Refused(outcome, ANOTHER_LOGIN)
    return Rebased(document.dump({**theirs, "data": data}), merged=True, notes_only=True, not_taken=not_taken)


@record()
class Folded:
    """Changes applied one after the other.

    Attributes:
        result: the document to store, with the flags of all that were applied.
        applied: the changes in it, each with what it made of the document before it.
        refused: the others, each with the reason.
    """

    result: Rebased
    applied: list[tuple[Change, Rebased]]
    refused: list[tuple[Change, Refused]]

    @property
    def login(self) -> Login | None:
        """The login of the last change whose storage state is in the result; None where that is the stored one."""
        return next((change.login for change, rebased in reversed(self.applied) if not rebased.notes_only), None)


def fold(changes: Sequence[Change], stored: Snapshot, moment: Moment, *, retire_after_bad: int) -> Folded:
    """Apply changes to the stored session, the earliest first."""
    applied: list[tuple[Change, Rebased]] = []
    refused: list[tuple[Change, Refused]] = []
    result = Rebased(stored.body)
    logins: list[Login] = []
    for change in changes:
        inside = result if change.domains is None else replace(result, body=change.domains.restrict_body(result.body))
        outcome = _on_top(change, stored, moment, inside, logins) if applied else None
        there = _with(stored, inside, change.domains)
        gave_way = any(one.login is change.login and why.why == ANOTHER_LOGIN for one, why in refused)
        gave_way = gave_way or any(one.login is change.login and rebased.not_taken for one, rebased in applied)
        outcome = outcome or rebase(change, there, moment, retire_after_bad=retire_after_bad, stands_back=gave_way)
        if isinstance(outcome, Rebased) and change.domains is not None:
            whole = stored.body if outcome.new_login else result.body  # what is before a new login is refused below
            if not whole.data and (lost := _lost(change.login, stored)) is not None:
                whole = lost.body  # this process brings back what it knows of it
            elif not whole.data and change.login.found is Found.STORED:
                whole = change.whole
            outcome = _widened(change.domains, outcome, inside.body, whole)
        elif isinstance(outcome, Rebased) and outcome.new_login and (part := _part_of_login(change)) is not None:
            outside = result.body if stored.header is None else _merged(change, result.body, 0, moment).body
            outcome = replace(outcome, body=part.join_body(outside, part.restrict_body(outcome.body)))
        if isinstance(outcome, Refused):
            refused.append((change, outcome))
            continue
        if outcome.new_login and applied:
            refused += [
                (earlier, Refused(SaveOutcome.SKIPPED, "a new login has replaced it")) for earlier, _ in applied
            ]
            applied, logins = [], []
        if not outcome.notes_only:
            logins.append(change.login)
        applied.append((change, outcome))
        result = replace(outcome, new_login=True) if result.new_login else outcome
    if result.new_login and stored.header is not None and _is_logged_out(result.body, stored.body, applied):
        moot = [change for change, rebased in applied if not rebased.notes_only]
        rest = [change for change in changes if change not in moot]
        folded = fold(rest, stored, moment, retire_after_bad=retire_after_bad)
        why = Refused(SaveOutcome.SKIPPED, "the new login was logged out again")
        return replace(folded, refused=[*folded.refused, *((change, why) for change in moot)])
    return Folded(result, applied, refused)


def _widened(domains: AllowedDomains, rebased: Rebased, inside: Body, whole: Body) -> Rebased:
    """Return the result of a change to a part of a document as one of the whole: what is outside stays as it is."""
    body = whole if rebased.body is inside else domains.join_body(whole, rebased.body)
    return replace(rebased, body=body)


def _part_of_login(change: Change) -> AllowedDomains | None:
    """Return the part of the session that a login is about which an agent that sees more went on with."""
    return next((one.domains for one in change.built_on if one.login is change.login), None)


def _is_logged_out(new: Body, stored: Body, applied: list[tuple[Change, Rebased]]) -> bool:
    """Return whether a new login has come to less than what it would replace: no login any more, and no notes either."""
    domains = applied[0][0].domains
    scopes = {change.domains and change.domains.patterns for change, _ in applied}
    if domains is not None and len(scopes) == 1:  # what is outside is not theirs
        new, stored = domains.restrict_body(new), domains.restrict_body(stored)
    mine, theirs = document.load(*new), document.load(*stored)
    return is_empty(mine["storage_state"]) and not (mine["data"] and is_empty(theirs["storage_state"]))


def _with(stored: Snapshot, result: Rebased, domains: AllowedDomains | None) -> Snapshot:
    """Return the stored session as a change of these domains finds it, behind those before it."""
    lost = stored.lost
    if domains is not None and lost is not None:
        lost = replace(lost, body=domains.restrict_body(lost.body))
    unchanged = result.body is stored.body and lost is stored.lost
    return stored if unchanged else replace(stored, body=result.body, lost=lost)


def _on_top(
    change: Change, stored: Snapshot, moment: Moment, result: Rebased, logins: list[Login]
) -> Rebased | Refused | None:  # fmt: skip
    """Apply a change to the login that an earlier change has brought; None when the stored login still stands."""
    if stored.header is not None and not result.new_login:
        return None
    if any(change.login.is_same(login) for login in logins):
        return _merged(change, result.body, 0, moment)
    if (refused := _refusal(change, stored, moment)) is not None:
        return refused
    lost = _lost(change.login, stored)
    is_joined = change.login.found is Found.ABSENT or (lost and any(_lost(login, stored) is lost for login in logins))
    if is_joined and not result.new_login:
        return _merged(change, result.body, 0, moment)
    is_younger = change.login.heard_at >= max([login.heard_at for login in logins], default=change.login.heard_at)
    may_replace = is_younger and change.login.found is not Found.STORED
    return _beside_another_login(change, result.body, 0, moment, may_replace=may_replace, retired=False)


def next_group(changes: Sequence[Change]) -> list[Change]:
    """Return those of the changes that are sent together next: those without a lease, or one with a lease."""
    first = changes[0]
    if first.lease is not None or first.mark_only:
        return [first]
    group: list[Change] = []
    for change in changes:
        if change.lease is not None or change.mark_only:
            break
        # A mark that was sent, or is on disk, counts once under its name: it stays with what it was sent with.
        if change.mark_id != first.mark_id and any(one.score_change for one in (*group, change)):
            break
        group.append(change)
    return group

"""What an agent changed, applied to the stored state: directly, by a merge, as a new login, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from session_reuse import SaveOutcome
from session_reuse._session.changes import HOLD_LIMIT, Change, Found, Login, Snapshot, StoredKind
from session_reuse._session.clock import Moment
from session_reuse._session.commits import next_header
from session_reuse._session.fold import Folded, Rebased, Refused, fold, rebase
from session_reuse._state import document
from session_reuse._state.document import Body
from session_reuse._state.domains import AllowedDomains
from session_reuse._state.header import Header
from session_reuse.config import Config

NAME = "shop.example/alice"
NOW = 1000.0
"""This moment by the event loop, in seconds. The server's clock shows the same in these tests, and so does the wall's."""
MOMENT = Moment(elapsed=NOW, wall=NOW, server=1_000_000_000)
RETIRES_AT = 3
CREATED_AT = 1000


def expiring(value: str, expires: float) -> Body:
    """Return a document with one login cookie that expires at this time."""
    cookie = {"name": "sid", "value": value, "domain": "shop.example", "path": "/", "expires": expires}
    return document.dump(
        {"fingerprint": NAME, "storage_state": {"cookies": [cookie], "origins": []}, "data": {}}
    )  # fmt: skip


def body(cookie: str = "", **data: Any) -> Body:
    """Return a document with one login cookie, or without any, and notes."""
    cookies = [{"name": "sid", "value": cookie, "domain": "shop.example", "path": "/"}] if cookie else []
    return document.dump(
        {"fingerprint": NAME, "storage_state": {"cookies": cookies, "origins": []}, "data": data}
    )  # fmt: skip


EMPTY = body()
COOKIE = {"name": "sid", "value": "x", "path": "/"}


def stored(content: Body, *, saved_at: float = 500.0, kind: StoredKind = StoredKind.PRESENT, **fields: Any) -> Snapshot:
    """Return what the store holds, saved at this time."""
    header = Header(
        **{
            "save_ids": ("a" * 12,),
            "created_at": CREATED_AT,
            "saved_at": round(saved_at * 1000),
            "version": 4,
            **fields,
        }
    )
    return Snapshot(kind=kind, heard_at=NOW, invalidated_at=0, header=header, body=content)


def nothing(kind: StoredKind = StoredKind.ABSENT, invalidated_at: int = 0) -> Snapshot:
    """Return a store without a session."""
    return Snapshot(kind=kind, heard_at=NOW, invalidated_at=invalidated_at)


def login(found: Found = Found.STORED, *, heard_at: float = 400.0, **fields: Any) -> Login:
    """Return the login of an agent that entered at this time."""
    known = {"created_at": CREATED_AT if found in {Found.STORED, Found.UNUSABLE} else 0, "invalidated_at": 0}
    if found is Found.AWAY:
        known["invalidated_at"] = None  # type: ignore[assignment]
    return Login(found, heard_at, heard_at, **{**known, **fields})


def change(before: Body, after: Body, by: Login | None = None, *, made_at: float = NOW, **fields: Any) -> Change:
    """Return what an agent changed at this time."""
    waited = fields.pop("waited", made_at != NOW)
    return Change(
        before=before, after=after, login=by or login(), made_at=made_at, ttl=float("inf"), waited=waited, **fields
    )


def applied(one: Change, there: Snapshot, moment: Moment = MOMENT) -> Rebased:
    """Apply a change that is expected to be taken."""
    outcome = rebase(one, there, moment, retire_after_bad=RETIRES_AT)
    assert isinstance(outcome, Rebased)
    return outcome


def refused(one: Change, there: Snapshot, moment: Moment = MOMENT) -> SaveOutcome:
    """Return why a change is not taken."""
    outcome = rebase(one, there, moment, retire_after_bad=RETIRES_AT)
    assert isinstance(outcome, Refused)
    return outcome.outcome


def folded(there: Snapshot, *changes: Change) -> Folded:
    """Apply changes one after the other."""
    return fold(changes, there, MOMENT, retire_after_bad=RETIRES_AT)


def data_of(found: Rebased) -> dict[str, Any]:
    """Return the notes of a document."""
    notes: dict[str, Any] = document.load(*found.body)["data"]
    return notes


def cookie_of(found: Rebased) -> str:
    """Return the login cookie of a document."""
    cookies = document.load(*found.body)["storage_state"]["cookies"]
    return cookies[0]["value"] if cookies else ""


# One change -------------------------------------------------------------------------------------------------------------


def test_no_change_leaves_what_is_stored() -> None:
    """An agent that changed nothing takes nothing back that others have saved."""
    view, newer = body("a", x=1), stored(body("a", x=2))
    assert applied(change(view, view), newer).body is newer.body


def test_a_change_of_what_is_stored_is_applied_without_a_merge() -> None:
    """Without others in between the agent's document is stored unchanged."""
    outcome = applied(change(body("a", x=1), body("a", x=2)), stored(body("a", x=1)))
    assert (outcome.body, outcome.merged) == (body("a", x=2), False)


def test_both_sides_of_a_merge_survive() -> None:
    """What others changed, added and deleted meanwhile stays, and so does what the agent did."""
    mine = change(body("a", x=1, y=1, z=1), body("a", x=2, y=1))
    outcome = applied(mine, stored(body("b", x=1, y=5, z=1, new=1)))
    assert data_of(outcome) == {"x": 2, "y": 5, "new": 1}
    assert cookie_of(outcome) == "b"
    assert outcome.merged


@pytest.mark.parametrize(("made_at", "winner"), [(600.0, "mine"), (400.0, "theirs")])
def test_of_two_changes_of_one_item_the_later_wins(made_at: float, winner: str) -> None:
    """Later is decided by the server's clock: a change that waited does not undo one that was saved after it."""
    mine = change(body("a", x="base"), body("a", x="mine", only=1), made_at=made_at)
    outcome = applied(mine, stored(body("a", x="theirs"), saved_at=500.0))
    assert data_of(outcome) == {"x": winner, "only": 1}


def test_a_wrong_clock_of_a_host_changes_no_order() -> None:
    """Whatever the wall clock of this host shows, the times of a change are measured back from the server's."""
    mine = change(body("a", x="base"), body("a", x="mine"), made_at=400.0)
    outcome = applied(mine, stored(body("a", x="theirs"), saved_at=500.0), replace(MOMENT, wall=NOW - 5))
    assert data_of(outcome) == {"x": "theirs"}


def test_a_logout_is_a_change_like_any_other() -> None:
    """A state that became empty is stored, also after others have saved notes."""
    assert cookie_of(applied(change(body("a"), body()), stored(body("a")))) == ""
    assert cookie_of(applied(change(body("a"), body()), stored(body("a", n=1)))) == ""


def test_first_logins_of_two_agents_are_merged() -> None:
    """Agents that found no session at the same time lose nothing of each other."""
    outcome = applied(change(EMPTY, body("", mine=1), login(Found.ABSENT)), stored(body("a", theirs=1)))
    assert data_of(outcome) == {"mine": 1, "theirs": 1}


# Another login ----------------------------------------------------------------------------------------------------------


def test_an_agent_that_never_saw_the_store_does_not_mix_two_logins() -> None:
    """The stored login stays whole. The agent's notes are merged by key, and it is said what was not taken."""
    mine = change(EMPTY, body("mine", mine=1, x="mine"), login(Found.AWAY))
    outcome = applied(mine, stored(body("theirs", theirs=1)))
    assert cookie_of(outcome) == "theirs"
    assert data_of(outcome) == {"mine": 1, "x": "mine", "theirs": 1}
    assert outcome.not_taken
    assert not outcome.new_login


def test_notes_beside_another_login_are_merged_by_age() -> None:
    """A note that was stored after the agent wrote its own stays."""
    there = stored(body("theirs", x="theirs"), saved_at=500.0)
    late = change(EMPTY, body("mine", x="mine"), login(Found.AWAY), made_at=600.0)
    assert data_of(applied(late, there)) == {"x": "mine"}
    early = change(EMPTY, body("mine", x="mine"), login(Found.AWAY), made_at=450.0)
    assert refused(early, there) is SaveOutcome.SKIPPED


def test_a_note_is_not_deleted_by_a_login_that_never_had_it() -> None:
    """The stored login is another one, and younger: what it does not have is no deletion. Unchanged notes stay behind."""
    mine = change(body("a", n=1, old=1), body("a", n=2, old=1), login(created_at=7), made_at=400.0)
    found = folded(stored(body("b", theirs=1), saved_at=500.0), mine)
    assert (cookie_of(found.result), data_of(found.result)) == ("b", {"theirs": 1, "n": 2})


def test_a_note_of_another_login_is_not_deleted_by_one_that_never_saw_it() -> None:
    """Only a note that is still as it was when it was deleted goes."""
    mine = change(body("a", n=1, same=1), body("a"), login(created_at=7), made_at=600.0)
    outcome = applied(mine, stored(body("b", n=2, same=1), saved_at=500.0))
    assert (cookie_of(outcome), data_of(outcome)) == ("b", {"n": 2})


def test_an_unvouched_login_is_refused_where_another_is_stored() -> None:
    """Without notes there is nothing to take, and the agent hears of it."""
    assert refused(change(EMPTY, body("mine"), login(Found.AWAY)), stored(body("theirs"))) is SaveOutcome.SKIPPED


def test_a_vouched_younger_login_replaces_the_stored_one_as_a_whole() -> None:
    """Many sites end the old login when a new one is made: nothing of the old one is kept."""
    mine = change(EMPTY, body("mine", mine=1), login(Found.AWAY, heard_at=600.0), vouched=True)
    outcome = applied(mine, stored(body("theirs", theirs=1), saved_at=500.0))
    assert outcome.body == mine.after
    assert outcome.new_login


def test_a_vouched_login_that_is_older_than_the_last_save_replaces_nothing() -> None:
    """A login that was saved to later than ours began may be the newer one."""
    mine = change(EMPTY, body("mine", mine=1), login(Found.AWAY, heard_at=400.0), vouched=True)
    outcome = applied(mine, stored(body("theirs"), saved_at=500.0))
    assert (cookie_of(outcome), outcome.not_taken) == ("theirs", True)


def test_an_empty_login_replaces_nothing() -> None:
    """Vouching for no login at all does not log others out."""
    mine = change(EMPTY, body("", mine=1), login(Found.AWAY, heard_at=600.0), vouched=True)
    outcome = applied(mine, stored(body("theirs"), saved_at=500.0))
    assert (cookie_of(outcome), data_of(outcome)) == ("theirs", {"mine": 1})


def test_a_login_takes_the_place_of_a_retired_one() -> None:
    """What is retired is of no use to anybody: a younger login that never saw it replaces it as a whole."""
    retired = stored(body("theirs"), score=10 * RETIRES_AT)
    mine = change(EMPTY, body("mine"), login(Found.AWAY, heard_at=NOW))
    outcome = applied(mine, retired)
    assert (outcome.body, outcome.new_login) == (mine.after, True)
    assert refused(change(EMPTY, body("mine"), login(Found.AWAY, heard_at=0.0)), retired) is SaveOutcome.SKIPPED


def test_an_agent_whose_login_was_replaced_does_not_mix_the_two() -> None:
    """The stored session is another one than the one restored: only notes are taken, and a pure login change is stale."""
    other = stored(body("theirs", theirs=1), created_at=CREATED_AT + 1)
    assert refused(change(body("a"), body("b")), other) is SaveOutcome.STALE
    outcome = applied(change(body("a"), body("b", mine=1)), other)
    assert (cookie_of(outcome), data_of(outcome)) == ("theirs", {"theirs": 1, "mine": 1})
    assert outcome.not_taken


def test_a_new_login_replaces_the_unusable_one_it_found_and_no_later_one() -> None:
    """Of two agents that found a retired session the first one's login stands."""
    mine = change(EMPTY, body("mine"), login(Found.UNUSABLE))
    assert applied(mine, stored(body("dead"))).new_login
    assert refused(mine, stored(body("new"), created_at=CREATED_AT + 1)) is SaveOutcome.SKIPPED


@pytest.mark.parametrize("notes", [{}, {"x": 1}], ids=["refused", "notes only"])
def test_an_agent_that_goes_on_with_a_login_that_gives_way_gives_way_too(notes: dict[str, int]) -> None:
    """Both waited. The stored session was saved after the first of them, and before the second."""
    one = login(Found.UNUSABLE)
    first = change(EMPTY, body("b", **notes), one, made_at=600.0)
    second = change(body("b", **notes), body("b", **notes, y=1), one, made_at=800.0)
    found = folded(stored(body("a"), saved_at=700.0), first, second)
    assert (cookie_of(found.result), data_of(found.result), found.result.new_login) == ("a", {**notes, "y": 1}, False)


def test_a_damaged_value_gives_way_as_a_whole() -> None:
    """It holds nothing that could be merged."""
    damaged = replace(nothing(StoredKind.CORRUPT), damaged=b"damaged")
    assert applied(change(EMPTY, body("a", n=1), login(Found.ABSENT)), damaged).new_login


def test_what_this_process_cannot_open_is_left_alone() -> None:
    """Lack of a key is no damage, whoever vouches for the new login."""
    mine = change(EMPTY, body("mine"), login(Found.AWAY, heard_at=600.0), vouched=True)
    assert refused(mine, nothing(StoredKind.UNREADABLE)) is SaveOutcome.SKIPPED


# Invalidation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [Found.STORED, Found.ABSENT, Found.UNUSABLE])
@pytest.mark.parametrize("gone", [True, False], ids=["gone", "a new login is stored"])
def test_a_state_from_before_an_invalidation_is_refused(found: Found, gone: bool) -> None:
    """Neither brought back nor merged into the login that came after."""
    there = nothing(invalidated_at=7) if gone else replace(stored(body("new")), invalidated_at=7)
    for known in (6, 8):  # 8: it knows one that a fail-over has lost, to a server whose clock is late
        mine = change(body("old"), body("old", n=1), login(found, invalidated_at=known))
        assert refused(mine, there) is SaveOutcome.STALE
    assert not isinstance(
        rebase(change(EMPTY, body("x"), login(Found.ABSENT, invalidated_at=7)), there, MOMENT, retire_after_bad=3), Refused
    )  # fmt: skip


@pytest.mark.parametrize(("heard_at", "fine"), [(600.0, True), (400.0, False)])
def test_an_agent_that_entered_while_the_store_was_away_proves_its_age_by_the_server(
    heard_at: float,
    fine: bool,
) -> None:
    """It knows of no invalidation, so the time of its enter decides, measured back from the server's clock."""
    there = nothing(invalidated_at=500_000_000)
    outcome = rebase(change(EMPTY, body("a"), login(Found.AWAY, heard_at=heard_at)), there, MOMENT, retire_after_bad=3)
    assert isinstance(outcome, Rebased) is fine


@pytest.mark.parametrize("clock", ["elapsed", "wall"])
def test_a_session_that_is_gone_does_not_come_back_after_too_long(clock: str) -> None:
    """A tombstone may have ended meanwhile. The clock of the event loop stands still while a host sleeps: either counts."""
    late = replace(MOMENT, **{clock: NOW + HOLD_LIMIT})
    mine = change(body("a"), body("b"), login(heard_at=900.0))
    assert applied(mine, nothing()).body == mine.after
    assert refused(mine, nothing(), late) is SaveOutcome.STALE
    assert isinstance(rebase(mine, stored(body("a")), late, retire_after_bad=3), Rebased)


# Marks ------------------------------------------------------------------------------------------------------------------


def test_a_mark_is_for_the_login_it_was_made_for() -> None:
    """A bad mark changes no document, and counts against no other login."""
    mark = change(EMPTY, EMPTY, score_change=10, mark_only=True)
    there = stored(body("a"))
    assert applied(mark, there).body is there.body
    assert refused(mark, stored(body("a"), created_at=CREATED_AT + 1)) is SaveOutcome.SKIPPED
    assert refused(mark, nothing()) is SaveOutcome.SKIPPED


# Several changes that wait ------------------------------------------------------------------------------------------------


def test_changes_of_one_login_build_on_each_other() -> None:
    """Deletions of a later change stick, and nothing of the earlier one is lost."""
    one = login(Found.AWAY)
    first, second = change(EMPTY, body("a", x=1, y=1), one), change(body("a", x=1, y=1), body("b", y=1, z=1), one)
    found = folded(nothing(), first, second)
    assert (cookie_of(found.result), data_of(found.result)) == ("b", {"y": 1, "z": 1})
    assert [each for each, _ in found.applied] == [first, second]


def test_an_old_change_does_not_take_the_age_of_a_later_one() -> None:
    """A change made before another process's save stays older than it, although a later save carries it along."""
    one = login()
    first = change(body("a", x=1), body("a", x=2), one, made_at=450.0)
    second = change(body("a", x=2), body("a", x=2, mine=1), one, made_at=600.0)
    found = folded(stored(body("a", x=9), saved_at=500.0), first, second)
    assert data_of(found.result) == {"x": 9, "mine": 1}


def test_a_branch_of_an_old_change_does_not_take_back_what_was_changed_since() -> None:
    """An agent that began from a change that waited does not undo what another has made of the same item meanwhile."""
    one = login()
    first = change(body("a", x=27), body("a", x=28), one, made_at=600.0)
    second = change(body("a", x=28), body("a", x=29), one, made_at=700.0)
    branch = change(body("a", x=28), body("a", x=28, mine=1), one, made_at=800.0)
    found = folded(stored(body("a", x=27), saved_at=500.0), first, second, branch)
    assert data_of(found.result) == {"x": 29, "mine": 1}


def test_a_change_that_is_refused_does_not_hold_up_the_next() -> None:
    """A save from before an invalidation is refused, and the new login behind it is stored."""
    before = change(body("old"), body("old", old=1), login(invalidated_at=0))
    after = change(EMPTY, body("new", new=1), login(Found.ABSENT, invalidated_at=7))
    found = folded(nothing(invalidated_at=7), before, after)
    assert (cookie_of(found.result), data_of(found.result)) == ("new", {"new": 1})
    assert [each for each, _ in found.refused] == [before]


@pytest.mark.parametrize("unseen_first", [True, False])
def test_a_degraded_agent_wipes_nothing_out_that_waits(unseen_first: bool) -> None:
    """An agent that never saw the store yields to one that did, in either order. Its notes come along."""
    seen = change(body("a", n=1), body("b", n=1, work=2), login())
    unseen = change(EMPTY, body("other", other=1), login(Found.AWAY))
    found = folded(stored(body("a", n=1)), *[unseen, seen][:: 1 if unseen_first else -1])
    assert cookie_of(found.result) == "b"
    assert data_of(found.result) == {"n": 1, "work": 2, "other": 1}
    assert [each for each, rebased in found.applied if rebased.not_taken] == [unseen]


def test_two_degraded_agents_do_not_mix_their_logins() -> None:
    """The first login that waits stands where nothing is stored. The second one's notes are taken."""
    one = change(EMPTY, body("one", one=1), login(Found.AWAY))
    two = change(EMPTY, body("two", two=2), login(Found.AWAY))
    found = folded(nothing(), one, two)
    assert (cookie_of(found.result), data_of(found.result)) == ("one", {"one": 1, "two": 2})
    assert [rebased.not_taken for _, rebased in found.applied] == [False, True]


def test_changes_after_a_new_login_belong_to_it_or_are_left_out() -> None:
    """Once a new login has replaced the stored one, an agent of the old one adds its notes and nothing else."""
    new = change(EMPTY, body("new", new=1), login(Found.AWAY, heard_at=600.0), vouched=True)
    old = change(body("a"), body("b", old=1), login())
    found = folded(stored(body("a"), saved_at=500.0), new, old)
    assert (cookie_of(found.result), data_of(found.result)) == ("new", {"new": 1, "old": 1})
    assert found.result.new_login


def test_changes_of_a_login_that_was_not_accepted_are_not_mixed_into_the_next() -> None:
    """Both agents met the same stored session: one went on with it, the other one's `verify` said no."""
    new = change(EMPTY, body("new", new=1), login(Found.UNUSABLE, heard_at=600.0), vouched=True)
    old = change(body("a"), body("b", old=1), login())
    found = folded(stored(body("a"), saved_at=500.0), new, old)
    assert (cookie_of(found.result), data_of(found.result)) == ("new", {"new": 1, "old": 1})
    assert [rebased.not_taken for _, rebased in found.applied] == [False, True]


def test_an_unchanged_save_brings_no_session_back_that_would_be_retired_by_now() -> None:
    """Mixed into a session of another agent that found nothing, an old login would outlive its `max_age`."""
    view = body("old")
    old = change(view, view, login(retire_at=900_000), waited=True)
    new = change(EMPTY, body("new"), login(Found.ABSENT), waited=True)
    found = folded(nothing(), old, new)
    assert [one.outcome for _, one in found.refused] == [SaveOutcome.SKIPPED]
    assert cookie_of(found.result) == "new"
    assert not folded(nothing(), replace(old, login=login(retire_at=1_100_000)), new).refused


def test_a_session_that_is_brought_back_is_as_old_as_it_was() -> None:
    """What another agent adds, which found nothing, gives it no new life."""
    view = body("a")
    old = change(view, view, login(created_at=CREATED_AT), waited=True)
    new = change(EMPTY, body("", x=1), login(Found.ABSENT), waited=True)
    found = folded(nothing(), old, new)
    header = next_header(found, None, save_id="a" * 12, now=NOW, config=Config())
    assert (cookie_of(found.result), data_of(found.result), header.created_at) == ("a", {"x": 1}, CREATED_AT)


@pytest.mark.parametrize("kind", [StoredKind.ABSENT, StoredKind.CORRUPT])
def test_an_agent_that_found_nothing_joins_what_was_stored_since_also_when_that_is_lost(kind: StoredKind) -> None:
    """Another agent went on with both while the store was away. None of the three is refused for another."""
    lost = replace(stored(body("a", n=1)), heard_at=700.0)
    joined = change(EMPTY, body("", x=1), login(Found.ABSENT, heard_at=600.0), made_at=650.0)
    view = body("a", n=1, x=1)
    later = change(view, body("a", n=1, x=1, y=1), made_at=750.0)
    found = folded(replace(nothing(kind), lost=lost), joined, later)
    header = next_header(found, None, save_id="a" * 12, now=NOW, config=Config())
    assert not found.refused
    assert (cookie_of(found.result), data_of(found.result)) == ("a", {"n": 1, "x": 1, "y": 1})
    assert (header.created_at, found.result.new_login) == (CREATED_AT, False)


@pytest.mark.parametrize(("heard_at", "invalidated_at"), [(600.0, 0), (400.0, 1)], ids=["loss", "invalidation"])
def test_an_agent_that_found_nothing_after_the_end_of_a_session_brings_a_login_of_its_own(
    heard_at: float, invalidated_at: int
) -> None:
    """It has nothing of the one before, and mixes with nothing of it. An enter that waits may have begun before the end."""
    lost = replace(stored(body("a", n=1)), heard_at=500.0)
    new = change(EMPTY, body("new"), login(Found.ABSENT, heard_at=heard_at, invalidated_at=invalidated_at))
    old = change(body("a", n=1), body("b", n=1), waited=True)
    found = folded(replace(nothing(invalidated_at=invalidated_at), lost=lost), new, old)
    assert [one for one, _ in found.refused] == [old]
    assert (cookie_of(found.result), data_of(found.result)) == ("new", {})


@pytest.mark.parametrize(("sent_over", "winner"), [(4, "mine"), (3, "theirs")])
def test_a_change_that_was_sent_over_a_lost_session_is_later_than_that(sent_over: int, winner: str) -> None:
    """Its reply was lost, and then the session. What was saved after the request is later by the server's clock."""
    lost = replace(stored(body("theirs"), saved_at=660.0), heard_at=700.0)
    mine = change(EMPTY, body("mine"), login(Found.ABSENT, heard_at=600.0), made_at=650.0, sent_over=sent_over)
    assert cookie_of(applied(mine, replace(nothing(), lost=lost))) == winner


def test_the_rest_of_a_session_survives_two_new_logins_of_agents_that_see_a_part() -> None:
    """The later of two vouched logins stands. It is about one site, so the stored state of the others stays."""
    domains = AllowedDomains(["shop.example"])
    there = document.dump(
        {"fingerprint": NAME, "storage_state": {"cookies": [COOKIE | {"domain": "pay.example"}], "origins": []}, "data": {}}
    )  # fmt: skip
    first = change(EMPTY, body("first"), login(Found.AWAY, heard_at=600.0), vouched=True)
    second = change(EMPTY, body("second"), login(Found.AWAY, heard_at=700.0), vouched=True, domains=domains)
    found = folded(stored(there, saved_at=500.0), first, second)
    cookies = document.load(*found.result.body)["storage_state"]["cookies"]
    assert {(cookie["domain"], cookie["value"]) for cookie in cookies} == {
        ("pay.example", "x"),
        ("shop.example", "second"),
    }


def test_of_two_vouched_logins_the_younger_one_stands_whichever_was_saved_first() -> None:
    """The older one has waited, or its process has stood still. It is younger than neither the other one nor what is stored."""
    old = change(EMPTY, body("old"), login(Found.AWAY, heard_at=400.0), vouched=True)
    new = change(EMPTY, body("new"), login(Found.AWAY, heard_at=600.0), vouched=True)
    for order in ((old, new), (new, old)):
        found = folded(stored(body("a"), saved_at=500.0), *order)
        assert cookie_of(found.result) == "new"
        assert [one for one, _ in found.refused] == [old]


def test_a_new_login_that_was_logged_out_again_leaves_the_stored_one() -> None:
    """What comes to nothing in the end replaces nothing."""
    one = login(Found.AWAY, heard_at=600.0)
    first = change(EMPTY, body("new"), one, vouched=True)
    there = stored(body("a"), saved_at=500.0)
    found = folded(there, first, change(body("new"), body(), one))
    assert found.result.body is there.body
    assert not found.applied
    assert len(found.refused) == 2


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_work_beside_a_login_that_was_logged_out_again_is_saved(first: bool) -> None:
    """An agent of the stored login loses nothing to a login that has come to nothing, whichever of the two saved first."""
    one = login(Found.AWAY, heard_at=600.0)
    moot = [change(EMPTY, body("new"), one, vouched=True), change(body("new"), body(), one)]
    work = change(body("a"), body("a", n=1), login(created_at=CREATED_AT))
    found = folded(stored(body("a"), saved_at=500.0), *([work, *moot] if first else [*moot, work]))
    assert found.result.body == body("a", n=1)
    assert [one for one, _ in found.applied] == [work]
    assert [one for one, _ in found.refused] == moot


def test_an_agent_that_goes_on_with_a_login_to_a_part_replaces_that_part_alone() -> None:
    """The first save of that login was dropped for room. Others have changed what is outside: it is merged, as by any agent."""
    part, other = AllowedDomains(["shop.example"]), {**COOKIE, "value": "old", "domain": "bank.example"}

    def state(cookie: str, outside: str, **data: Any) -> Body:
        inside = {**COOKIE, "value": cookie, "domain": "shop.example"}
        cookies = [inside, {**other, "value": outside}]
        return document.dump({"fingerprint": NAME, "storage_state": {"cookies": cookies, "origins": []}, "data": data})

    mine = login(Found.UNUSABLE, heard_at=450.0, created_at=CREATED_AT)
    dropped = change(EMPTY, body("new"), mine, domains=part, made_at=500.0, waited=True)
    then = change(state("new", "old"), state("new", "old", n=1), mine, built_on=[dropped])
    found = folded(stored(state("a", "changed since"), saved_at=600.0), then)
    assert found.result.body == state("new", "changed since", n=1)


@pytest.mark.parametrize("expired", [True, False])
def test_a_cookie_that_has_expired_is_not_deleted_where_it_is_missing(expired: bool) -> None:
    """Two agents start with a login that has ended. One logs in again, and the other has dropped the dead cookie."""
    before, renewed = expiring("old", NOW - 1 if expired else NOW + 1), expiring("new", NOW + 600)
    outcome = rebase(change(before, EMPTY), stored(renewed), MOMENT, retire_after_bad=RETIRES_AT)
    assert isinstance(outcome, Rebased)
    assert cookie_of(outcome) == ("new" if expired else "")
    # The same where the change of the other one is the later one.
    late = change(before, renewed, made_at=450.0)
    outcome = rebase(late, stored(EMPTY), MOMENT, retire_after_bad=RETIRES_AT)
    assert isinstance(outcome, Rebased)
    assert cookie_of(outcome) == ("new" if expired else "")

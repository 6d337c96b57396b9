"""What a process keeps of each session in memory: bounded, and nothing that waits is dropped without a word."""

from __future__ import annotations

import gc
import itertools
from dataclasses import replace

import pytest

from session_reuse import SaveOutcome
from session_reuse._session.changes import Change, Found, Login, Snapshot, StoredKind
from session_reuse._session.replica import Replica, Replicas
from session_reuse._state.document import Body
from session_reuse._state.header import Header
from session_reuse._store.interface import Lease


def snapshot(size: int = 0, heard_at: float = 1.0, kind: StoredKind = StoredKind.PRESENT) -> Snapshot:
    """Return what the store held at this time."""
    return Snapshot(kind=kind, heard_at=heard_at, value=bytes(size))


def text(content: str) -> Body:
    """Return a document."""
    return Body(content.encode(), "o")


def change(before: Body, after: Body, login: Login | None = None, **fields: object) -> Change:
    """Return a change."""
    one = login or Login(Found.STORED, 0.0, 0.0)
    return Change(**{"before": before, "after": after, "login": one, "made_at": 1.0, "ttl": 60.0, **fields})  # type: ignore[arg-type]


def chain(login: Login, count: int, **fields: object) -> list[Change]:
    """Return changes of one login, each of which starts where the one before ended."""
    states = [text(f"state {number}") for number in range(count + 1)]
    return [
        change(states[at], states[at + 1], login, **{"made_at": float(at), **fields}) for at in range(count)
    ]  # fmt: skip


def replicas(max_bytes: int = 10_000, pending_max: int = 100, pending_max_bytes: int = 100_000) -> Replicas:
    """Return empty replicas with these bounds."""
    return Replicas(max_bytes, pending_max, pending_max_bytes)


def test_an_answer_does_not_replace_a_later_one() -> None:
    """Replies overtake each other: what the store said to the later request stands."""
    replica = Replica("a", snapshot(heard_at=2.0))
    replica.observe(snapshot(heard_at=1.0, kind=StoredKind.ABSENT))
    assert replica.base.kind is StoredKind.PRESENT
    replica.observe(snapshot(heard_at=3.0, kind=StoredKind.ABSENT))
    assert replica.base.kind is StoredKind.ABSENT
    replica.observe(snapshot(heard_at=4.0, kind=StoredKind.UNKNOWN))
    assert replica.base.kind is StoredKind.ABSENT


def saved(*save_ids: str, at: int, version: int, heard_at: float = 1.0, answered_at: float = 2.0) -> Snapshot:
    """Return a session as it was saved at this time of the server."""
    header = Header(save_ids=tuple(one * 12 for one in save_ids), created_at=1, saved_at=at, version=version)
    return Snapshot(kind=StoredKind.PRESENT, heard_at=heard_at, header=header, answered_at=answered_at)


def test_of_requests_at_the_same_time_the_one_with_the_later_save_is_newer() -> None:
    """The clock of a server that takes over may be late: descent decides, and time where that is not known."""
    replica = Replica("a", saved("b", "a", at=2000, version=2))
    replica.observe(later := saved("c", "b", "a", at=1500, version=3))
    assert replica.base is later
    replica.observe(saved("b", "a", at=2000, version=2))
    assert replica.base is later
    replica.observe(saved("z", "y", at=1400, version=9))
    assert replica.base is later
    replica.observe(other := saved("z", "y", at=1600, version=2))
    assert replica.base is other


@pytest.mark.parametrize(("invalidated_at", "newer"), [(5, "present"), (6, "absent"), (None, "absent")])
@pytest.mark.parametrize("is_first", [True, False], ids=["the save is answered first", "the read is answered first"])
def test_of_requests_at_the_same_time_a_save_is_newer_than_nothing(
    invalidated_at: int | None, newer: str, *, is_first: bool
) -> None:
    """A read that was sent after a save may reach the store before it. Unless the session was invalidated, it has."""
    save = saved("a", at=2000, version=1, heard_at=1.0, answered_at=2.0)
    save = replace(save, invalidated_at=5)
    nothing = Snapshot(kind=StoredKind.ABSENT, heard_at=1.1, answered_at=1.9, invalidated_at=invalidated_at)
    first, second = (save, nothing) if is_first else (nothing, save)
    replica = Replica("a", first)
    replica.observe(second)
    assert replica.base.kind.value == newer


def test_nothing_is_newer_than_a_save_that_was_answered_before() -> None:
    """The store was emptied, and has forgotten the invalidation too. An agent that has entered before is no news."""
    replica = Replica("a", early := replace(saved("a", at=2000, version=1), invalidated_at=5))
    replica.observe(Snapshot(kind=StoredKind.ABSENT, heard_at=2.1, answered_at=2.2, invalidated_at=0))
    assert replica.base.kind is StoredKind.ABSENT
    replica.observe(early)
    assert replica.base.kind is StoredKind.ABSENT
    replica.observe(later := saved("b", at=1000, version=1, heard_at=2.3, answered_at=2.4))
    assert replica.base is later


@pytest.mark.parametrize(
    "answer", [("z", "b", "a"), ("b", "a")], ids=["another process has saved since", "nobody has saved since"]
)
def test_a_request_made_after_an_answer_is_newer_whatever_it_says(answer: tuple[str, ...]) -> None:
    """A fail-over has lost the save that this process knows: agents go on with what the store holds, in the next outage too."""
    replica = Replica("a", saved("c", "b", "a", at=2000, version=3))
    replica.observe(other := saved(*answer, at=1500, version=len(answer), heard_at=2.0, answered_at=3.0))
    assert replica.base is other


def test_memory_is_bounded_and_the_longest_unused_gives_way() -> None:
    """However many sessions a process serves, it keeps no more bytes of them than it was told to."""
    kept = replicas(max_bytes=10_000)
    for number in range(1000):
        replica = kept.of(str(number))
        kept.observe(replica, snapshot(size=400 + number % 700))
        held = [one for one in map(kept.find, map(str, range(number + 1))) if one is not None]
        assert sum(one.base.size for one in held) <= 10_000
    assert kept.find("999") is not None
    assert kept.find("0") is None


def test_an_outage_piles_up_no_replicas() -> None:
    """Sessions that were only asked for, and of which the store has never been heard, are bounded as well."""
    kept = replicas(max_bytes=10_000, pending_max=4)
    for number in range(1000):
        replica = kept.of(str(number))
        assert kept.find(str(number)) is replica
        if number % 2:
            kept.enqueue(replica, change(text("x"), text("y")))
    assert sum(kept.find(str(number)) is not None for number in range(1000)) < 30
    assert kept.pending == 4
    assert all(kept.find(replica.fingerprint) is replica for replica in kept.waiting())


def test_a_change_of_a_dropped_replica_waits_all_the_same() -> None:
    """A replica was dropped for room while its files were read: what they hold is found under its name."""
    kept = replicas(max_bytes=1_000)
    replica = kept.of("a")
    for name in ("b", "c"):
        kept.observe(kept.of(name), snapshot(size=400))
    assert kept.find("a") is None
    one = change(text("x"), text("y"))
    kept.enqueue(replica, one)
    found = kept.find("a")
    assert found is not None
    assert found.outbox == [one]
    assert list(kept.waiting()) == [found]


def test_nothing_is_kept_where_memory_is_switched_off() -> None:
    """`recent_bytes=0` keeps no session after its use."""
    kept = replicas(max_bytes=0)
    kept.observe(kept.of("a"), snapshot(size=10))
    assert kept.find("a") is None


@pytest.mark.parametrize("busy", ["outbox", "writing", "arriving"])
def test_a_session_with_unsaved_changes_stays(busy: str) -> None:
    """A replica whose changes wait, are on their way, or are about to be, is not dropped for room."""
    kept = replicas(max_bytes=0)
    replica = kept.of("a")
    if busy == "outbox":
        kept.enqueue(replica, change(text("x"), text("y")))
    elif busy == "writing":
        replica.writing = [change(text(""), text("a"))]
    else:
        replica.arriving.append(change(text("x"), text("y")))
    kept.observe(replica, snapshot(size=10))
    assert kept.find("a") is replica


def test_the_oldest_waiting_session_gives_way_and_is_reported() -> None:
    """Beyond `pending_max` sessions the one that waits longest is given up: its agent hears `lost`."""
    kept = replicas(pending_max=2)
    waiting = [change(text("x"), text(str(number))) for number in range(3)]
    dropped = [kept.enqueue(kept.of(str(number)), one) for number, one in enumerate(waiting)]
    assert dropped == [[], [], [(kept.of("0"), waiting[0])]]
    assert [one.outcome for one in waiting] == [SaveOutcome.LOST, None, None]
    assert kept.pending == 2
    assert [replica.fingerprint for replica in kept.waiting()] == ["1", "2"]


def test_waiting_bytes_are_bounded() -> None:
    """Beyond `pending_max_bytes` the oldest changes are given up, and a change larger than all the room itself."""
    kept = replicas(pending_max_bytes=10_000)
    first, second = change(text(""), text("x" * 6000)), change(text(""), text("y" * 6000))
    assert kept.enqueue(kept.of("a"), first) == []
    assert kept.enqueue(kept.of("b"), second) == [(kept.of("a"), first)]
    large = change(text(""), text("z" * 10_000))
    assert kept.enqueue(kept.of("c"), large) == [(kept.of("c"), large)]
    assert (first.outcome, second.outcome, large.outcome) == (SaveOutcome.LOST, None, SaveOutcome.LOST)


def test_changes_without_a_payload_are_bounded_too() -> None:
    """An unchanged save takes memory as well: bytes bound any number of sessions."""
    kept, same = replicas(pending_max=100_000, pending_max_bytes=20_000), text("")
    for number in range(1000):
        kept.enqueue(kept.of(str(number)), change(same, same))
    assert 10 < kept.pending < 20


def test_settled_changes_give_their_room_back() -> None:
    """An outbox that was written leaves room for the next one."""
    kept = replicas(pending_max=1, pending_max_bytes=10_000)
    for number in range(5):
        replica, one = kept.of(str(number)), change(text(""), text("x" * 8000))
        assert kept.enqueue(replica, one) == []
        kept.remove(replica, [one])
        assert kept.pending == 0


def test_a_change_that_takes_over_another_gives_back_what_it_took() -> None:
    """Its agent moves its start when the change before it was refused. The bound stands for those after it."""
    kept, one = replicas(pending_max_bytes=10_000), change(text(""), text("x" * 2000))
    kept.enqueue(kept.of("a"), one)
    one.before = text("y" * 8000)
    kept.remove(kept.of("a"), [one])
    rest = [change(text(""), text("z" * 2000)) for _ in range(3)]
    assert [kept.enqueue(kept.of(str(number)), one) for number, one in enumerate(rest)] == [[], [], []]
    assert kept.enqueue(kept.of("last"), change(text(""), text("z" * 2000))) != []


def test_a_long_outage_does_not_pile_up_changes() -> None:
    """Of many changes of one login the earliest become one, which goes from the first state to the last and is as old."""
    kept, replica = replicas(), Replica("a", snapshot())
    changes = chain(Login(Found.STORED, 0.0, 0.0), 20)
    first = changes[0].before
    for one in changes:
        assert kept.enqueue(replica, one) == []
    outbox = replica.outbox
    assert len(outbox) < 10
    assert outbox[0].before == first
    assert outbox[-1].after == changes[-1].after
    assert all(one.after == two.before for one, two in itertools.pairwise(outbox))
    assert outbox[0].made_at == 0.0
    assert [one.made_at for one in outbox] == sorted(one.made_at for one in outbox)


def test_a_session_without_a_request_gives_way() -> None:
    """It had to stay while one was on its way."""
    kept = replicas(max_bytes=0)
    replica = kept.of("a")
    replica.writing = [change(text(""), text("a"))]
    kept.observe(replica, snapshot(100))
    assert kept.find("a") is replica
    replica.writing = []
    kept.trim()
    assert kept.find("a") is None


def test_combined_changes_keep_no_documents_of_their_own() -> None:
    """Agents refer to them until they are settled: their documents would stay beside the bounds of memory."""
    kept, replica = replicas(), Replica("a", snapshot())
    changes = chain(Login(Found.STORED, 0.0, 0.0), 50)
    for at, one in enumerate(changes):
        one.built_on = changes[:at]
        kept.enqueue(replica, one)
    with_documents = [one for one in changes if one.before.data]
    assert len(with_documents) < 10
    assert not any(one.built_on for one in changes if one not in with_documents)
    assert {one.whole_change for one in changes} == set(replica.outbox)


def test_combined_changes_that_nobody_refers_to_are_let_go_of() -> None:
    """Each combined change kept those before it, and each of these a list of them: gigabytes in an outage of hours."""
    kept, replica = replicas(), Replica("a", snapshot())
    login, now = Login(Found.STORED, 0.0, 0.0), text("0")
    last = first = change(now, now := text("1"), login=login)
    kept.enqueue(replica, first)
    for number in range(2, 2000):
        last = change(now, now := text(str(number)), login=login)
        kept.enqueue(replica, last)
    gc.collect()
    assert sum(isinstance(one, Change) for one in gc.get_objects()) < 50
    for one in replica.outbox:
        one.settle(SaveOutcome.SAVED)
    assert first.outcome is last.outcome is SaveOutcome.SAVED


def test_a_change_that_is_on_its_way_is_not_combined() -> None:
    """A request is made of it: what comes from disk meanwhile leaves it as it is."""
    kept, replica = replicas(), Replica("a", snapshot())
    replica.writing = [change(text(""), text("a"))]
    changes = chain(Login(Found.STORED, 0.0, 0.0), 20)
    for one in changes:
        kept.enqueue(replica, one)
    assert replica.outbox == changes
    assert all(one.after.data for one in changes)


def test_combined_changes_share_what_becomes_of_them() -> None:
    """Each agent hears of its own change, also when it was written as a part of another."""
    kept, replica = replicas(), Replica("a", snapshot())
    changes = chain(Login(Found.STORED, 0.0, 0.0), 20)
    for one in changes:
        kept.enqueue(replica, one)
    for one in list(replica.outbox):
        one.settle(SaveOutcome.MERGED)
    assert {one.outcome for one in changes} == {SaveOutcome.MERGED}


def test_combined_changes_add_up_their_marks() -> None:
    """Vouching and marks of a part hold for the whole."""
    kept, replica = replicas(), Replica("a", snapshot())
    changes = chain(Login(Found.STORED, 0.0, 0.0), 9, score_change=-5)
    changes[0].vouched = True
    for one in changes:
        kept.enqueue(replica, one)
    assert sum(one.score_change for one in replica.outbox) == -45
    assert replica.outbox[0].vouched


def test_combined_changes_are_found_under_the_name_of_the_last() -> None:
    """Another process has read them from disk one by one, and may settle them."""
    kept, replica = replicas(), Replica("a", snapshot())
    changes = chain(Login(Found.STORED, 0.0, 0.0), 12)
    for at, one in enumerate(changes):
        one.name = f"name {at}"
        kept.enqueue(replica, one)
    assert [one.name for one in replica.outbox] == [one.name for one in changes[-len(replica.outbox) :]]
    assert replica.outbox[0].before.data == b"state 0"


def test_a_change_on_disk_is_not_combined_with_one_that_is_not() -> None:
    """Another process that knows the first one alone would settle both."""
    kept, replica = replicas(), Replica("a", snapshot())
    changes = chain(Login(Found.STORED, 0.0, 0.0), 12)
    for at, one in enumerate(changes):
        one.name = "" if at % 2 else f"name {at}"
        one.score_change, one.mark_id = (5, one.name)
        kept.enqueue(replica, one)
    assert replica.outbox == changes


def test_what_is_left_of_an_outbox_gets_new_names() -> None:
    """Another process takes a name that is stored for a sign that those before it are settled. One of them was dropped."""
    kept, replica = replicas(pending_max_bytes=2500), Replica("a", snapshot())
    first, second, third = chain(Login(Found.STORED, 0.0, 0.0), 3)
    first.name, second.name = "one", "two"
    dropped = [kept.enqueue(replica, one) for one in (first, second, third)]
    assert dropped == [[], [], [(replica, first)]]
    assert [one.name for one in replica.outbox] == ["", ""]


def test_of_requests_at_the_same_time_a_new_login_is_newer_than_the_one_it_has_replaced() -> None:
    """The read was sent after the save, and reached the store before it."""
    new = saved("b", "a", at=2000, version=2, heard_at=1.0, answered_at=2.0)
    assert new.header is not None
    new = replace(new, header=replace(new.header, created_at=2))
    replica = Replica("a", saved("a", at=1000, version=1, heard_at=1.5, answered_at=1.9))
    replica.observe(new)
    assert replica.base is new
    replica.observe(saved("a", at=1000, version=1, heard_at=1.5, answered_at=2.1))
    assert replica.base is new


@pytest.mark.parametrize("kind", ["logins", "leases", "marks", "sent", "gaps"])
def test_what_does_not_belong_together_is_not_combined(kind: str) -> None:
    """Changes of two logins, under a lease, marks, changes that may have arrived, and branches stay apart."""
    kept, replica = replicas(), Replica("a", snapshot())
    changes = chain(Login(Found.STORED, 0.0, 0.0), 12)
    for number, one in enumerate(changes):
        if kind == "logins":
            one.login = Login(Found.STORED, 0.0, 0.0)
        elif kind == "leases":
            one.lease = Lease(number, "me")
        elif kind == "marks":
            one.mark_only = True
        elif kind == "sent":
            one.ids.append("0123456789ab")
        else:
            one.before = text(f"elsewhere {number}")
        kept.enqueue(replica, one)
    assert replica.outbox == changes

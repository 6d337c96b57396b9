"""What this process knows of each session: the last stored document, and the changes that are not confirmed yet.

One object serves as cache, as queue of waiting saves and as what agents start from while the store is away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from weakref import WeakSet

from session_reuse._session.changes import INVALIDATED, NEVER_HEARD, Change, Login, Snapshot, StoredKind
from session_reuse._session.clock import elapsed
from session_reuse._state.document import NO_BODY
from session_reuse.outcome import SaveOutcome

_LONGEST_OUTBOX = 8
"""Changes of one session that wait one by one. Of more, the earliest that follow each other become one."""
_REMEMBERED = 4096


@dataclass(slots=True, eq=False)
class Replica:
    """One session as this process knows it.

    Attributes:
        base: what the store held when it was heard last.
        outbox: changes that are not confirmed, the earliest first.
        arriving: changes whose agents wait while an earlier one is on its way.
        arrived_at: when the first of them came, by the time of budgets.
        writing: changes that a request on its way is about.
        invalidated_at: `elapsed()` when this process began to invalidate the session last.
        invalidated_login: the login that was stored then, by its time of creation. 0 if there was none.
        counted: bytes of the base that the bounds of memory know of.
        base_on_disk: when the base on disk was heard.
    """

    fingerprint: str
    base: Snapshot
    outbox: list[Change] = field(default_factory=list)
    arriving: list[Change] = field(default_factory=list)
    arrived_at: float = 0.0
    writing: list[Change] = field(default_factory=list)
    invalidated_at: float = float("-inf")
    invalidated_login: int = 0
    counted: int = 0
    base_on_disk: float = NEVER_HEARD.heard_at

    @property
    def unsettled(self) -> list[Change]:
        """All changes that are on their way or wait."""
        known = dict.fromkeys([*self.outbox, *self.writing, *self.arriving])
        return [change for change in known if change.outcome is None]

    def refuse_invalidated(self, changes: Iterable[Change]) -> None:
        """Settle the changes of logins that were invalidated. An agent may have entered while this process did that."""
        for change in changes:
            login = change.login
            unheard = login.heard_at < self.invalidated_at or login.created_at == self.invalidated_login != 0
            if unheard or login.is_over:
                change.settle(SaveOutcome.STALE, INVALIDATED)

    def observe(self, snapshot: Snapshot) -> None:
        """Take over what the store said, unless the store has said something newer."""
        if snapshot is not self.base and snapshot.kind is not StoredKind.UNKNOWN and _is_newer(snapshot, self.base):
            self.base = snapshot
            if snapshot.header is not None and snapshot.header.created_at == self.invalidated_login:
                self.invalidated_login = 0  # the store has it all the same

    def invalidate(self, began: float, login: int = 0) -> None:
        """Forget the session, as of an invalidation that began at this time. What was heard before now is too old."""
        self.invalidated_at, self.invalidated_login = began, login
        self.base = Snapshot(kind=StoredKind.UNKNOWN, heard_at=elapsed())


def _is_newer(snapshot: Snapshot, base: Snapshot) -> bool:
    """Return whether a snapshot is at least as new as another.

    A request that was sent when the other was answered is newer, also after a fail-over that has lost saves. Of requests
    at the same time, replies may arrive in any order: descent decides, or the time of the last save. A session is newer than
    nothing, unless it was invalidated.
    """
    if snapshot.heard_at >= base.answered_at:
        return True
    if base.heard_at >= snapshot.answered_at:
        return False
    one, other = snapshot.header, base.header
    if {snapshot.kind, base.kind} == {StoredKind.ABSENT, StoredKind.PRESENT}:
        present, absent = (base, snapshot) if one is None else (snapshot, base)
        if absent.invalidated_at is not None:  # else nobody can tell whether it was stored, or invalidated, last
            return (one is None) is (absent.invalidated_at > (present.invalidated_at or 0))
    if one and other and (one.contains(other) or other.contains(one)):  # as a new login does the one it has replaced
        return one.contains(other)
    if one is None or other is None or one.created_at != other.created_at:
        return snapshot.heard_at >= base.heard_at
    return (one.saved_at, one.version) >= (other.saved_at, other.version)


class Invalidated(NamedTuple):
    """An invalidation by this process: when it began and ended, by `elapsed()`, and the login that was stored, as in `Replica`."""

    began: float
    ended: float
    login: int


class Replicas:
    """The replicas of one manager, within bounds of memory. A replica with an outbox is never dropped for room.

    Args:
        max_bytes: what bases may take.
        pending_max: how many sessions may have an outbox.
        pending_max_bytes: what outboxes may take.
        invalidated: what the managers of this process have invalidated in the store. They share it.

    Attributes:
        last_fingerprints: what each agent used last, for when the store cannot be asked.
    """

    def __init__(
        self,
        max_bytes: int,
        pending_max: int,
        pending_max_bytes: int,
        invalidated: dict[str, Invalidated] | None = None,
    ) -> None:
        self.last_fingerprints: dict[str, str] = {}
        self._replicas: dict[str, Replica] = {}
        self._bounds = (max_bytes, pending_max, pending_max_bytes)
        self._invalidated = {} if invalidated is None else invalidated
        self._base_bytes = 0
        self._waiting: dict[str, Replica] = {}
        self._outbox_bytes = 0

    @property
    def pending(self) -> int:
        """How many sessions have changes that wait."""
        return len(self._waiting)

    @property
    def are_writing(self) -> bool:
        """Whether a request that writes is on its way."""
        return any(replica.writing for replica in self._replicas.values())

    def waiting(self) -> Iterator[Replica]:
        """Return the replicas whose changes wait, those that wait longest first."""
        return iter(list(self._waiting.values()))

    def unsettled(self) -> list[Replica]:
        """Return the replicas with changes that wait or are on their way."""
        return [replica for replica in self._replicas.values() if replica.unsettled]

    def successor(self, *, has_disk: bool) -> Replicas:
        """Return what is known, without what waits: for the next event loop of this process.

        Args:
            has_disk: whether what waits is on disk. Such a session is read from there.
        """
        heir = Replicas(*self._bounds, self._invalidated)
        heir.last_fingerprints.update(self.last_fingerprints)
        for name, known in self._replicas.items():
            base = NEVER_HEARD if has_disk and known.outbox else known.base
            left = Replica(name, base, invalidated_at=known.invalidated_at, invalidated_login=known.invalidated_login)
            heir._replicas[name] = left
            heir._count(left)
        return heir

    def join(self, later: Replicas) -> None:
        """Take over what is known in another event loop that has ended."""
        for name, known in later._replicas.items():
            self.observe(self.of(name), known.base)
        for agent_id, fingerprint in later.last_fingerprints.items():
            self.remember_fingerprint(agent_id, fingerprint)

    def remember_fingerprint(self, agent_id: str, fingerprint: str) -> None:
        """Note an agent's last fingerprint. The oldest notes give way."""
        self.last_fingerprints.pop(agent_id, None)
        self.last_fingerprints[agent_id] = fingerprint
        if len(self.last_fingerprints) > _REMEMBERED:
            del self.last_fingerprints[next(iter(self.last_fingerprints))]

    def of(self, fingerprint: str) -> Replica:
        """Return the replica of a session, made if there is none."""
        replica = self._replicas.get(fingerprint)
        if replica is None:
            replica = self._replicas[fingerprint] = Replica(fingerprint, NEVER_HEARD)
            self._count(replica, keep=replica)  # an outage meets any number of sessions, and hears of none
        return replica

    def find(self, fingerprint: str) -> Replica | None:
        """Return the replica of a session, if there is one."""
        return self._replicas.get(fingerprint)

    def observe(self, replica: Replica, snapshot: Snapshot) -> None:
        """Take over what the store said of a session, as the one used last. Those used longest ago give way."""
        replica.observe(snapshot)
        known = self._replicas[replica.fingerprint] = self._replicas.pop(replica.fingerprint, replica)
        if known is replica:  # else it was dropped for room, and made anew
            self._count(replica)

    def invalidate(self, replica: Replica, began: float, login: int = 0) -> None:
        """Forget a session, as `Replica.invalidate`, in all managers of this process: they heed it when they need to know."""
        self._invalidated.pop(replica.fingerprint, None)
        self._invalidated[replica.fingerprint] = Invalidated(began, elapsed(), login)
        if len(self._invalidated) > _REMEMBERED:
            del self._invalidated[next(iter(self._invalidated))]
        replica.invalidate(began, login)

    def heed(self, replica: Replica) -> bool:
        """Forget a session that another manager has invalidated since the store was heard. Return whether there is one."""
        other = self._invalidated.get(replica.fingerprint)
        if other is None or replica.base.heard_at >= other.ended:
            return False
        replica.invalidate(other.began, other.login)
        return True

    def _count(self, replica: Replica, keep: Replica | None = None) -> None:
        """Count what a base takes."""
        size = replica.base.size
        self._base_bytes += size - replica.counted
        replica.counted = size
        self.trim(keep)

    def trim(self, keep: Replica | None = None) -> None:
        """Drop the bases used longest ago that are too many."""
        while self._base_bytes > self._bounds[0]:
            unused = (one for one in self._replicas.values() if not (one.outbox or one.writing or one.arriving))
            idle = next((one for one in unused if one is not keep), None)
            if idle is None:
                return
            self._base_bytes -= idle.counted
            idle.counted = 0
            del self._replicas[idle.fingerprint]

    def enqueue(self, replica: Replica, change: Change) -> list[tuple[Replica, Change]]:
        """Append a change to the outbox. Return the changes that had to be dropped, each with its replica.

        A change that is larger than all the room is dropped itself. Else those of the sessions that wait longest are, first
        what stays on disk.
        """
        _, max_entries, max_bytes = self._bounds
        if change.size > max_bytes or max_entries < 1:
            change.settle(SaveOutcome.LOST)
            return [(replica, change)]
        replica = self._replicas.setdefault(replica.fingerprint, replica)  # dropped for room, and maybe made anew
        change.waited = True
        replica.outbox.append(change)
        self._outbox_bytes += change.size
        self._waiting.setdefault(replica.fingerprint, replica)
        self._combine(replica)
        dropped: list[tuple[Replica, Change]] = []
        while len(self._waiting) > max_entries or self._outbox_bytes > max_bytes:
            waiting = self._waiting.values()
            oldest = next((one for one in waiting if one.outbox[0].is_adopted), None) or next(iter(waiting))
            lost = oldest.outbox[0]
            self.remove(oldest, [lost])
            lost.settle(SaveOutcome.LOST)
            for left in oldest.outbox if lost.name else ():
                left.name = ""  # on disk, a name that is stored says that those before it are settled, too
            dropped.append((oldest, lost))
        return dropped

    def remove(self, replica: Replica, changes: list[Change]) -> None:
        """Take changes out of an outbox."""
        for change in changes:
            if change in replica.outbox:
                replica.outbox.remove(change)
                change.built_on = ()  # else each change of an outage would keep all those before it
                self._outbox_bytes -= change.size
        if not replica.outbox:
            self._waiting.pop(replica.fingerprint, None)

    def _combine(self, replica: Replica) -> None:
        """Keep an outbox short: a change that starts where the one before it ended becomes one with it."""
        outbox = replica.outbox
        if replica.writing:  # a request may be made of these very changes
            return
        for at in range(1, len(outbox)) if len(outbox) > _LONGEST_OUTBOX else ():
            first, second = outbox[at - 1], outbox[at]
            if _follows(first, second):
                self._outbox_bytes -= first.size + second.size
                outbox[at - 1 : at + 1] = [combined := _combined(first, second)]
                for part in (first, *first.parts):  # agents keep some until they are settled
                    part.before = part.after = part.whole = NO_BODY
                    part.built_on = ()
                for part in combined.parts:
                    part.combined = combined
                self._outbox_bytes += combined.size
                return


def _follows(first: Change, second: Change) -> bool:
    return bool(
        _is_one(first.login, second.login)
        and first.agent_id == second.agent_id
        and first.lease is second.lease is None
        and first.after == second.before
        and first.domains == second.domains
        and not (first.mark_only or second.mark_only or first.ids or second.ids)
        # Another process may have read them from disk: what it settles has to be found under the name of both.
        and (second.name or not first.name)
        and (first.mark_id == second.mark_id or not (first.score_change or second.score_change))
    )


def _is_one(first: Login, second: Login) -> bool:
    """Return whether two agents continue one login, and know the same of it: one after the other, while the store is away."""
    return first is second or (
        first.is_same(second) and (first.heard_at, first.invalidated_at) == (second.heard_at, second.invalidated_at)
    )


def _combined(first: Change, second: Change) -> Change:
    """Return both changes as one, as old as the earlier one, so that it wins over nothing that came in between."""
    return replace(
        second,
        before=first.before,
        made_at=first.made_at,
        ttl=max(first.ttl, second.made_at + second.ttl - first.made_at),
        vouched=first.vouched or second.vouched,
        score_change=first.score_change + second.score_change,
        parts=WeakSet([*first.parts, *second.parts, first, second]),
        uses=(*first.uses, *second.uses),
    )

"""What may be seen and stored: a pure model of the promises. It watches the server and the agents and does no I/O.

Every value an agent writes is unique and names its fingerprint, so that the model knows of each stored value who wrote
it, when, and what that agent had seen. A *change* is one item set or deleted by one visit. The invariants:

`foreign`    A restored or stored state holds values of its fingerprint only.
`torn`       A stored value opens as a whole, and an enter that was answered by the store shows exactly one of the states
             that stood there while it ran. Two items that are always changed together agree.
`older`      A value that was replaced or deleted in the store never comes back, but for a save whose reply was lost and that
             the session has forgotten. A change that waited does not replace a change that was made after it. After a
             fail-over, an eviction of the session or a restart without data, only what was replaced since then, and stayed
             so, counts. What a manager brings back into a store without the session is not older than what it has stored.
`lost`       An item leaves the store only because a visit deleted it, a new login replaced the session, or the session was
             invalidated. A save that returned saved, merged or unchanged is in the store, or lost to a later change.
`revived`    After `invalidate` or `evict` has returned, nothing of the session is stored or restored again: no value from
             before, and no value of a visit that was restored from one.
`ttl`        No one shortens a time to live, except a new login to its own and a session to its own ceiling.
`ceiling`    No time to live exceeds the ceiling that `max_age` or `ttl_from_cookies` has set.
`replaced`   A process that cannot open a stored value (another key, no key) does not replace it. A visit that never saw the
             stored session, because the store was away, neither replaces it nor mixes its own login into it, unless its
             login was vouched for.
`exclusive`  An exclusive enter that is `reused` has taken the lease. A lease is not released or lost under a running
             body while all is well. What a holder saves after another one has taken the lease is not stored.
`lease`      A lease ends soon after its holder has left or given up, while the process lives and reaches the store.
`promise`    `settled` ends. What was told `pending` or `spooled`, or left in any other way with changes, is at the end stored, superseded by
             a later change, refused for an invalidation or a lost lease, or counted as lost. No agent takes a lease over a
             save of its own process that waits.
`skipped`    A save is skipped only for the reasons of the contract. A session seen to be empty is a logout and is stored.
`stale`      A save is stale only after an invalidation or a lost lease.
`scope`      An agent with `allowed_domains` is given items inside only, and what it changes outside is not stored. The items
             outside obey all the rules above: they leave or change by others only. `save="never"` stores nothing.
`pool`       A member is not handed out before its cooldown is over or after it was removed. While all is well, a member that
             is free, in the pool and not retired goes to a waiter, also when its last holder has died and its lease is
             over, and no waiter is overtaken by three later ones. That no two agents hold one says `exclusive`.
`mark`       A mark counts once. A wait for a lease does not use up `max_uses`.
`reuse`      An enter that was answered finds what is there: `missing`, `retired`, `corrupt`, `busy` only when that is so at a
             moment of the enter, and a degraded outcome only after trouble. While the store is away a process reuses what
             it knows, and never less than it has seen confirmed, for `reuse_while_away` or a time to live after it has
             heard of it last, whichever is less.
`growth`     Every key but the index of deadlines ends on its own.
`late`       Every enter, save and close ends within its budget.
`raised`     Nothing reaches the agent that the contract does not name. Its own error and its cancellation come out.
`hung`       Everything ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from session_reuse import Outcome, SaveOutcome
from session_reuse._state.header import REMEMBERED_SAVES
from session_reuse.errors import CorruptStateError
from tests.simulation import seams
from tests.simulation.history import FINGERPRINTS, OUTSIDE, POOL
from tests.simulation.network import Network, SimConnection, Words

Items = dict[str, int]
CALM_AFTER: Final = 15.0
"""Seconds after the last trouble from which on degraded outcomes are the client's fault."""
LEASE_GRACE: Final = 6.0
RESERVED: Final = 3.0
"""Seconds for which a member may be reserved for an agent that has died before it had the lease."""
CEILING_GRACE: Final = 0.2
"""Seconds within which an enter may set a time to live right that it has prolonged before it knew the ceiling."""
AT_ONCE: Final = 0.1
"""Seconds by which a process may be wrong about the server's clock: what the network takes."""
RACE: Final = 1.0
"""Seconds after which a save that is on its way has waited."""
RETIRED_AT: Final = 30
"""Error score from which a session is retired, in tenths."""
SAVE_SPAN: Final = 2.5
"""Seconds within which two saves count as made at once."""
CONFIRMED: Final = {SaveOutcome.SAVED, SaveOutcome.MERGED, SaveOutcome.UNCHANGED}


class Violation(Exception):  # noqa: N818
    """A promise that was broken.

    Attributes:
        kind: which invariant.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"[{kind}] {text}")
        self.kind = kind


@dataclass(slots=True, eq=False)
class Change:
    """One item set or deleted by one visit.

    Attributes:
        serial: the value that was set. 0 for a deletion.
        saw: the value the visit had there before.
        saved: when a save of it first began.
        appeared: when it was first seen in the store.
    """

    serial: int
    item: str
    visit: Visit
    made: float
    saw: int | None
    saved: float = float("inf")
    appeared: float = float("inf")
    arrived: float = float("inf")
    """When it was last put into the store."""
    save_id: str = ""
    """Of the save that has first put it into the store."""
    logins: set[int] = field(default_factory=set)
    """Times of creation of the stored sessions that it was part of."""
    promised: bool = False
    spooled: bool = False
    confirmed: bool = False

    @property
    def in_storage(self) -> bool:
        """Whether it belongs to the storage state, not to the agent's notes."""
        return not self.item.startswith("d:")

    def __str__(self) -> str:
        deed = f"{self.item}={self.serial}" if self.serial else f"del {self.item}"
        return f"{deed} by {self.visit} at {self.made:.3f}"


@dataclass(slots=True, eq=False)
class Visit:
    """One agent's visit, as the model sees it."""

    number: int
    fingerprint: str
    process: Any
    manager: Any
    options: dict[str, Any]
    begun: float
    by_hand: bool = False
    entered: float = float("inf")
    leaving: float = float("inf")
    left: float = float("inf")
    outcome: Outcome | None = None
    stale: bool = False
    saved: SaveOutcome | None = None
    restored: Items = field(default_factory=dict)
    login: int = 0
    """Time of creation of the session that it was given, 0 if not known."""
    version: int = 0
    """Of the session that its manager knew when it had entered, 0 if not known."""
    saved_in: set[int] = field(default_factory=set)
    """Times of creation of the sessions that its manager has stored while a save of it was confirmed."""
    changes: dict[str, Change] = field(default_factory=dict)
    saving: int = 0
    """How many of its saves are under way."""
    waits: bool = False
    """Whether its last save has to wait for the store, also one that brings nothing but a longer time to live."""
    discarded: bool = False
    marked_bad: bool = False
    doubtful: bool = False
    """Whether it was ever marked bad."""
    vouched: bool = False
    looked: bool = True
    failed: bool = False
    followed: bool = False
    final: SaveOutcome | None = None
    """What its last save came to, where that was followed."""
    not_taken: bool = False
    """Whether it was told that its storage state was left out, since another login is stored."""
    ending: str = "at work"
    doubted: bool = False
    """Whether its `verify` said no when it was asked last."""
    cooldown: float = 0.0
    was_vouched: bool = False
    lost_lease: bool = False
    """Whether the server has lost its lease."""

    @property
    def pooled(self) -> bool:
        """Whether it takes what a pool hands out."""
        return bool(self.options.get("pool"))

    @property
    def brings(self) -> Items:
        """What it was given, with its changes."""
        changed = {**self.restored, **{change.item: change.serial for change in self.changes.values()}}
        return {item: serial for item, serial in changed.items() if serial}

    def sees(self, item: str) -> bool:
        """Return whether an item is handed to it."""
        return not self.options.get("allowed_domains") or item not in OUTSIDE

    def inside(self, items: Items | None) -> Items | None:
        """Return the items that are handed to it."""
        return items if items is None else {item: serial for item, serial in items.items() if self.sees(item)}

    @property
    def reused(self) -> bool:
        """Whether it was given a state."""
        return self.outcome is Outcome.REUSED

    @property
    def unknowing(self) -> bool:
        """Whether it never saw the stored state, because the store was away."""
        return not self.by_hand and self.outcome is not None and self.outcome.degraded

    @property
    def replacing(self) -> bool:
        """Whether it may replace the stored session as a whole."""
        if self.by_hand or self.outcome in {Outcome.RETIRED, Outcome.UNVERIFIED, Outcome.CORRUPT}:
            return True
        return (self.unknowing or self.on_unsaved) and self.is_vouched

    @property
    def on_unsaved(self) -> bool:
        """Whether it went on, while the store was away, with a login that has never been stored."""
        return self.stale and not self.login

    @property
    def is_vouched(self) -> bool:
        """Whether its login was said to work, at one of its saves."""
        return self.vouched or self.was_vouched or self.options.get("verify") in {"passes", "fails first"}

    @property
    def active(self) -> bool:
        """Whether its body runs."""
        return (
            not self.manager.crashed
            and self.entered < float("inf")
            and self.leaving == float("inf")
            and not self.process.host.dead
        )

    @property
    def how(self) -> str:
        """How it entered and left, for people."""
        entered = "by hand" if self.by_hand else f"{self.outcome}{' stale' if self.stale else ''}"
        return f"{entered}, {self.ending}"

    def __str__(self) -> str:
        return f"a{self.number}@{self.process.name}"


@dataclass(slots=True, eq=False)
class Version:
    """What stood under a session's key for a while. No items: nothing did."""

    start: float
    items: Items | None
    stored: seams.Stored | None
    deadline: float = float("inf")
    """Loop time."""
    end: float = float("inf")
    damaged: bool = False
    maker: Any = None
    """The manager that stored it."""
    actor: Any = None
    """The manager that stored or prolonged it last."""
    touched: float = 0.0
    """When its time to live was set last."""
    retired_until: float = -1.0
    """When a good mark last ended that it was retired."""

    def overlaps(self, begin: float, end: float) -> bool:
        """Return whether it stood there at a moment of a span."""
        return self.start <= end and min(self.end, self.deadline) >= begin


@dataclass(slots=True, eq=False)
class Session:
    """One fingerprint, as the store has seen it."""

    fingerprint: str
    key: bytes
    lease_key: bytes
    versions: list[Version] = field(default_factory=list)
    raw: bytes | None = None
    retired: dict[int, float] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)
    changes: list[Change] = field(default_factory=list)
    by_item: dict[str, list[Change]] = field(default_factory=dict)
    lost_at: float = -1.0
    """When the store last lost data of it."""
    evictions: list[list[float]] = field(default_factory=list)
    """[begun, returned] of each attempt to invalidate it; infinity while under way or when it failed."""
    meant: dict[float, int] = field(default_factory=dict)
    """Which login each attempt is about, by when it began: its time of creation, 0 for any."""
    damaged_at: float = -1.0
    replaced_at: float = -1.0
    bad_issued: int = 0
    bad_applied: int = 0
    good_issued: int = 0
    good_applied: int = 0
    uses_issued: int = 0
    uses_applied: int = 0
    holder: int | None = None
    held_since: float = 0.0
    holders: list[tuple[float, int]] = field(default_factory=list)

    @property
    def current(self) -> Version:
        """The last version, which may have expired."""
        return self.versions[-1]

    def live(self, now: float) -> Version:
        """Return what stands there now."""
        version = self.current
        if version.items is not None and version.deadline <= now:
            version.end = version.deadline
            self.lost_at = max(self.lost_at, version.deadline)
            self.retired.clear()
            self.versions.append(Version(version.deadline, None, None))
        return self.current


class Oracle:
    """Judges one history.

    Args:
        network: whose server it watches.
        fingerprints: which sessions there are.
        tolerance: how far the clocks of two processes may be apart, in seconds.
    """

    def __init__(self, network: Network, fingerprints: list[str], tolerance: float, ignored: frozenset[str]) -> None:
        self.network = network
        self.loop = network.loop
        self.tolerance = tolerance
        self.ignored = ignored
        self.sessions = {
            name: Session(name, seams.session_key(name), seams.side_key("lease", name)) for name in fingerprints
        }
        self._by_key = {session.key: session for session in self.sessions.values()}
        self._by_lease = {session.lease_key: session for session in self.sessions.values()}
        self._tombstones = {seams.side_key("tombstone", name): self.sessions[name] for name in fingerprints}
        for session in self.sessions.values():
            session.versions.append(Version(-1.0, None, None))
        self.writes: dict[int, Change] = {}
        self.visits: dict[int, Visit] = {}
        self.lines: list[tuple[Any, ...]] = []
        self._is_awaited = True
        self.violations: dict[str, Violation] = {}
        """The first of each kind."""
        network.executed = self.executed
        self.pool = Pool(self)

    # Reports -----------------------------------------------------------------------------------------------------------

    def say(self, *words: Any) -> None:
        """Add a line to the history."""
        self.lines.append((self.loop.time(), *words))

    def break_(self, kind: str, text: str) -> None:
        """Note a broken promise. The first one ends the history, unless all are to be counted."""
        if kind in self.ignored or kind in self.violations or self.loop.over:
            return
        self.violations[kind] = Violation(kind, text)
        self.say("!!", str(self.violations[kind]))

    @property
    def violation(self) -> Violation | None:
        """The first broken promise."""
        return next(iter(self.violations.values()), None)

    # What the server does ------------------------------------------------------------------------------------------------

    def executed(self, connection: SimConnection, command: Words, reply: Any) -> None:
        """Look at what a command has changed."""
        touched = self.network.server.touched
        if not touched:
            return
        self._is_awaited = connection.is_connected and not connection.is_repeating
        for key in touched:
            if key in self._by_key:
                self._changed(self._by_key[key], connection.pool.owner, self.what(command))
            elif key in self._by_lease:
                self._lease_changed(self._by_lease[key], self.what(command))

    def what(self, command: Words) -> str:
        """Return a command's name, or its script's."""
        name = command[0].decode()
        return self.network.names.get(command[1], name) if name in {"EVAL", "EVALSHA"} else name

    def deadline(self, key: bytes) -> float:
        """Return the loop time at which a key ends."""
        server = self.network.server
        expires = server.expires.get(key)
        return float("inf") if expires is None else self.loop.time() + (expires - server.now) / 1000

    def _changed(self, session: Session, actor: Any, what: str) -> None:
        now = self.loop.time()
        before = session.live(now)
        raw = self.network.server.values.get(session.key)
        deadline = self.deadline(session.key) if raw is not None else float("inf")
        if raw == session.raw:
            if raw is not None and before.items is not None:
                self._check_ttl(session, before, before.stored, deadline, actor, what)
                before.deadline, before.touched, before.actor = deadline, now, actor or before.actor
            return
        session.raw = raw if isinstance(raw, bytes) else None
        if session.raw is None:
            self._deleted(session, before, now, actor, what)
            return
        try:
            stored = seams.decode(session.raw, session.key)
            items = items_of(stored.document, session.fingerprint)
        except (CorruptStateError, ValueError) as error:
            if before.damaged:
                return
            self.break_(
                "foreign" if isinstance(error, ValueError) else "torn",
                f"{what} by {actor} stored what does not open: {error}",
            )
            return
        if before.items == items and before.items is not None:
            self._check_counts(session, before.stored, stored)
            self._check_ttl(session, before, stored, deadline, actor, what)
            if before.stored is not None and before.stored.score >= 30 > stored.score:
                before.retired_until = now
            before.stored, before.deadline, before.touched, before.actor = stored, deadline, now, actor
            return
        before.end = now
        after = Version(now, items, stored, deadline, touched=now, maker=actor, actor=actor)
        self.say(
            "  store",
            session.fingerprint,
            f"v{stored.version}",
            shown(items),
            f"ttl {deadline - now:.1f}",
            f"({what} by {actor})",
        )
        if before.items is not None:
            self._check_counts(session, before.stored, stored)
        self._check_transition(session, before, after, actor)
        if before.items is not None:
            self._check_ttl(session, before, stored, deadline, actor, what)
        session.versions.append(after)

    def _deleted(self, session: Session, before: Version, now: float, actor: Any, what: str) -> None:
        if before.items is None:
            return
        before.end = now
        session.versions.append(Version(now, None, None))
        self.say("  store", session.fingerprint, "deleted", f"({what} by {actor})")
        if not any(begun <= now for begun, _ in session.evictions):
            self.break_("lost", f"{what} by {actor} deleted {session.fingerprint}, and nobody asked for it")

    def _check_counts(self, session: Session, before: seams.Stored | None, after: seams.Stored) -> None:
        if before is None or before.created_at != after.created_at:
            return
        if after.score > before.score:
            session.bad_applied += -(-(after.score - before.score) // 10)
            if session.bad_applied > session.bad_issued:
                self.break_(
                    "mark",
                    f"{session.bad_applied} bad marks count in {session.fingerprint}, {session.bad_issued} were given",
                )
        if after.score < before.score:
            session.good_applied += -(-(before.score - after.score) // 5)
            if session.good_applied > session.good_issued:
                text = f"{session.good_applied} good marks count in {session.fingerprint}, {session.good_issued} were given"
                self.break_("mark", text)
        if after.uses > before.uses:
            session.uses_applied += after.uses - before.uses
            if session.uses_applied > 2 * session.uses_issued:
                self.break_(
                    "mark",
                    f"{session.uses_applied} uses count in {session.fingerprint}, there were {session.uses_issued} enters",
                )

    def _check_ttl(
        self, session: Session, before: Version, stored: seams.Stored | None, deadline: float, actor: Any, what: str
    ) -> None:
        now = self.loop.time()
        if deadline < before.deadline - 1.0 - self.server_jumps:
            left = deadline - now
            ceiling = self._ceiling(stored)
            new_login = (
                stored is not None and before.stored is not None and stored.created_at != before.stored.created_at
            )
            least = min(self._own_ttl(session, actor), ceiling - now - self.tolerance)
            own = new_login and left >= least - SAVE_SPAN
            if deadline < ceiling - self.tolerance - SAVE_SPAN and not own:
                text = f"{what} by {actor} shortened the time to live of {session.fingerprint}"
                self.break_("ttl", f"{text} from {before.deadline - now:.1f} s to {left:.1f} s")

    def _ceiling(self, stored: seams.Stored | None) -> float:
        """Return the loop time at which a session must be over, as its header says."""
        if stored is None or not stored.retire_at:
            return float("inf")
        return stored.retire_at / 1000 - seams.EPOCH

    def _own_ttl(self, session: Session, actor: Any) -> float:
        """Return how long the login that is being stored may live, counted from when it was left."""
        now = self.loop.time()
        waited = [
            now - change.saved
            for change in session.by_item.get("c:sid", ())
            if actor is not None and change.visit.process is actor.process and change.saved < float("inf")
        ]
        return self._ttl_of(actor) - max(waited, default=0.0)

    @staticmethod
    def _ttl_of(actor: Any) -> float:
        return float(actor.config.get("ttl", 86400.0)) if actor is not None else 0.0

    # Transitions -----------------------------------------------------------------------------------------------------------

    def _check_transition(self, session: Session, before: Version, after: Version, actor: Any) -> None:
        now, old, new = self.loop.time(), before.items or {}, after.items or {}
        assert after.stored is not None
        if before.stored is not None and actor is not None and before.stored.key not in actor.readable:
            self.break_("replaced", f"{actor} replaced a state of {session.fingerprint} that it cannot open")
        if new.get("c:pa", 0) and new.get("c:pb", 0) and new["c:pa"] + 1 != new["c:pb"]:
            self.break_("torn", f"half a change is stored in {session.fingerprint}: {shown(new)}")
        login = self.writes.get(new.get("c:sid", 0))
        whole = login is not None and old.get("c:sid") != login.serial
        whole = whole and (
            self._replaces(login.visit)
            or self._may_be_retired(before, login.visit)
            or self._is_over_a_new_login(session, login)
        )
        arrived = [self.writes[serial] for item, serial in new.items() if old.get(item) != serial]
        for change in arrived:
            behind = self._behind(change.visit)  # also one that went on with a login that was still on its way
            storage = [
                self.writes[serial].visit
                for item, serial in new.items()
                if not item.startswith("d:") and all(one.sees(item) for one in behind)
            ]
            may = any(one.replacing for one in behind)
            may = may or (change.visit.unknowing and self._may_be_retired(before, change.visit))
            whole = whole or (may and all(visit in behind for visit in storage))
            whole = whole or self._is_carried(session, change, new)
        if whole:
            session.replaced_at = now
        self._check_brought_back(session, before, after, actor)
        for item, serial in new.items():
            self.writes[serial].logins.add(after.stored.created_at)
            if old.get(item) != serial:
                self._check_arrival(session, before, self.writes[serial], old.get(item), after)
        for item, serial in old.items():
            if new.get(item) != serial:
                kept = not whole or self._is_kept_outside(session, item, new)
                kept = kept and not self._went_with_a_login(session, item, actor)
                if item not in new and kept and not self._saves_by_hand(session, actor):
                    self._check_departure(session, self.writes[serial], actor)
                session.retired[serial] = now

    def _check_brought_back(self, session: Session, before: Version, after: Version, actor: Any) -> None:
        """A session that the store has lost is not older than the manager that brings it back has stored it."""
        assert after.stored is not None
        own = [one for one in session.versions if one.maker is actor and one.stored and not self._was_given_up(one)]
        known = own[-1] if own and own[-1].stored.created_at == after.stored.created_at else None
        if before.items is not None or known is None or any(known.start <= until for _, until in session.evictions):
            return  # after an invalidation, it has forgotten the session
        since = [one for one in session.versions if one.start > known.start and one.items is not None]
        created = [one.stored.created_at for one in since if one.stored is not None]
        replaced = session.replaced_at > known.start or any(at != after.stored.created_at for at in created)
        if replaced or any(one.maker is None for one in since) or not self._is_awaited:
            return  # another login or a server that has lost saves has taken its place, or a given-up request arrives
        for item, serial in (after.items or {}).items():
            later = self.writes.get((known.items or {}).get(item, 0))
            if any((one.items or {}).get(item) == serial for one in since):
                continue  # the store had lost the later one, and another process had brought this one back
            if later is not None and self.writes[serial].appeared < later.appeared:
                self.break_("older", f"{actor} brought back {self.writes[serial]}, and has stored {later} since")

    def _was_given_up(self, version: Version) -> bool:
        """Return whether a save was stored, and lost its reply: its manager had to give it up, and does not know."""
        arrived = [self.writes[serial] for serial in (version.items or {}).values()]
        arrived = [change for change in arrived if change.appeared == version.start]
        return bool(arrived) and all(SaveOutcome.LOST in {one.visit.final, one.visit.saved} for one in arrived)

    def _is_carried(self, session: Session, change: Change, new: Items) -> bool:
        """Return whether a visit that may replace the session went on with a change that waited, and has brought it."""
        storage = {item: serial for item, serial in new.items() if not item.startswith("d:")}
        return any(
            one.replacing
            and change.serial in one.restored.values()
            and {serial for item, serial in storage.items() if one.sees(item)} <= set(one.brings.values())
            for one in self.visits.values()
            if one.fingerprint == session.fingerprint
        )

    def _is_kept_outside(self, session: Session, item: str, new: Items) -> bool:
        """Return whether a new login by an agent with `allowed_domains` cannot have replaced an item."""
        login = self.writes.get(new.get("c:sid", 0))
        # It may be a change to another one's login, which waited, and replaces the session as a whole. Or one that sees
        # more went on with it, and has vouched for what it was given.
        behind = [] if login is None else [*self._behind(login.visit), *self._vouching(login)]
        if login is None or any(one.sees(item) for one in behind):
            return False
        # Or its agent was given another one's login, which waited, and has doubted that one.
        return login.visit.outcome is not Outcome.UNVERIFIED or not any(
            one.visit.manager is login.visit.manager and one.visit.replacing and one.visit.sees(item)
            and one.saved <= login.visit.entered and one.appeared == float("inf")
            for one in session.by_item["c:sid"]
        )  # fmt: skip

    def _went_with_a_login(self, session: Session, item: str, actor: Any) -> bool:
        """Return whether a new login, which replaces the item, waited and was logged out before it was stored."""
        logins = session.by_item["c:sid"]
        return any(
            login.visit.manager is actor
            and login.visit.sees(item)
            and login.promised
            and login.appeared == float("inf")
            and self._replaces(login.visit)
            and any(not change.serial and change.saw == login.serial for change in logins)
            for login in logins
        )

    def _saves_by_hand(self, session: Session, actor: Any) -> bool:
        """Return whether a manager saves a session made by hand, which replaces the stored state."""
        now = self.loop.time()
        return any(
            visit.by_hand
            and visit.manager is actor
            and visit.leaving <= now
            and (now <= visit.left or any(change.promised for change in visit.changes.values()))
            for visit in self.visits.values()
            if visit.fingerprint == session.fingerprint
        )

    def _replaces(self, visit: Visit) -> bool:
        """Return whether a visit's login may replace the stored one: also for what was said by those who went on with it."""
        for one in self._behind(visit):
            if one.replacing or (
                one.unknowing and any(other.is_vouched and one in self._behind(other) for other in self.visits.values())
            ):
                return True
        return False

    def _vouching(self, login: Change) -> list[Visit]:
        """Return the visits that went on with a login while it waited, and said that it works."""
        return [
            one
            for one in self.visits.values()
            if one.is_vouched and login.serial in one.restored.values() and one.entered < login.appeared
        ]

    def _behind(self, visit: Visit) -> list[Visit]:
        """Return a visit, and those whose login it went on with while that waited, if only to be logged out."""
        found = [visit]
        for one in found:  # it grows
            given = [self.writes[serial] for item, serial in one.restored.items() if not item.startswith("d:")]
            waiting = [change.visit for change in given if change.appeared > one.begun]
            if not given and one.on_unsaved:
                others = (other for other in self.visits.values() if other.manager is one.manager)
                waiting = [other for other in others if other.leaving < one.begun and other.brings == one.restored]
            found += [other for other in dict.fromkeys(waiting) if other not in found]
        return found

    @staticmethod
    def _is_forgotten(change: Change, before: Version, after: Version) -> bool:
        """Return whether a save whose reply was lost is sent again when the session has forgotten it: docs, sharing."""
        assert after.stored is not None
        is_sender = after.actor is change.visit.manager and not change.confirmed
        known = () if before.stored is None else before.stored.save_ids
        return is_sender and change.save_id not in {"", *known}

    def _check_arrival(
        self, session: Session, before: Version, change: Change, over: int | None, after: Version
    ) -> None:  # fmt: skip
        now, visit = self.loop.time(), change.visit
        if not visit.sees(change.item) or visit.options.get("save") == "never":
            self.break_("scope", f"{change} was stored, and it may not be")
        if change.serial in session.retired and not self._is_forgotten(change, before, after):
            self.break_("older", f"{change} came back; it was replaced at {session.retired[change.serial]:.3f}")
        if change.serial in session.dead or not session.dead.isdisjoint(visit.restored.values()):
            self.break_("revived", f"{change} was stored after the invalidation")
        first = change.appeared == float("inf")
        change.appeared, change.arrived = min(change.appeared, now), now
        assert after.stored is not None
        change.save_id = change.save_id or after.stored.save_ids[0]
        if over is not None and first:
            replaced = self.writes[over]
            # A session made by hand is a change when `manager.save` has got that far, which a pause may hold up.
            saved = max(change.saved, visit.process.troubled_at) if visit.by_hand else change.saved
            late = replaced.made > saved + SAVE_SPAN and replaced.visit is not visit
            if late and replaced.appeared > session.lost_at:
                self.break_("older", f"{change}, left at {change.saved:.3f}, replaced the later {replaced}")
        if first and visit.options.get("exclusive") and visit.reused:
            self._check_fence(session, change)
        if first and change.in_storage and visit.unknowing and not self._replaces(visit) and before.items is not None:
            mine = any(self.writes[serial].visit is visit for serial in before.items.values())
            # Once a checkpoint has stored its login, that is the stored one, whatever others have merged into it since.
            mine = mine or any(one.visit is visit and one.appeared < now for one in session.by_item.get("c:sid", ()))
            mine = mine or self._has_joined(session, visit, before.items)
            # Another agent was given its login while that waited, and has refreshed it in the very save that stored it.
            mine = mine or any(visit in self._behind(self.writes[serial].visit) for serial in before.items.values())
            # It has stored no login, but a session, and others have put theirs into that.
            mine = mine or self._has_begun(session, visit, after.stored.created_at)
            sid = before.items.get("c:sid")
            others = sid is not None and self.writes[sid].visit is not visit and not mine
            if others and change.saved < float("inf") and not self._may_be_retired(before, visit):
                self.break_("replaced", f"{change} was mixed into a login that {visit} never saw")

    def _has_joined(self, session: Session, visit: Visit, items: Items) -> bool:
        """Return whether the stored login was put, in one commit, onto a visit's own, which waited in the same process."""
        login = self.writes.get(items.get("c:sid", 0))
        if login is None or login.visit.manager is not visit.manager or login.visit.outcome is not Outcome.MISSING:
            return False
        own = (one for one in session.by_item["c:sid"] if one.visit is visit)
        return any(one.promised and one.saved < login.saved < one.appeared for one in own)

    def _has_begun(self, session: Session, visit: Visit, created_at: int) -> bool:
        """Return whether a save of a visit was confirmed when a stored session had nothing in it yet."""
        of_it = (one for one in session.versions if one.stored is not None and one.stored.created_at == created_at)
        return created_at in visit.saved_in and any(one.items == {} for one in of_it)

    def _is_over_a_new_login(self, session: Session, login: Change) -> bool:
        """Return whether a login was put, in one commit, over another new one, which replaces the stored session."""
        return any(
            one.visit.manager is login.visit.manager
            and self._replaces(one.visit)
            and one.saved <= login.saved
            and one.appeared == float("inf")
            and (one.promised or one.visit.left >= self.loop.time())
            for one in session.by_item["c:sid"]
            if one is not login
        )

    def _check_fence(self, session: Session, change: Change) -> None:
        mine = [since for since, number in session.holders if number == change.visit.number]
        later = [
            (since, number)
            for since, number in session.holders
            # One that had given up waiting has done nothing with it.
            if mine
            and since > mine[-1]
            and since <= self.visits[number].entered
            and self._is_on_record(session, since, number)
        ]
        if mine and later and later[-1][0] > session.lost_at:
            self.break_(
                "exclusive", f"{change} was stored although a{later[-1][1]} has the lease since {later[-1][0]:.3f}"
            )

    def _is_on_record(self, session: Session, since: float, number: int) -> bool:
        """Return whether the server knows of a holder: from its lease, or from the session that it had, or has stored."""
        visit = self.visits[number]
        had = any(one.items is not None and one.overlaps(since, visit.left) for one in session.versions)
        stored = any(change.appeared < float("inf") for change in session.changes if change.visit is visit)
        return session.holder == number or had or stored

    def _check_departure(self, session: Session, gone: Change, actor: Any) -> None:
        for change in session.by_item.get(gone.item, ()):
            late = change.saved + SAVE_SPAN if change.saved < float("inf") else 0.0
            if not change.serial and (change.saw == gone.serial or late >= gone.made):
                return
        known = actor.known.get(session.fingerprint) if actor is not None else None
        if known is not None and session.lost_at >= known.start >= gone.arrived:
            return  # it brings back a later state, which a fail-over has lost
        self.break_("lost", f"{gone} left {session.fingerprint} by {actor}, and nobody deleted it")

    # Leases -----------------------------------------------------------------------------------------------------------------

    def _lease_changed(self, session: Session, what: str) -> None:
        now, number = self.loop.time(), self._holder(session)
        if number == session.holder:
            return
        before, session.holder, session.held_since = session.holder, number, now
        self.say("  lease", session.fingerprint, f"a{number}" if number is not None else "free", f"({what})")
        if number is not None:
            session.holders.append((now, number))
        visit = self.visits.get(before) if before is not None else None
        if visit is not None and visit.active and visit.reused:
            evicted = any(returned >= visit.begun for _, returned in session.evictions)
            calm = now - self.trouble_of(visit.process) > CALM_AFTER + 2 * visit.manager.config.get("lease_ttl", 30.0)
            if calm and not evicted and session.lost_at < visit.begun:
                self.break_("exclusive", f"the lease of {visit} was lost while it was at work ({what})")

    def _holder(self, session: Session) -> int | None:
        name = seams.lease_holder(self.network.server.values.get(session.lease_key))
        return int(name[1:]) if name[1:].isdigit() else None

    def look_around(self) -> None:
        """Look for what must not stay. Called now and then."""
        now = self.loop.time()
        for session in self.sessions.values():
            version = session.live(now)
            over = version.deadline - self._ceiling(version.stored)
            calm = version.actor is None or self.trouble_of(version.actor.process) < version.touched - 5.0
            calm = calm and self._ceiling(version.stored) > version.start + self.tolerance  # else it is over anyway
            late = now - version.touched > CEILING_GRACE
            if version.items is not None and over > self.tolerance + 1.0 and late and calm:
                self.break_("ceiling", f"{session.fingerprint} lives {over:.1f} s beyond its ceiling")
        self._check_leases(now)

    def _check_leases(self, now: float) -> None:
        for session in self.sessions.values():
            raw = self.network.server.live(session.lease_key)
            visit = self.visits.get(session.holder) if session.holder is not None and raw is not None else None
            if visit is None or visit.left == float("inf") or visit.manager.crashed:
                continue
            refused = visit.outcome is not None and (visit.outcome.degraded or visit.outcome is Outcome.BUSY)
            given_up = visit.entered if refused else visit.left
            if session.held_since > given_up + visit.manager.config["lease_ttl"] - LEASE_GRACE:
                continue  # a request that was under way for longer than a release is tried, or nearly
            if visit.manager.closed_at <= max(session.held_since, self.trouble_of(visit.process)):
                continue  # a request that was under way when its manager was closed, or the store was away by then
            if any(given_up <= at <= session.held_since for at in self.server_lost_at):
                continue  # the server has forgotten that it was released, before the request arrived
            if self._is_out_of_reach(visit):
                continue
            since = max(visit.left, session.held_since, self.trouble_of(visit.process))
            if now - since > LEASE_GRACE + visit.manager.config["lease_ttl"] / 3:
                self.break_("lease", f"{visit} has left at {visit.left:.3f}, and its lease is still there")

    @staticmethod
    def _is_out_of_reach(visit: Visit) -> bool:
        """Return whether no attempt of a visit's process is answered in time."""
        far: float = visit.process.link.far
        return visit.manager.config.get("attempt_timeout", 0.15) <= 2 * far

    def trouble_of(self, process: Any) -> float:
        """Return the last moment at which something was wrong between a process and the server."""
        network, server = self.network, self.network.server
        if (
            process.link.held is not None or process.host.stalled is not None or network.frozen is not None or network.down
            or network.wrong_password or server.full or server.read_only or server.loading
        ):  # fmt: skip
            return self.loop.time()
        return max(network.last_trouble, process.troubled_at)

    # What happens to the server -----------------------------------------------------------------------------------------------

    def data_lost(self, *, tombstones: bool) -> None:
        """Take what the server holds now for what is right: it has lost data on its own."""
        now = self.loop.time()
        self.server_lost_at = (*self.server_lost_at, now)
        for session in self.sessions.values():
            session.live(now)
            raw = self.network.server.live(session.key)
            session.lost_at = now
            session.bad_issued += 1000
            session.good_issued += 1000
            session.uses_issued += 1000
            session.retired = {serial: since for serial, since in session.retired.items() if raw is not None}
            if tombstones:
                session.dead.clear()
            session.raw = raw
            session.current.end = now
            if raw is None:
                session.retired.clear()
                session.versions.append(Version(now, None, None))
                continue
            try:
                stored = seams.decode(raw, session.key)
            except CorruptStateError:
                session.retired.clear()
                session.damaged_at = now
                session.versions.append(Version(now, None, None, damaged=True))
                continue
            items = items_of(stored.document, session.fingerprint)
            for serial in items.values():
                session.retired.pop(serial, None)
            session.retired = {serial: since for serial, since in session.retired.items() if since <= self.undone_since}
            session.versions.append(Version(now, items, stored, self.deadline(session.key)))
            self.say("  store", session.fingerprint, f"is now v{stored.version}", shown(items))

    undone_since: float = float("inf")
    server_jumps: float = 0.0
    """Seconds by which the server's clock has jumped so far, at fail-overs."""

    server_lost_at: tuple[float, ...] = ()

    def leases_lost(self) -> None:
        """Note that the server has lost leases, or brought back earlier ones. A lease that it has kept is still held."""
        for session in self.sessions.values():
            session.lost_at = self.loop.time()
            if session.holder is not None and self._holder(session) == session.holder:
                del session.holders[:-1]
                continue
            holder = self.visits.get(session.holder) if session.holder is not None else None
            if holder is not None:
                holder.lost_lease = True
            session.holders.clear()
            session.holder = None

    # Agents ------------------------------------------------------------------------------------------------------------------

    def begin(self, visit: Visit) -> None:
        """Note that a visit enters."""
        self.visits[visit.number] = visit
        if visit.options.get("max_uses") is not None:
            for fingerprint in FINGERPRINTS if visit.pooled else (visit.fingerprint,):
                self.sessions[fingerprint].uses_issued += 1

    def entered(self, visit: Visit, restored: Items) -> None:
        """Judge what an enter returned."""
        session, now = self.sessions[visit.fingerprint], self.loop.time()
        visit.entered = now
        session.live(now)
        self.pool.given(visit)
        outcome = visit.outcome
        assert outcome is not None
        if visit.reused:
            visit.restored = restored
            self._check_restored(session, visit)
            known = visit.manager.known.get(session.fingerprint)
            visit.version = known.stored.version if known is not None and known.stored is not None else 0
            return
        if not outcome.degraded and outcome not in {Outcome.BUSY, Outcome.UNVERIFIED}:
            visit.manager.known.pop(session.fingerprint, None)
        window = [version for version in session.versions if version.overlaps(visit.begun, now)]
        if outcome in {Outcome.RETIRED, Outcome.UNVERIFIED} and window and window[-1].stored:
            visit.login = window[-1].stored.created_at
            known = visit.manager.known.get(session.fingerprint)
            if not visit.stale and window[0].stored and (known is None or known.start < window[0].start):
                visit.manager.known[session.fingerprint] = window[0]  # its process has read this one, or a later one
        if outcome is Outcome.MISSING and all(version.items is not None for version in window):
            self.break_(
                "reuse", f"{visit} found nothing, and {session.fingerprint} is stored: {shown(window[-1].items)}"
            )
        elif outcome is Outcome.CORRUPT and all(
            not version.damaged and (version.stored is None or version.stored.key in visit.manager.readable)
            for version in window
        ):
            self.break_("reuse", f"{visit} found {session.fingerprint} corrupt, and it is not")
        elif outcome is Outcome.RETIRED and not any(self._may_be_retired(version, visit) for version in window):
            self.break_("reuse", f"{visit} found {session.fingerprint} retired, and it is not")
        elif outcome is Outcome.BUSY and not self._was_held(session, visit):
            self.break_("reuse", f"{visit} found {session.fingerprint} busy, and nobody else has the lease")
        elif outcome.degraded:
            self._check_degraded(session, visit)

    def nobody(self, visit: Visit, outcome: Outcome) -> None:
        """Judge that a pool has handed out nothing."""
        if not outcome.degraded:
            self.pool.refused(visit)
            return
        calm = visit.begun - self.trouble_of(visit.process) > CALM_AFTER and visit.process.link.far == 0.0
        if calm and not (outcome in {Outcome.CIRCUIT_OPEN, Outcome.AUTH} and self._probes(visit)):
            self.break_("reuse", f"{visit} was told {outcome} by the pool although all is well")

    def _check_degraded(self, session: Session, visit: Visit) -> None:
        probed = self._probes(visit)
        rejected = outcome_is(visit, Outcome.CIRCUIT_OPEN, Outcome.AUTH)
        trips = 20 if visit.pooled else 8  # a look at the pool and one at the member come first
        near = visit.manager.config["restore_timeout"] > trips * visit.process.link.far
        calm = visit.begun - self.trouble_of(visit.process) > CALM_AFTER
        if calm and near and not (rejected and probed):
            self.break_("reuse", f"{visit} entered {visit.outcome} although all is well")
        if not visit.options.get("exclusive"):
            known = visit.manager.known.get(session.fingerprint)
            if known is not None and known.items and not self._unusable(session, visit, known):
                self.break_("reuse", f"{visit} entered {visit.outcome} although its process knows {shown(known.items)}")

    def _probes(self, visit: Visit) -> bool:
        """Return whether its manager has sent another request at that time, which a breaker lets through as its probe."""
        tried = any(abs(at - visit.begun) < 0.5 for at in visit.manager.tried.values())
        return tried or any(
            other is not visit and other.manager is visit.manager and other.begun <= visit.begun <= other.entered + 0.5
            for other in self.visits.values()
        )

    def _unusable(self, session: Session, visit: Visit, known: Version) -> bool:
        """Return whether what a process knows of a session must not be, or need not be, reused."""
        if self.loop.time() - visit.manager.heard.get(session.fingerprint, 0.0) > _reused_for(visit) - SAVE_SPAN:
            return True
        made = min((self.writes[serial].made for serial in (known.items or {}).values()), default=known.start)
        invalidated = any(begun >= made and returned >= known.start for begun, returned in session.evictions)
        limits = [visit.options.get("max_age"), visit.options.get("max_uses"), known.stored and known.stored.retire_at]
        if session.damaged_at > known.start or known.deadline < self.loop.time():
            return True  # its process may have found out since
        doubtful = known.stored is not None and (known.stored.score or known.stored.key not in visit.manager.readable)
        doubtful = doubtful or session.bad_issued > session.bad_applied  # marks that wait count in their own process
        return invalidated or any(limits) or bool(doubtful) or visit.manager.evicting(session.fingerprint)

    def _was_held(self, session: Session, visit: Visit) -> bool:
        raw = self.network.server.live(session.lease_key)
        if (raw is not None and session.holder != visit.number) or session.lost_at >= visit.begun:
            return True  # held, or lost by the server since a reply that was on its way
        return any(since >= visit.begun - 60.0 and number != visit.number for since, number in session.holders)

    def _may_be_retired(self, version: Version, visit: Visit) -> bool:
        stored = version.stored
        if stored is None:
            return False
        if (
            stored.score >= RETIRED_AT
            or version.retired_until >= visit.begun
            or visit.options.get("max_uses") is not None
        ):
            return True
        wall = seams.EPOCH + self.loop.time() + self.tolerance
        if stored.retire_at and wall >= stored.retire_at / 1000:
            return True
        max_age = visit.options.get("max_age") or visit.manager.config.get("max_age")
        return max_age is not None and wall - stored.created_at / 1000 >= max_age - self.tolerance

    def _check_restored(self, session: Session, visit: Visit) -> None:
        items, now = visit.restored, self.loop.time()
        if visit.inside(items) != items:
            self.break_("scope", f"{visit} was given {shown(items)}, and is allowed shop.example only")
        if items.get("c:pa") and items.get("c:pb") and items["c:pa"] + 1 != items["c:pb"]:
            self.break_("torn", f"{visit} was given half a change: {shown(items)}")
        if visit.options.get("exclusive"):
            taken = any(visit.begun <= since and number == visit.number for since, number in session.holders)
            if not taken and session.lost_at < visit.begun:
                self.break_("exclusive", f"{visit} is exclusive and reused without the lease")
        if visit.stale:
            known = visit.manager.known.get(session.fingerprint)
            if known is not None and visit.manager.tried.get(session.fingerprint, -1.0) > known.start:
                known = None  # its process has forgotten what it wanted to invalidate
            visit.login = known.stored.created_at if known is not None and known.stored else 0
            self._check_age(session, visit)
            self._check_stale(session, visit)
            return
        window = [version for version in session.versions if version.overlaps(visit.begun, now)]
        exact = [version for version in window if items == visit.inside(version.items)]
        found = next((one for one in reversed(exact or window) if self._shows(session, visit, one)), None)
        if found is None:
            stood = " or ".join(shown(version.items) for version in window)
            kind = "torn" if session.dead.isdisjoint(items.values()) else "revived"
            self.break_(kind, f"{visit} was given {shown(items)}, which was not stored while it entered ({stood})")
        else:
            if found.items is not None:
                visit.manager.known[session.fingerprint] = found
            visit.manager.heard[session.fingerprint] = now
            visit.login = found.stored.created_at if found.stored else 0
            self._check_prolonged(session, visit, found)

    def _shows(self, session: Session, visit: Visit, version: Version) -> bool:
        """Return whether a visit was given a version, or that with the changes applied that wait in its process."""
        items, manager, stands = visit.restored, visit.manager, visit.inside(version.items)
        if items == stands:
            return True
        shared = visit.process.plan.spool
        ours = [
            one for one in self.visits.values() if one.manager is manager or (shared and one.process is visit.process)
        ]
        back = {  # the store has lost it, and an agent whose save waits brings back what it was given
            serial for one in ours if stands is None
            and one.saved not in CONFIRMED and (one.waits or one.leaving < visit.entered)
            for serial in one.brings.values()
        }  # fmt: skip
        if stands is None:  # its manager may have read it for a save that the store has refused
            back |= next(
                (set(one.items.values()) for one in reversed(session.versions) if one.items is not None), set()
            )
        if not any(
            one is not visit
            and (
                one.saving
                or one.waits  # what a checkpoint saves waits from the moment at which the store has refused it
                or any(change.promised for change in session.changes if change.visit is one)  # undone since, perhaps
                or (one.saved not in CONFIRMED and one.leaving < visit.entered)
            )
            for one in ours
        ):
            return False
        mine = [one for one in session.changes if one.saved < visit.entered and one.visit in ours]
        own = {change.serial for change in mine}
        deleted = {change.item for change in mine if not change.serial}
        sid = self.writes.get(items.get("c:sid", 0))
        brought = (
            sid is not None
            and sid.serial in own
            and (self._replaces(sid.visit) or stands is None or self._may_be_retired(version, sid.visit))
        )
        # A login with no cookie of that name, one that others went on with, and one made by hand to which another save that
        # waits was added.
        behind = [one for serial in items.values() for one in self._behind(self.writes[serial].visit)]
        brought = brought or any(one.replacing for one in behind)
        brought = brought or any(change.visit.replacing and change.visit.by_hand for change in mine)
        since = min((change.made for change in mine if change.visit.replacing), default=0.0)
        # Others may go on with its login.
        sees_all = all(change.visit.sees(item) for change in mine for item in OUTSIDE)
        later = {  # a login that waits replaces what was stored, but not what others have stored since, nor what it cannot see
            serial for item, serial in (stands or {}).items()
            if items.get(item) == serial and (self.writes[serial].appeared >= since or (item in OUTSIDE and not sees_all))
        }  # fmt: skip
        if (brought or stands is None) and (own | later | back).issuperset(items.values()):
            return True
        known = manager.known.get(session.fingerprint)
        stored = stands if stands is not None or known is None else visit.inside(known.items)
        kept = all(
            items.get(item) == serial or items.get(item) in own or (item not in items and item in deleted)
            for item, serial in (stored or {}).items()
        )
        return kept and all(items[item] in own for item in items.keys() - (stored or {}).keys())

    def _check_prolonged(self, session: Session, visit: Visit, found: Version) -> None:
        config = visit.manager.config
        if visit.options.get("save") == "never":
            return
        if found is not session.current or not config.get("sliding", True) or (found.stored and found.stored.retire_at):
            return
        if found.start >= visit.begun:
            return  # it was stored after the enter had asked, for the time that its own agent had
        if self.trouble_of(visit.process) >= visit.begun - 1.0:
            return
        left, ttl = found.deadline - visit.begun, self._ttl_of(visit.manager)
        if left < ttl - 0.5 - self.server_jumps:
            self.break_("ttl", f"{session.fingerprint} has {left:.1f} s after {visit} was given it, not {ttl:.1f}")

    def _check_age(self, session: Session, visit: Visit) -> None:
        others = [
            one.left if one.saved in CONFIRMED else float("inf")  # who tries to deliver a save hears of the store
            for one in self.visits.values()
            if one.manager is visit.manager and one.fingerprint == visit.fingerprint and one is not visit
        ]  # fmt: skip
        last = max(visit.manager.heard.get(session.fingerprint, 0.0), *others, 0.0)
        if visit.begun - last > _reused_for(visit) + SAVE_SPAN and not visit.process.plan.spool:
            self.break_("reuse", f"{visit} was given what its process has last heard of at {last:.3f}")

    def _check_stale(self, session: Session, visit: Visit) -> None:
        items = visit.restored
        told = visit.manager.told_of_eviction(session.fingerprint)
        dead = [
            serial
            for serial in session.dead.intersection(items.values())
            # Made before, and stored after by a process that did not know: it may be seen, until that is invalidated.
            if self.writes[serial].made < (told or 0.0)
            and not (told or 0.0) < self.writes[serial].appeared < float("inf")
        ]
        if told is not None and told < visit.begun and dead:
            self.break_(
                "revived", f"{visit} was given {self.writes[dead[0]]}, which its process has invalidated at {told:.3f}"
            )
            return
        known = visit.manager.known.get(session.fingerprint)
        if known is None or known.items is None or session.lost_at > known.start:
            return
        if (
            visit.manager.evicting(session.fingerprint)
            or visit.manager.tried.get(session.fingerprint, -1.0) > known.start
        ):
            return
        waiting = [self.writes[serial] for serial in items.values() if self.writes[serial].appeared == float("inf")]
        if any(one.replacing for change in waiting for one in self._behind(change.visit)):
            return  # a new login that waits, in the place of what is stored
        may_be_retired = session.bad_issued * 10 >= RETIRED_AT or self._may_be_retired(known, visit)
        if may_be_retired and any(one.unknowing for change in waiting for one in self._behind(change.visit)):
            return  # or in the place of what is retired
        by_hand = any(
            one.by_hand and one.fingerprint == visit.fingerprint and one.manager is visit.manager
            and one.saved not in CONFIRMED
            and known.start < one.left and one.leaving < visit.entered
            for one in self.visits.values()
        )  # fmt: skip
        for item, serial in (visit.inside(known.items) or {}).items():
            mine = items.get(item)
            if mine == serial:
                continue
            newer = mine is not None and self.writes[mine].appeared > known.start
            since = [one.items for one in session.versions if one.start > known.start and one.items is not None]
            # A session made by hand that waits replaces what was stored as a whole.
            gone = mine is None and (
                by_hand or serial in session.dead or any(serial not in one.values() for one in since)
            )
            ours = gone or any(
                change.visit.manager is visit.manager
                and (change.serial or None) == mine
                and self.writes[serial].made <= change.saved <= visit.entered
                for change in session.by_item.get(item, ())
            )
            if not newer and not ours:
                self.break_("reuse", f"{visit} was given {item}={mine}, and its process has seen {serial} confirmed")
                return

    def changed(self, visit: Visit, item: str, serial: int, saw: int | None) -> None:
        """Note that an agent has set or deleted an item."""
        change = Change(serial, item, visit, self.loop.time(), saw)
        session = self.sessions[visit.fingerprint]
        if not visit.sees(item):
            if serial:
                self.writes[serial] = change
            return
        session.changes.append(change)
        session.by_item.setdefault(item, []).append(change)
        if serial:
            self.writes[serial] = change
        visit.changes[item] = change

    def saving(self, visit: Visit) -> dict[str, Change]:
        """Note that a save begins. Return what it is to save."""
        now = self.loop.time()
        visit.saving += 1
        visit.was_vouched = visit.was_vouched or visit.vouched
        for change in visit.changes.values():
            change.saved = min(change.saved, now)
        return dict(visit.changes)

    def saved(self, visit: Visit, changes: dict[str, Change], began: float, outcome: SaveOutcome | None) -> None:
        """Judge what a save returned."""
        session, now = self.sessions[visit.fingerprint], self.loop.time()
        visit.saving -= 1
        # An agent that was marked bad saves nothing more, and what it had saved before waits on.
        visit.waits = outcome in {SaveOutcome.PENDING, SaveOutcome.SPOOLED} or (
            visit.waits and visit.marked_bad and outcome is SaveOutcome.SKIPPED
        )
        session.live(now)
        if outcome in CONFIRMED:
            for change in changes.values():
                if visit.changes.get(change.item) is change:
                    self._check_confirmed(session, change, began)
            own = [one for one in session.versions if one.actor is visit.manager and one.start >= began]
            # Others it has prolonged, perhaps without a reply.
            made = [one for one in own if one.maker is visit.manager]
            visit.saved_in |= {one.stored.created_at for one in own if one.stored is not None}
            # The request to invalidate it may have come after a save that was under way.
            tried = max(known.get(session.fingerprint, -1.0) for known in (visit.manager.tried, visit.manager.evicted))
            if made and outcome is not SaveOutcome.UNCHANGED and max(session.lost_at, tried) < began:
                visit.manager.known[session.fingerprint] = made[-1]
                visit.manager.heard[session.fingerprint] = now
        elif outcome in {SaveOutcome.PENDING, SaveOutcome.SPOOLED, None}:
            for change in changes.values():
                change.promised = True
                change.spooled = outcome is SaveOutcome.SPOOLED
        elif outcome is not None:
            self.refused(visit, changes, outcome)

    def refused(self, visit: Visit, changes: dict[str, Change], outcome: SaveOutcome) -> None:
        """Judge that a save was refused."""
        session = self.sessions[visit.fingerprint]
        if outcome is SaveOutcome.SKIPPED:
            self._check_skipped(session, visit, changes)
        elif outcome is SaveOutcome.STALE:
            visit.manager.known.pop(session.fingerprint, None)  # its process has read what is stored in its place
            if not self._may_be_stale(session, visit):
                self.break_("stale", f"the save of {visit} was stale, and nobody has invalidated {session.fingerprint}")

    def _may_be_stale(self, session: Session, visit: Visit) -> bool:
        stored = session.current.stored
        stood = {(v.items or {}).get("c:sid") for v in session.versions if v.overlaps(visit.begun, self.loop.time())}
        others = stood - {None, visit.restored.get("c:sid")}
        another_login = any(self.writes[sid].visit is not visit for sid in others if sid)
        another_login = another_login or self._is_of_another_login(session, visit)
        another_login = another_login or self._on_waiting_login(session, visit)
        another_login = another_login or session.replaced_at >= visit.begun
        # What it was given has ended by its time to live, and another session, perhaps an empty one, was made since.
        there = set((session.current.items or {}).values())
        ended = any(v.items is None and v.overlaps(visit.begun, self.loop.time()) for v in session.versions)
        is_own = any(self.writes[serial].visit is visit for serial in there)
        another_login = another_login or (ended and stored is not None and not is_own)
        # The store has lost the login, and another one, perhaps an empty one, has taken its place.
        is_lost = (visit.stale or not visit.login) and session.lost_at >= 0.0 and stored is not None
        another_login = another_login or (is_lost and there.isdisjoint(visit.restored.values()))
        under_way = any(
            change.serial
            and change.visit.replacing
            and change.visit is not visit
            and visit.begun <= change.saved < float("inf")
            for change in session.by_item.get("c:sid", ())
        )
        return bool(visit.options.get("exclusive") or session.evictions or another_login or under_way)

    def _check_confirmed(self, session: Session, change: Change, began: float) -> None:  # noqa: C901, PLR0911, PLR0912
        visit, item = change.visit, change.item
        if visit.process.troubled_at >= began:
            return  # it stood still meanwhile, and takes itself for earlier than it is
        if max(session.lost_at, session.damaged_at if session.damaged_at > visit.begun else 0.0) >= began:
            return
        # A store that is too far away for the budget is as good as one in trouble.
        is_troubled = visit.not_taken or self.trouble_of(visit.process) >= visit.begun - 1.0
        unknowing = visit.unknowing or (visit.by_hand and is_troubled)
        if session.damaged_at > visit.begun or (unknowing and not visit.is_vouched and change.in_storage):
            return
        if any(started >= visit.begun or done >= began for started, done in session.evictions):
            return
        if change.in_storage and (session.replaced_at >= visit.begun or self._has_other_login(session, visit)):
            return
        sid = self.writes.get((session.current.items or {}).get("c:sid", 0))
        other = sid is None or sid.visit is not visit
        fresh = visit.unknowing or visit.outcome in {Outcome.UNVERIFIED, Outcome.RETIRED, Outcome.CORRUPT}
        if change.in_storage and other and fresh:
            return
        began = min(began, change.saved)
        if visit.discarded or (not change.serial and self._is_moot(session, change)):
            return
        first = not change.confirmed and not self._was_outdone(session, change)
        change.confirmed = True
        for mine in session.by_item[item]:
            if mine.visit is visit and mine.made < change.made and mine.serial:
                session.retired.setdefault(mine.serial, self.loop.time())
        found = (session.current.items or {}).get(item)
        if change.serial and (found == change.serial or change.appeared < float("inf")):
            return
        if not change.serial and found is None:
            if change.saw is not None:
                session.retired.setdefault(change.saw, self.loop.time())
            return
        if not change.serial and found != change.saw and self._has_other_login(session, visit):
            return  # what it deleted was of the login before
        if not first:
            return
        has_waited = (
            change.promised or self.loop.time() - change.saved > RACE or self._may_be_forgotten(session, change)
        )
        if has_waited and self._is_older_as_a_whole(session, change):
            return
        if found is None and any(
            one.by_hand and one.fingerprint == visit.fingerprint and one.leaving < float("inf") and one.left >= began
            for one in self.visits.values()
        ):  # fmt: skip
            return  # a session made by hand is saved meanwhile, and replaces what is stored
        winner = self.writes.get(found) if found is not None else None
        rivals = [winner] if winner is not None else [one for one in session.by_item[item] if not one.serial]
        for rival in rivals:
            if rival is not change and (
                rival.made > change.made
                or (rival.arrived + AT_ONCE if rival.serial else rival.saved + SAVE_SPAN) >= began
            ):
                return
        self.break_("lost", f"{change} was confirmed to {visit}, and the store holds {winner or 'nothing'} there")

    @staticmethod
    def _was_outdone(session: Session, change: Change) -> bool:
        """Return whether it was stored with a later change on top of it, in one commit, which the store has lost since."""
        over = [one.appeared for one in session.by_item[change.item] if one.made > change.made]
        return any(change.saved < at <= session.lost_at for at in over)

    def _may_be_forgotten(self, session: Session, change: Change) -> bool:
        """Return whether a save may have been taken, since when the session has forgotten it: docs, sharing.

        A client cannot tell: it may have sent a save again whose first reply was lost, and that met other saves then.
        """
        stored, sent_over = session.current.stored, change.visit.version
        return stored is not None and stored.version - sent_over > REMEMBERED_SAVES

    def _is_older_as_a_whole(self, session: Session, change: Change) -> bool:
        """Return whether a change that waited gave way to a session that others have saved since: items have no times."""
        manager, waited = change.visit.manager, self.loop.time() - change.saved + AT_ONCE + self.server_jumps
        since = self.network.server.now - waited * 1000
        saves = (one.stored for one in session.versions if one.maker is not manager)
        later = any(stored is not None and stored.saved_at >= since for stored in saves)
        others = [one for one in self.visits.values() if one.fingerprint == session.fingerprint and one.by_hand]
        others += [
            one.visit for one in session.by_item[change.item]
        ]  # and a session made by hand, which is saved as a whole
        return later and any(one.manager is not manager for one in others)

    @staticmethod
    def _is_moot(session: Session, change: Change) -> bool:
        """Return whether a visit deleted what it had set itself and no one else ever saw, maybe after another deletion."""
        mine = [one for one in session.by_item[change.item] if one.visit is change.visit and one is not change]
        gone = [at for at, one in enumerate(mine) if not one.serial and one.confirmed]
        since = mine[gone[-1] + 1 :] if gone else mine
        return (bool(gone) or change.item not in change.visit.restored) and not any(
            one.serial and (one.promised or one.appeared < float("inf")) for one in since
        )

    def _on_waiting_login(self, session: Session, visit: Visit) -> bool:
        """Return whether a visit went on with a login that waited, and another one is stored, if only to be logged out."""
        given = self.writes.get(visit.restored.get("c:sid", 0))
        if given is not None and given.visit.replacing and given.appeared == float("inf"):
            return session.current.stored is not None
        return visit.reused and not visit.login and self._is_of_others(session, visit)

    @staticmethod
    def _is_of_others(session: Session, visit: Visit) -> bool:
        """Return whether the login that is stored was first stored by another manager than a visit's."""
        stored = session.current.stored
        if stored is None:
            return False
        made = next(one for one in session.versions if one.stored and one.stored.created_at == stored.created_at)
        return made.maker is not visit.manager

    @staticmethod
    def _is_of_another_login(session: Session, visit: Visit) -> bool:
        """Return whether a visit was given, or has stored, a login that is not the stored one."""
        stored, logins = session.current.stored, {visit.login} - {0} or visit.saved_in
        return stored is not None and logins not in (set(), {stored.created_at})

    def _has_other_login(self, session: Session, visit: Visit) -> bool:
        """Return whether what a visit was given is not the login that is stored."""
        lost = session.lost_at >= visit.begun and self._is_of_others(session, visit)
        if lost or self._on_waiting_login(session, visit):
            return True
        sid, given = (session.current.items or {}).get("c:sid"), visit.restored.get("c:sid")
        if self._is_of_another_login(session, visit):
            return True
        return (
            sid is not None
            and given is not None
            and sid != given
            and self.writes[sid].visit.number != visit.number
            and (given in session.retired or self.writes[sid].saw != given)
        )

    def _check_skipped(self, session: Session, visit: Visit, changes: dict[str, Change]) -> None:
        for change in changes.values() if visit.leaving == float("inf") else ():
            if not change.promised:  # else it waits since a save before that
                change.saved = float("inf")  # a checkpoint of a session that was marked bad: the exit may save it
        changes = {item: one for item, one in changes.items() if one.serial or not self._is_moot(session, one)}
        there = set((session.current.items or {}).values())
        if not any(one.serial for one in changes.values()) and there.isdisjoint(visit.restored.values()):
            return  # it deleted what waited, and was never stored
        allowed = (
            visit.discarded or visit.doubtful or not visit.looked or visit.unknowing
            or visit.outcome in {Outcome.BUSY, Outcome.CORRUPT} or visit.doubted or (visit.by_hand and self.trouble_of(visit.process) >= visit.begun - 1.0) or not changes
        )  # fmt: skip
        unreadable = any(v.stored is not None and v.stored.key not in visit.manager.readable for v in session.versions)
        login = changes.get("c:sid")
        login = visit.changes.get("c:sid", login)  # its exit may have logged out, and be saved with this checkpoint
        brings_nothing = visit.replacing and (login is None or not login.serial)
        met = [
            one
            for one in session.versions
            if one.end >= visit.begun or (one.stored and one.stored.created_at == visit.login)
        ]
        is_over = any(self._ceiling(one.stored) <= self.loop.time() + self.tolerance for one in met)
        # Nothing is stored, and what it brings is over by its own time to live: it brings no session back.
        ttl = self._ttl_of(visit.manager)
        outlived = session.live(self.loop.time()).items is None and all(
            one.saved + ttl <= self.loop.time() for one in changes.values()
        )
        allowed = allowed or brings_nothing or is_over or outlived or self._may_be_stale(session, visit)
        if not allowed and not unreadable and not (visit.stale or visit.failed or (visit.outcome is Outcome.RETIRED)):
            what = ", ".join(str(change) for change in list(changes.values())[:3])
            self.break_("skipped", f"the save of {visit} was skipped, and it has changed: {what}")

    def evicting(self, fingerprint: str, visit: Visit | None) -> list[float]:
        """Note that someone begins to invalidate a session: the login of a visit, or whichever is stored."""
        session, now = self.sessions[fingerprint], self.loop.time()
        attempt = [now, float("inf")]
        session.evictions.append(attempt)
        stored = session.live(now).stored
        session.meant[now] = visit.login if visit is not None and visit.login else stored.created_at if stored else 0
        return attempt

    def evicted(self, fingerprint: str, attempt: list[float]) -> None:
        """Note that an invalidation has returned: what was known of that login before it began is dead."""
        session, now = self.sessions[fingerprint], self.loop.time()
        attempt[1] = now
        session.live(now)
        if session.lost_at >= attempt[0]:
            return
        meant = session.meant[attempt[0]]
        stored_now = session.current.stored
        deleted = any(version.items is None and attempt[0] <= version.start for version in session.versions)
        if not deleted and stored_now is not None and meant not in {0, stored_now.created_at}:
            return  # a new login had replaced it before the request arrived, and nothing was invalidated
        for change in session.changes:
            if not change.serial or change.made >= attempt[0]:
                continue
            stored = change.appeared < attempt[0] and (not meant or change.logins <= {meant})
            held = change.visit.reused and change.visit.login in {0, meant} and change.logins <= {meant}
            if stored or held:
                session.dead.add(change.serial)
        found = session.dead.intersection((session.current.items or {}).values())
        if found:
            self.break_("revived", f"{self.writes[min(found)]} is stored when the invalidation returns")

    # The end ------------------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Judge what became of the promises, and what remains in the server."""
        server = self.network.server
        for key in server.values:
            if key not in server.expires and not any(part in key for part in (b":deadlines:", b":pool:", b":pools")):
                self.break_("growth", f"{key.decode()} has no time to live")
        for visit in self.visits.values():
            if visit.followed and visit.final is None and not visit.manager.crashed:
                self.break_("promise", f"{visit} was left ({visit.how}), and `settled` does not end")
            if visit.final is SaveOutcome.STALE:
                self._check_leased(self.sessions[visit.fingerprint], visit)
        for session in self.sessions.values():
            session.live(self.loop.time())
            for change in session.changes:
                if change.promised and not self._kept(session, change):
                    self.break_(
                        "promise", f"{change} was left at {change.saved:.3f} and is neither stored nor reported"
                    )
                    return

    def _check_leased(self, session: Session, visit: Visit) -> None:
        """A save that waits is not made stale by the next lease of its own process."""
        later = [self.visits[number] for since, number in session.holders if since > visit.left]
        taken = any(visit.begun < since <= visit.left for since, number in session.holders if number != visit.number)
        lost = taken or max(session.lost_at, session.replaced_at) >= visit.begun or self.server_jumps
        may = not visit.options.get("exclusive") or lost or session.evictions
        if may or not later or later[0].manager is not visit.manager:
            return
        if all(change.appeared < float("inf") for change in visit.changes.values()):
            return  # nothing of it is lost: its reply was, or it brought nothing but a longer time to live
        if later[0].outcome is not None and not later[0].outcome.degraded:  # else a request arrived that was given up
            self.break_("promise", f"the save of {visit} waited, and the lease of {later[0]} made it stale")

    def _kept(self, session: Session, change: Change) -> bool:  # noqa: C901, PLR0911, PLR0912
        visit = change.visit
        process = visit.process
        if visit.manager.crashed and not (change.spooled and process.came_back):
            return True
        if change.appeared < float("inf") or visit.changes.get(change.item) is not change or change.confirmed:
            return True
        if visit.final in {SaveOutcome.LOST, SaveOutcome.STALE, SaveOutcome.SKIPPED, SaveOutcome.SPOOLED}:
            return True  # told, or on disk for the next process
        if visit.saved is SaveOutcome.STALE:
            return True  # told at the exit, also of a checkpoint that was cancelled before it heard
        if change.spooled and visit.final is None and self._is_out_of_reach(visit):
            return True  # on disk, and no `settled` says so: its process has crashed, or nobody has asked
        if (
            visit.doubted
            or process.lost_at.get(session.fingerprint, -1.0) >= change.made
            or visit.discarded
            or visit.outcome is Outcome.BUSY
            or visit.marked_bad
            or not visit.looked
        ):
            return True
        if any(begun >= visit.begun for begun, _ in session.evictions) or not session.dead.isdisjoint(
            visit.restored.values()
        ):
            return True
        if visit.options.get("exclusive") and self.server_jumps and session.lost_at >= 0.0:
            return True  # its token is lower than that of an earlier holder: docs, sharing
        if visit.options.get("exclusive") and any(
            since > visit.begun for since, number in session.holders if number != visit.number
        ):
            return True
        if change.in_storage and session.replaced_at >= visit.begun:
            return True
        stored = [one for one in session.by_item["c:sid"] if one.appeared < float("inf")]
        if any(one.visit.replacing and one.saved + SAVE_SPAN >= change.saved for one in stored):
            return True  # also when that login was logged out since
        if change.in_storage and visit.not_taken:
            return True
        if any(v.stored is not None and v.stored.key not in visit.manager.readable for v in session.versions):
            return True
        if not change.serial:
            found = (session.current.items or {}).get(change.item)
            return found != change.saw or session.lost_at > change.saved or self._is_moot(session, change)
        if self._is_older_as_a_whole(session, change):
            return True
        since = [one for one in session.versions if one.start >= change.made and one.maker is not visit.manager]
        lost = session.lost_at >= (0.0 if visit.stale else visit.begun)
        if lost and any(one.items is not None for one in since):
            return True  # the store lost it, and another process has brought back what it knew, as the later state
        for other in session.by_item[change.item]:
            unseen = other.appeared < float("inf") and visit.restored.get(change.item) != other.serial
            if other is not change and (other.made >= change.made or (unseen and other.visit is not visit)):
                return True
            if other is not change and not other.serial and other.saved + SAVE_SPAN > change.saved:
                return True
        return False


@dataclass(slots=True)
class Member:
    """One member of the pool, as the model knows it.

    Attributes:
        added, removed: when the last edit that is known to have done so returned.
        unsure: edits that are under way, or have failed and may arrive late.
        mixed: whether the last edit began while another one was under way, so that their order is not known.
        free: from when it is free for all that is known.
        cools: until when it cools down.
        edited: when the last edit returned.
    """

    added: float = float("inf")
    removed: float = float("inf")
    unsure: int = 0
    mixed: bool = False
    free: float = 0.0
    cools: float = -1.0
    edited: float = -1.0


class Pool:
    """Judges what the pool hands out.

    Args:
        oracle: knows the sessions and the visits.
    """

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._members = {fingerprint: Member() for fingerprint in FINGERPRINTS}

    def editing(self, *members: str) -> None:
        """Note that an edit begins."""
        for name in members:
            member = self._members[f"{POOL}/{name}"]
            member.mixed = member.unsure > 0
            member.unsure += 1

    def edited(self, added: tuple[str, ...], removed: tuple[str, ...]) -> None:
        """Note that an edit has returned."""
        now = self._oracle.loop.time()
        for name in (*added, *removed):
            member = self._members[f"{POOL}/{name}"]
            member.unsure -= 1
            member.cools, member.edited = -1.0, now
            member.added = now if name in added and not member.mixed else float("inf")
            member.removed = now if name in removed and not member.mixed else float("inf")

    def given(self, visit: Visit) -> None:
        """Judge that a visit was given a member."""
        oracle, member = self._oracle, self._members[visit.fingerprint]
        if not visit.pooled or self._has_lost_data() or visit.process.troubled_at >= visit.begun:
            return  # one that stood still may have been given it before
        if member.cools > oracle.loop.time() and not member.unsure:
            text = f"{visit} was given {visit.fingerprint}, which cools down until {member.cools:.3f}"
            oracle.break_("pool", text)
        if member.removed < visit.begun and not member.unsure:
            oracle.break_("pool", f"{visit} was given {visit.fingerprint}, which was removed at {member.removed:.3f}")

    def left(self, visit: Visit) -> None:
        """Note that a visit has left its member."""
        oracle = self._oracle
        member = self._members.get(visit.fingerprint)
        if member is None or not visit.options.get("exclusive"):
            return
        calm = oracle.trouble_of(visit.process) < visit.leaving - 1.0 and not visit.failed
        calm = calm and member.edited < visit.leaving  # one that is removed and added again does not cool down
        if visit.pooled and visit.marked_bad and visit.cooldown and calm and not visit.manager.closed:
            member.cools = visit.leaving + visit.cooldown - AT_ONCE

    def refused(self, visit: Visit) -> None:
        """Judge that no member was free for a visit in time."""
        oracle, now = self._oracle, self._oracle.loop.time()
        calm = oracle.trouble_of(visit.process) < visit.begun - CALM_AFTER and visit.process.link.far == 0.0
        if not calm or self._has_lost_data() or now - visit.begun < 1.5:
            return
        later = [
            other for other in oracle.visits.values()
            if other.pooled and visit.begun + 0.3 < other.begun and other.entered < now - 0.1 and other.fingerprint != POOL
        ]  # fmt: skip
        is_choosy = visit.options.get("max_uses") is not None or visit.options.get("max_age") is not None
        if len(later) >= 3 and not is_choosy:  # else they were given what it does not want
            oracle.break_("pool", f"{visit} was given nothing, and {', '.join(map(str, later))} came later and were")
        for fingerprint, member in self._members.items():
            if member.added < visit.begun and not member.unsure and self._was_free(fingerprint, member, visit):
                oracle.break_("pool", f"{visit} was given nothing, and {fingerprint} is free")

    def _was_free(self, fingerprint: str, member: Member, visit: Visit) -> bool:
        """Return whether a member was free all the time that a visit waited, also for an agent that looks at it late."""
        oracle = self._oracle
        session, lease_ttl = oracle.sessions[fingerprint], visit.manager.config["lease_ttl"]
        if session.bad_issued >= 3 or any(one.options.get("max_uses") for one in oracle.visits.values()):
            return False
        if any(visit.manager.config.get(name) for name in ("max_age", "ttl_from_cookies")):
            return False
        since = max([member.added, member.cools, *(at for at, _ in session.holders)])
        for other in oracle.visits.values():
            if other.fingerprint == fingerprint and other.options.get("exclusive"):
                dead = other.manager.crashed and other.left == float("inf")
                since = max(since, other.begun if dead else other.left)
            elif other.pooled and other is not visit and other.left == float("inf") and not other.manager.crashed:
                return False  # it looks at a member, or waits as well
        return since + lease_ttl + RESERVED < visit.begun

    def _has_lost_data(self) -> bool:
        return any(session.lost_at >= 0 for session in self._oracle.sessions.values())


# Items ----------------------------------------------------------------------------------------------------------------------


def items_of(document: dict[str, Any], fingerprint: str) -> Items:
    """Return the items of a document: name -> serial of the value.

    Raises:
        ValueError: a value is another fingerprint's, or no one's.
    """
    found: Items = {}
    state = document["storage_state"]
    for cookie in state["cookies"]:
        found[f"c:{cookie['name']}"] = serial_of(cookie["value"], fingerprint)
    for origin in state["origins"]:
        for entry in origin.get("localStorage", ()):
            found[f"l:{entry['name']}"] = serial_of(entry["value"], fingerprint)
    for name, value in document["data"].items():
        found[f"d:{name}"] = serial_of(value, fingerprint)
    return found


def _reused_for(visit: Visit) -> float:
    """Return the seconds after which a process must not reuse what it has heard."""
    config = visit.manager.config
    return float(min(config.get("reuse_while_away", 3600.0), config.get("ttl", 86400.0)))


def outcome_is(visit: Visit, *outcomes: Outcome) -> bool:
    """Return whether a visit has one of these outcomes."""
    return visit.outcome in outcomes


def serial_of(value: Any, fingerprint: str) -> int:
    """Return the serial number of a value."""
    owner, _, serial = str(value).rpartition("#")
    if owner != fingerprint or not serial.isdigit():
        raise ValueError(f"{value!r} in {fingerprint}")
    return int(serial)


def shown(items: Items | None) -> str:
    """Return items for people."""
    if items is None:
        return "nothing"
    return "{" + " ".join(f"{name}={serial}" for name, serial in sorted(items.items())) + "}"

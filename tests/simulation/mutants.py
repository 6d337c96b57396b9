"""Known faults, to be put back one by one: a simulator that does not find them proves nothing.

Each was a fault of an earlier version of the client. `python -m tests.simulation --mutant NAME --seeds 5000` finds it.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from session_reuse import Outcome, SaveOutcome
from session_reuse._logins import pool
from session_reuse._session import changes, entry, lease, options, scope, snapshots, writer
from session_reuse._session import fold as folding
from session_reuse._state import domains
from session_reuse._state.storage_state import is_empty
from session_reuse._stored_form import document_of
from tests.simulation import seams


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault.

    Attributes:
        what: what goes wrong.
        apply: puts it into the code, for as long as the process lives.
        kinds: the invariants that may break.
        start: the seed to begin with: a rare fault is found sooner near one that is known to show it.
    """

    what: str
    apply: Callable[[], None]
    kinds: frozenset[str]
    start: int


MUTANTS: Final[dict[str, Mutant]] = {}


def _mutant(*kinds: str, start: int = 0) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def register(apply: Callable[[], None]) -> Callable[[], None]:
        MUTANTS[apply.__name__] = Mutant((apply.__doc__ or "").splitlines()[0], apply, frozenset(kinds), start)
        return apply

    return register


@_mutant("ttl")
def late_ttl() -> None:
    """A save that comes late sets the time to live from its own old knowledge."""
    seams.change_script(
        "commit", "local target = math.max(left, tonumber(ARGV[9]))", "local target = tonumber(ARGV[9])"
    )


@_mutant("promise", start=3725)
def leases_over_what_waits() -> None:
    """An exclusive agent takes a lease over a save of its process that waits under an earlier one."""

    async def leave_it(*_: object) -> None:
        await asyncio.sleep(0)

    lease.LeaseHolder.deliver_first = leave_it  # type: ignore[method-assign,assignment]


@_mutant("older", start=490)
def forgets_what_was_lost() -> None:
    """A store that has lost a session gets back what the agent had that saves next."""
    folding._lost = lambda *_: None


@_mutant("promise", "lost", "stale", start=2777)
def one_ground() -> None:
    """Saves that wait are joined: what one of them may not change, none may."""
    real = folding.fold

    def fold(waiting: Any, stored: Any, moment: Any, **options: Any) -> folding.Folded:
        found = real(waiting, stored, moment, **options)
        if not found.refused:
            return found
        return replace(found, applied=[], refused=[(change, found.refused[0][1]) for change in waiting])

    folding.fold = writer.fold = fold


@_mutant("revived")
def short_tombstones() -> None:
    """A tombstone lives as long as a session, and a body may run longer."""
    writer.TOMBSTONE_TTL = 4.0  # type: ignore[misc]


@_mutant("lost", "older", start=100)
def late_baseline() -> None:
    """A checkpoint under way when the body ends brings back what was deleted after it."""
    real = scope.SessionScope._save

    async def save(self: Any, *, final: bool) -> SaveOutcome:
        before = self._before
        saving = asyncio.ensure_future(real(self, final=final))
        await asyncio.sleep(0)
        if not saving.done():
            self._before = before
        return await saving

    scope.SessionScope._save = save  # type: ignore[method-assign]


@_mutant("replaced", "lost", "older")
def unreadable_is_damaged() -> None:
    """What a process cannot open without the key is set aside."""
    real = snapshots.Snapshots.decode

    async def entered(self: Any, *arguments: Any) -> Any:
        snapshot, document, error = await real(self, *arguments)
        if snapshot.kind is changes.StoredKind.UNREADABLE:
            snapshot = replace(snapshot, kind=changes.StoredKind.CORRUPT)
        return snapshot, document, error

    snapshots.Snapshots.decode = entered  # type: ignore[method-assign]


@_mutant("exclusive", start=114)
def exclusive_while_away() -> None:
    """While the store is away, exclusive agents start from what their process knows."""
    real = scope.while_away

    def while_away(reason: Any, base: Any, outbox: Any, options: Any, *rest: Any, **limits: Any) -> entry.Entry:
        return real(reason, base, outbox, replace(options, exclusive=False), *rest, **limits)

    scope.while_away = while_away


@_mutant("reuse", start=1730)
def reused_beyond_their_life() -> None:
    """While the store is away, sessions are reused that it does not keep any more."""
    entry._kept_until = lambda *_: float("inf")


@_mutant("lost", "older", start=100)
def own_clocks() -> None:
    """Which of two changes is the later one is decided by the clocks of the hosts that made them."""

    def by_server(self: changes.Moment, elapsed: float) -> int:
        return round((self.wall - (self.elapsed - elapsed)) * 1_000_000)

    changes.Moment.by_server = by_server  # type: ignore[method-assign,assignment]


@_mutant("promise")
def refused_in_silence() -> None:
    """A save that waited and was refused is counted as written."""
    writer.Writer._lost = lambda self, fingerprint, why: None  # type: ignore[method-assign]
    real = changes.Change.settle

    def settle(self: changes.Change, outcome: SaveOutcome, *why: str) -> None:
        refused = outcome in {SaveOutcome.STALE, SaveOutcome.SKIPPED, SaveOutcome.LOST}
        real(self, SaveOutcome.SAVED if refused and self.failure is not None else outcome, *why)

    changes.Change.settle = settle  # type: ignore[method-assign]


@_mutant("reuse", "torn")
def forgets_its_saves() -> None:
    """During an outage agents are given less than their process has had confirmed."""
    real = writer.Writer._written

    def written(self: Any, replica: Any, *rest: Any) -> None:
        base = replica.base
        real(self, replica, *rest)
        replica.base = base if base.kind is changes.StoredKind.PRESENT else replica.base

    writer.Writer._written = written  # type: ignore[method-assign]


@_mutant("skipped", "lost", "promise")
def empty_is_skipped() -> None:
    """A session that was seen to become empty is not saved: the logout is undone."""
    real = scope.body_to_save

    def body_to_save(session: Any, before: Any, **options: Any) -> Any:
        if session.outcome is Outcome.REUSED and is_empty(document_of(session)["storage_state"]):
            return None
        return real(session, before, **options)

    scope.body_to_save = body_to_save


@_mutant("lease", start=118)
def lease_stays() -> None:
    """An enter that raises leaves its lease behind."""
    lease.LeaseHolder.abandon = lambda self: None  # type: ignore[method-assign]


@_mutant("lease", start=118)
def overtaken_release() -> None:
    """A release overtakes the request for the lease, which then is no one's."""
    seams.change_script("acquire", "if redis.call('EXISTS', KEYS[4]) == 1", "if false")


@_mutant("promise", start=154)
def interrupts_lose() -> None:
    """KeyboardInterrupt or SystemExit during a save: it is lost without a word."""
    real = writer.Writer._enqueue

    def enqueue(self: Any, replica: Any, waiting: Any) -> None:
        error = sys.exc_info()[1]
        if error is None or isinstance(error, Exception | asyncio.CancelledError):
            real(self, replica, waiting)

    writer.Writer._enqueue = enqueue  # type: ignore[method-assign]


@_mutant("mark", start=149)
def marks_again() -> None:
    """A mark counts again each time it is sent."""
    seams.change_script("commit", "redis.call('SET', KEYS[7], '1', 'NX', 'PX', 86400000)", "true")


@_mutant("scope", "lost", "torn")
def scope_drops_the_rest() -> None:
    """A change of an agent that sees a part of a session is stored as if it were the whole."""
    folding._widened = lambda _domains, rebased, _inside, _whole: rebased  # type: ignore[assignment]


@_mutant("scope")
def scope_hands_out_all() -> None:
    """An agent with `allowed_domains` is handed the cookies and storage of other sites too."""
    domains.AllowedDomains.restrict = lambda _self, document: document  # type: ignore[method-assign]


@_mutant("scope")
def never_is_saved() -> None:
    """What an agent with `save="never"` changes is saved."""
    real = options.ResolvedOptions.build

    def build(config: Any, given: Any = None) -> options.ResolvedOptions:
        return real(config, {name: value for name, value in (given or {}).items() if name != "save"})

    options.ResolvedOptions.build = staticmethod(build)  # type: ignore[method-assign,assignment]


@_mutant("pool")
def cooldown_is_forgotten() -> None:
    """A member whose login is in doubt is handed out again at once."""
    seams.change_script("pool_return", "(tonumber(ARGV[2]) or 0) * 1000", "0")


@_mutant("pool")
def members_stay_reserved() -> None:
    """The member of an agent that has died, or has given it back, stays reserved."""
    seams.change_script("pool_take", "now + (tonumber(ARGV[3]) or 0)", "now + 86400000000")
    pool.Turn._return = _nothing  # type: ignore[method-assign,assignment]


@_mutant("pool", start=60)
def waiters_overtake() -> None:
    """Whoever calls first gets a free member, however long others wait."""
    seams.change_script("pool_take", "if first == waiter then", "do")
    seams.change_script("pool_take", "tonumber(ARGV[2]) or 0", "0")


@_mutant("exclusive")
def two_holders() -> None:
    """A member is handed out without looking whether its lease is taken."""
    seams.change_script("acquire", "if token and holder ~= ARGV[1] then", "if false then")


async def _nothing(*_arguments: Any) -> None:
    """Do nothing."""


def find(name: str, seeds: int, start: int) -> int | None:
    """Return how many seeds it takes from one on until a mutant is found. None when it is not."""
    command = [sys.executable, "-m", "tests.simulation", "--mutant", name, "--seeds", str(seeds), "--no-shrink"]
    command += ["--start", str(start), "--only", ",".join(sorted(MUTANTS[name].kinds))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    tally = re.search(r"^(\d+) histories in .* (\d+) broken$", done.stdout, re.MULTILINE)
    if tally is None:
        raise RuntimeError(done.stdout + done.stderr)
    return int(tally.group(1)) if tally.group(2) != "0" else None


if __name__ == "__main__":
    for each in sys.argv[1:] or MUTANTS:
        sys.stdout.write(f"{each:22} {find(each, 10_000, 0)!s:>5} seeds   {MUTANTS[each].what}\n")
        sys.stdout.flush()

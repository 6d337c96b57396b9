"""`Audit`: the lines about uses of sessions, each written with the save that ends the use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from session_reuse._browser_session import BrowserSession
from session_reuse._resilience.failure import AttemptFailed
from session_reuse._session.changes import REFUSED, Change
from session_reuse._session.clock import Clock
from session_reuse._session.fold import Folded
from session_reuse._session.guarded_store import Access, GuardedStore
from session_reuse._session.options import ResolvedOptions
from session_reuse._session.tasks import Spawn
from session_reuse._store.interface import Commit, CommitReply, SessionUse
from session_reuse._telemetry import Event, log
from session_reuse.outcome import Outcome, SaveOutcome

_REMEDY: Final = "the lines are lost: give the user the right to XADD on this key, or set audit to False"


class Audit:
    """Writes the audit of one manager. Its failures cost neither a save nor an agent's time.

    Args:
        budget: seconds for lines that no save carries.
    """

    def __init__(self, store: GuardedStore, clock: Clock, spawn: Spawn, budget: float) -> None:
        self._store = store
        self._clock = clock
        self._spawn = spawn
        self._budget = budget
        self._is_failing = False

    def attach(self, commit: Commit, folded: Folded) -> Commit:
        """Return a commit that carries the lines about the uses that it ends.

        A session and the audit may live on different servers of a Cluster. Then the lines go out beside the commit, so that
        a slow server of the audit does not delay the saves of all sessions.
        """
        lines = []
        for change, rebased in folded.applied:
            if not change.uses:
                continue
            saved = SaveOutcome.MERGED if rebased.merged else SaveOutcome.SAVED
            change.noted = SaveOutcome.SKIPPED if change.mark_only else saved if commit.value else SaveOutcome.UNCHANGED
            lines += self._lines(change, change.noted)
        if not lines:
            return commit
        store = self._store
        if store.store.server_of(store.keys.audit) == store.server_of(commit.fingerprint):
            return replace(commit, uses=tuple(lines))
        self._spawn(self._append(lines), "release")
        return commit

    def check(self, commit: Commit, reply: CommitReply) -> None:
        """Report a refused line."""
        if commit.uses:
            self._report(reply.audit_error)

    def finish(self, change: Change) -> None:
        """Write a line about a use whose save came to another end than a commit carried, or that no commit carried."""
        outcome = change.outcome
        if not change.uses or outcome is None:
            return
        if change.noted is None or (outcome in REFUSED and outcome is not change.noted):
            change.noted = outcome
            self._spawn(self._append(self._lines(change, outcome)), "release")

    def use_of(self, session: BrowserSession, options: ResolvedOptions, use_id: str) -> SessionUse | None:
        """Return the use of a session as of now. None without an id, or when another agent had the session.

        Args:
            session: as the agent leaves it.
            options: what the caller asked for.
            use_id: names the use. Empty without an audit, or when it was noted.
        """
        if not use_id or session.outcome is Outcome.BUSY:
            return None
        return SessionUse(
            fingerprint=session.fingerprint, agent_id=session.agent_id or options.used_by, outcome=session.outcome,
            save_outcome=session.save_outcome, allowed_domains=session.allowed_domains, read_only=options.save == "never",
            used_at=self._clock.wall(), use_id=use_id,
        )  # fmt: skip

    async def note(self, use: SessionUse) -> None:
        """Write a line that no save carries."""
        await self._append([(use, 0.0)])

    def _lines(self, change: Change, outcome: SaveOutcome) -> list[tuple[SessionUse, float]]:
        now = self._clock.wall()
        return [(replace(use, save_outcome=outcome), max(0.0, now - use.used_at)) for use in change.uses]

    async def _append(self, lines: Sequence[tuple[SessionUse, float]]) -> None:
        try:
            await self._store.run_on(
                Access.WRITE, self._store.keys.audit, self._budget,
                lambda store, timeout: store.add_uses(lines, timeout=timeout),
            )  # fmt: skip
        except AttemptFailed as failure:
            self._report(failure.code)
        else:
            self._report("")

    def _report(self, error: str) -> None:
        """Log the first of several failures."""
        if error and not self._is_failing:
            log.warning(Event.AUDIT_FAILED, error=error, remedy=_REMEDY)
        self._is_failing = bool(error)

"""A keeper that stores in memory what a real one would write.

It asks the captures before each save, keeps the stored state when one raises, and merges three ways against the state
that the session restored, as concurrent holders need.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import os
from typing import Any

from session_reuse import BrowserSession
from session_reuse._state.merge import merge_storage_states
from session_reuse._stored_form import encode_session
from session_reuse.outcome import Outcome, SaveOutcome
from tests.harness.probes import capture_reason_of, captures_of, serve_by


class StubKeeper:
    """One stored state, and the sessions that come and go."""

    def __init__(self, stored: dict[str, Any] | None = None) -> None:
        self.stored = stored
        self.process = os.getpid()
        self.saves = 0
        self._bases: dict[int, dict[str, Any]] = {}

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop in which a session is used: the stub serves each."""
        return asyncio.get_running_loop()

    def enter(self) -> BrowserSession:
        """Return a session as a `reusable_session` would on entering."""
        state = copy.deepcopy(self.stored) if self.stored is not None else None
        session = BrowserSession("site/alice", storage_state=state)
        session.outcome = Outcome.MISSING if state is None else Outcome.REUSED
        serve_by(session, self)
        self._bases[id(session)] = copy.deepcopy(session.storage_state)
        return session

    def enter_blocking(self) -> BrowserSession:
        """Return a session whose `checkpoint` blocks, as those of `session_reuse.blocking` do."""

        class Blocking(BrowserSession):
            def checkpoint(self) -> SaveOutcome:
                return asyncio.run(super().checkpoint())

        session = Blocking("site/alice")
        serve_by(session, self)
        self._bases[id(session)] = copy.deepcopy(session.storage_state)
        return session

    async def checkpoint(self, session: BrowserSession) -> SaveOutcome:
        """Save as `session.checkpoint()` asks for."""
        for capture in captures_of(session):
            try:
                captured = capture()
                session.storage_state = await captured if inspect.isawaitable(captured) else captured
            except Exception as error:  # noqa: BLE001  (as the real one: whatever a capture raises)
                session.capture_failed(str(error))
        if capture_reason_of(session) is not None:
            return SaveOutcome.SKIPPED
        base, mine = self._bases[id(session)], copy.deepcopy(session.storage_state)
        self.stored = merge_storage_states(base, mine, self.stored if self.stored is not None else base)
        self._bases[id(session)] = mine
        self.saves += 1
        return SaveOutcome.SAVED

    async def leave(self, session: BrowserSession) -> SaveOutcome:
        """Save as the end of a `reusable_session` would."""
        return await self.checkpoint(session)

    async def invalidate(self, reason: str) -> None:
        """Forget the stored state."""
        self.stored = None

    def export(self, session: BrowserSession) -> bytes:
        """Return the stored form, as outside of a store."""
        return encode_session(session)

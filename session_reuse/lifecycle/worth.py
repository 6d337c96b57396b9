"""What of a session is worth saving: never a bad state over a good one. Pure; looks at the session, changes nothing."""

from __future__ import annotations

from session_reuse.outcome import Outcome
from session_reuse.session import BrowserSession
from session_reuse.state import document
from session_reuse.state.baseline import Baseline
from session_reuse.state.storage_state import empty_storage_state, is_empty
from session_reuse.transfer import document_of


def may_be_saved(session: BrowserSession) -> bool:
    """Return whether the agent's own verdict, and how it entered, allow a save at all."""
    return not (session.discarded or session.marked_bad or session.outcome is Outcome.BUSY)


def document_worth_saving(
    session: BrowserSession, baseline: Baseline, *, new_login: bool
) -> document.Document | None:  # fmt: skip
    """Return what to save of a session; None for nothing.

    A storage state that was not captured, or is empty where the stored one is not, is left as it is stored; the
    agent's notes are saved all the same.

    Args:
        session: as the agent leaves it.
        baseline: what is known of the stored copy.
        new_login: whether it is to replace a retired or unverified state as a whole.

    Raises:
        InvalidStateError: storage_state or data was changed into something that cannot be stored.
    """
    found = document_of(session)
    if session.capture_reason is None and not is_empty(found["storage_state"]):
        return found
    before = document.load(baseline.view, baseline.dialect) if baseline.view else None
    stored_state = before["storage_state"] if before else empty_storage_state()
    if session.capture_reason is None and is_empty(stored_state):
        return found
    if new_login or found["data"] == (before["data"] if before else {}):
        return None
    return {**found, "storage_state": stored_state}

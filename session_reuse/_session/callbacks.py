"""Functions of the application and of adapters that we call: captures and `verify`. None can hang or raise into the agent."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from session_reuse._browser_session import BrowserSession, Verdict, check_raised, wiring_of
from session_reuse._cancellation import ends_us
from session_reuse._session.exit import allows_save
from session_reuse.config import Config


async def _capture(session: BrowserSession, limit: float) -> None:
    """Call the adapters for the current state. What cannot be read within `limit` seconds leaves the state alone."""
    for ask in list(wiring_of(session).captures):
        try:
            async with asyncio.timeout(limit):
                state: Any = ask()
                session.storage_state = await state if inspect.isawaitable(state) else state
        except (Exception, asyncio.CancelledError) as error:  # whatever an adapter raises, the stored state must stay
            if ends_us(error):
                raise
            session.capture_failed(type(error).__name__)


async def examined(session: BrowserSession, verify: Verdict | None, config: Config) -> bool:
    """Read the browser, and return whether the session may be saved."""
    wiring = wiring_of(session)
    if wiring.captures and not wiring.discarded:
        await _capture(session, config.capture_timeout)
    if not allows_save(wiring, session.outcome):
        return False
    return verify is None or await verified(session, verify, config.verify_timeout, at_exit=True)


async def verified(session: BrowserSession, verify: Verdict, limit: float, *, at_exit: bool = False) -> bool:
    """Return what the caller's hook says. One that raises, or takes longer than `limit` seconds, says no.

    One that raises AdapterError cannot tell: what is restored stays, and what is left is not saved.
    """
    try:
        async with asyncio.timeout(limit):
            verdict = verify(session)
            return bool(await verdict if inspect.isawaitable(verdict) else verdict)
    except (Exception, asyncio.CancelledError) as error:  # by contract: raising means not verified
        if ends_us(error):
            raise
        return check_raised(session, error) and not at_exit

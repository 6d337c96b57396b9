"""Functions of the application and of adapters that we call: captures and `verify`. None can hang or raise into the agent."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from session_reuse._browser_session import BrowserSession, Verdict, wiring_of


async def capture(session: BrowserSession, limit: float) -> None:
    """Call the adapters for the current state. What cannot be read within `limit` seconds leaves the state alone."""
    for ask in list(wiring_of(session).captures):
        try:
            async with asyncio.timeout(limit):
                state: Any = ask()
                session.storage_state = await state if inspect.isawaitable(state) else state
        except Exception as error:  # noqa: BLE001  (whatever an adapter raises, the stored state must stay)
            session.capture_failed(type(error).__name__)


async def verified(session: BrowserSession, verify: Verdict, limit: float) -> bool:
    """Return what the caller's hook says. One that raises, or takes longer than `limit` seconds, says no."""
    try:
        async with asyncio.timeout(limit):
            verdict = verify(session)
            return bool(await verdict if inspect.isawaitable(verdict) else verdict)
    except Exception as error:  # noqa: BLE001  (by contract: raising means not verified)
        session.report("verify_failed", type(error).__name__)
        return False

"""Functions as users of frameworks write them, to be decorated by tests: with string annotations and their own types module."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from pydantic import Field

from session_reuse import BrowserSession, blocking, injected

Amount = Annotated[int, Field(ge=0)]


async def endpoint(account: str, amount: Amount = 1, *, session: BrowserSession = injected()) -> dict[str, Any]:
    """Serve a request."""
    return {"session": session.fingerprint, "amount": amount}


def plain_endpoint(
    account: str, amount: Amount = 1, *, session: blocking.BrowserSession = injected()
) -> dict[str, Any]:
    """Serve a request in a thread, as frameworks run plain functions."""
    return {"session": session.fingerprint, "amount": amount}


def command(account: str, amount: int = 1, *, session: blocking.BrowserSession = injected()) -> None:
    """Run from a command line."""
    sys.stdout.write(f"{session.fingerprint} {amount}\n")

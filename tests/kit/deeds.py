"""What the tests of stores do again and again: saving, leasing, logging in. Must never assert more than that it worked."""

from __future__ import annotations

from typing import Any

from session_reuse import SessionManager, reusable_session
from session_reuse.state.baseline import Expectation
from session_reuse.state.codec import Codec
from session_reuse.state.header import Header
from session_reuse.store.interface import (
    Busy,
    Commit,
    Committed,
    Lease,
    Store,
)
from session_reuse.testing import state_with_cookie

NAME = "shop.example/alice"
HOUR = 3600.0


def payload(
    save_id: str = "a" * 12, version: int = 1, created_at: int = 1000, token: int = 0, name: str = NAME
) -> bytes:
    """Return a stored form with a header to order."""
    header = Header(save_ids=(save_id,), created_at=created_at, saved_at=2000, version=version, token=token)
    return Codec(compression="none").encode(b'{"x":1}', "o", header, f"browser:session:{name}")


async def save(store: Store, save_id: str = "a" * 12, *, version: int = 1, token: int = 0, **fields: Any) -> Committed:
    """Commit a payload."""
    value = payload(save_id, version, token=token)
    defaults = {"fingerprint": NAME, "value": value, "save_id": save_id, "expectation": Expectation.ABSENT}
    return await store.commit(Commit(**{**defaults, **fields}), timeout=2)


async def head(store: Store) -> Header:
    """Return the header of what is stored."""
    value = await store.read(NAME, timeout=2)
    assert value is not None
    return Header.decode(value)


async def logged_in(manager: SessionManager, name: str = NAME, agent: str | None = "agent-1", **data: Any) -> None:
    """Leave a stored session."""
    async with reusable_session(name, agent, manager=manager) as session:
        session.storage_state = state_with_cookie()
        session.data.update(data)


async def take(store: Store, holder: str, seconds: float = HOUR) -> Lease | Busy:
    """Ask for the lease."""
    entered = await store.enter(NAME, ttl=HOUR, timeout=2, lease=(holder, seconds))
    assert entered.lease is not None
    return entered.lease

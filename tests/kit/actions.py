"""What the tests of stores do again and again: save, lease, log in."""

from __future__ import annotations

from typing import Any

from session_reuse import SessionManager, reusable_session
from session_reuse._state.codec import Codec
from session_reuse._state.header import Header
from session_reuse._store.interface import Busy, Commit, CommitReply, Lease, Precondition
from session_reuse.testing import Store, state_with_cookie

NAME = "shop.example/alice"
HOUR = 3600.0
CREATED_AT = 1000


def payload(save_id: str = "a" * 12, version: int = 1, *, name: str = NAME, **fields: Any) -> bytes:
    """Return a stored form with a header to order."""
    header = Header(
        **{"save_ids": (save_id,), "created_at": CREATED_AT, "saved_at": 2000, "version": version, **fields}
    )
    return Codec(compression="none").encode(b'{"x":1}', "o", header, f"browser:session:{name}")


async def save(store: Store, save_id: str = "a" * 12, *, version: int = 1, **fields: Any) -> CommitReply:
    """Commit a payload."""
    defaults = {
        "fingerprint": NAME,
        "value": payload(save_id, version),
        "save_id": save_id,
        "precondition": Precondition.ABSENT,
        "created_at": CREATED_AT,
    }
    return await store.commit(Commit(**{**defaults, **fields}), timeout=10)


async def keep(store: Store, save_id: str = "k" * 12, **fields: Any) -> CommitReply:
    """Commit an unchanged session."""
    return await save(store, save_id, **{"value": b"", "precondition": Precondition.UNCHANGED, **fields})


async def save_next(store: Store, save_id: str, **fields: Any) -> CommitReply:
    """Commit a payload over the stored state."""
    before = await header_of(store)
    value = payload(save_id, before.version + 1, save_ids=(save_id, *before.save_ids)[:4], created_at=before.created_at)
    defaults = {"value": value, "precondition": Precondition.MATCHES, "known": before.revision.encode()}
    return await save(store, save_id, **{**defaults, "created_at": before.created_at, **fields})


async def invalidate(store: Store, request_id: str = "i" * 12, **fields: Any) -> bool:
    """Delete the session for everyone."""
    return await store.invalidate(NAME, ttl=HOUR, request_id=request_id, timeout=10, **fields)


async def value_of(store: Store) -> bytes | None:
    """Return the stored state."""
    return (await store.read(NAME, timeout=10)).value


async def header_of(store: Store) -> Header:
    """Return the header of the stored state."""
    value = await value_of(store)
    assert value is not None
    return Header.decode(value)


async def logged_in(manager: SessionManager, name: str = NAME, agent: str | None = "agent-1", **data: Any) -> None:
    """Leave a stored session."""
    async with reusable_session(name, agent, manager=manager) as session:
        session.storage_state = state_with_cookie()
        session.data.update(data)


async def take(store: Store, holder: str, seconds: float = HOUR) -> Lease | Busy:
    """Ask for the lease."""
    entered = await store.enter(NAME, ttl=HOUR, timeout=10, lease=(holder, seconds))
    assert entered.lease is not None
    return entered.lease

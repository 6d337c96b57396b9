"""Ways to keep a session in Redis: plain ones, our own.

Each one restores the session of a task, changes one cookie, and saves it. Other libraries are in `rivals.py`.
"""

from __future__ import annotations

import copy
import os
import time
from dataclasses import replace
from typing import Any, Final, Protocol

import orjson
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from session_reuse import SessionManager, reusable_session
from session_reuse._state import document
from session_reuse._state.codec import Codec
from session_reuse._state.header import REMEMBERED_SAVES, Header
from session_reuse._state.storage_state import validate_storage_state
from session_reuse._store.interface import Commit, Precondition
from session_reuse._store.keys import Keys
from session_reuse._store.redis.store import RedisStore
from session_reuse._store.redis.topology import topology_of
from session_reuse._stored_form import new_save_id

TTL: Final = 86400
ENOUGH_CONNECTIONS: Final = 4096
"""redis-py's default of 100 makes the 101st agent fail; the plain contestants are spared that."""


PATIENT: Final = {"attempt_timeout": 5.0, "restore_timeout": 10.0, "save_timeout": 20.0}
"""Budgets for measuring cost: the other contestants wait for ever too, when the machine is busy elsewhere."""

PATIENT_CLIENT: Final = {"socket_connect_timeout": 60.0, "socket_timeout": 60.0}
"""The same for redis-py, whose defaults end a cycle on a machine with forty programs at work (2026-11-26)."""


class Contestant(Protocol):
    """One way to restore and save."""

    async def open(self, url: str, state: dict[str, Any]) -> None:
        """Connect, and note the state that every session starts from."""

    async def cycle(self, task: int) -> None:
        """Restore the session of a task and save it."""

    async def close(self) -> None:
        """Disconnect."""


def change(state: dict[str, Any]) -> None:
    """Change one cookie, as a site does that renews its session."""
    state["cookies"][0]["value"] = os.urandom(16).hex()


class Naive:
    """redis-py, GET and SET of JSON: nothing is checked, nothing is kept safe."""

    options: dict[str, Any] = {"max_connections": ENOUGH_CONNECTIONS, **PATIENT_CLIENT}  # noqa: RUF012

    async def open(self, url: str, state: dict[str, Any]) -> None:
        """Connect."""
        self.state = state
        self.client = Redis.from_url(url, protocol=2, **self.options)

    async def cycle(self, task: int) -> None:
        """GET, change, SET."""
        await self.save(task, await self.load(task))

    async def load(self, task: int) -> dict[str, Any]:
        """GET."""
        value = await self.client.get(f"naive:{task}")
        return orjson.loads(value) if value else copy.deepcopy(self.state)

    async def save(self, task: int, state: dict[str, Any]) -> None:
        """SET."""
        change(state)
        await self.client.set(f"naive:{task}", orjson.dumps(state), ex=TTL)

    async def close(self) -> None:
        """Disconnect."""
        await self.client.aclose()


class NaiveByDefault(Naive):
    """The same with redis-py's default settings."""

    options: dict[str, Any] = {}  # noqa: RUF012


class Seed(Naive):
    """What this project began with: GET and SET, and a SET for the affinity."""

    async def save(self, task: int, state: dict[str, Any]) -> None:
        """SET twice."""
        await super().save(task, state)
        await self.client.set(f"naive:affinity:{task}", f"site/{task}", ex=TTL)


class Floor(Naive):
    """The naive cycle over our batching: JSON, two commands and nothing else. What no safe cycle of ours can beat."""

    async def open(self, url: str, state: dict[str, Any]) -> None:
        """Connect."""
        await super().open(url, state)
        self.lanes = topology_of(self.client, lanes=2)

    async def load(self, task: int) -> dict[str, Any]:
        """GETEX."""
        (value,) = await self.lanes.execute(("GETEX", f"naive:{task}", "PX", TTL * 1000), timeout=5.0)
        return orjson.loads(value) if value else copy.deepcopy(self.state)

    async def save(self, task: int, state: dict[str, Any]) -> None:
        """SET."""
        change(state)
        await self.lanes.execute(("SET", f"naive:{task}", orjson.dumps(state), "PX", TTL * 1000), timeout=5.0)

    async def close(self) -> None:
        """Disconnect."""
        await self.lanes.aclose()
        await super().close()


class SafeFloor:
    """What our safe cycle must do, in a straight line: open, look, seal, ask the store. No session, breaker, count or budget."""

    changes = True

    async def open(self, url: str, state: dict[str, Any]) -> None:
        """Connect."""
        self.state = state
        self.client = Redis.from_url(url, protocol=2, max_connections=ENOUGH_CONNECTIONS)
        self.keys = Keys("floor")
        self.store = RedisStore(self.client, self.keys)
        self.codec = Codec(keys=(bytes(32),))
        self.known: dict[int, tuple[bytes, bytes]] = {}

    async def cycle(self, task: int) -> None:
        """Restore, change, save. All of them are expected to go well."""
        name, agent = f"site/{task}", f"agent-{task}"
        key = self.keys.session(name)
        value = (await self.store.enter(name, ttl=TTL, timeout=5.0)).value
        before, view = None, b""
        if value is None:
            found: document.Document = {"fingerprint": name, "storage_state": copy.deepcopy(self.state), "data": {}}
        else:
            decoded = self.codec.decode(value, key, self.known.get(task))
            before, view = decoded.header, decoded.document
            found = document.load(view, before.flags[2])
            if self.changes:
                change(found["storage_state"])
        validate_storage_state(found["storage_state"])
        body, dialect = document.dump(found)
        header, known = _following(before)
        commit = Commit(
            fingerprint=name, save_id=header.save_ids[0], precondition=Precondition.UNCHANGED, known=known,
            created_at=header.created_at, ttl=TTL, agents=((agent, name),), indexed=before is not None,
        )  # fmt: skip
        if body != view:
            sealed = self.codec.encode(body, dialect, header, key)
            self.known[task] = sealed, body
            precondition = Precondition.MATCHES if before else Precondition.ABSENT
            commit = replace(commit, value=sealed, precondition=precondition)
        reply = await self.store.commit(commit, timeout=5.0)
        if not reply.outcome.written:
            raise RuntimeError(f"a cycle went wrong: {reply.outcome}")

    async def close(self) -> None:
        """Disconnect."""
        await self.store.aclose()


class SafeFloorUnchanged(SafeFloor):
    """The same, and nothing changes."""

    changes = False


def _following(before: Header | None) -> tuple[Header, bytes]:
    """Return the head of the next version, and the revision it follows."""
    now, save_id = round(time.time() * 1000), new_save_id()
    if before is None:
        return Header(save_ids=(save_id,), created_at=now, saved_at=now), b""
    save_ids = (save_id, *before.save_ids)[:REMEMBERED_SAVES]
    header = Header(version=before.version + 1, save_ids=save_ids, created_at=before.created_at, saved_at=now)
    return header, before.revision.encode()


class Ours:
    """This SDK, all safety on: versioned, encrypted, compressed, affinity, metrics, breaker."""

    changes = True

    budgets = PATIENT

    def __init__(self, **config: Any) -> None:
        self.config = {"encryption_keys": (bytes(32),), **self.budgets, **config}

    async def open(self, url: str, state: dict[str, Any]) -> None:
        """Make the manager."""
        self.state = state
        self.manager = SessionManager(url, **{"registry": CollectorRegistry(), **self.config})

    async def cycle(self, task: int) -> None:
        """Enter, change, leave."""
        async with reusable_session(f"site/{task}", f"agent-{task}", manager=self.manager) as session:
            if not session.reused:
                session.storage_state = copy.deepcopy(self.state)
            elif self.changes:
                change(session.storage_state)
        if session.degraded or session.save_outcome not in {"saved", "unchanged"}:
            raise RuntimeError(f"a cycle went wrong: {session.outcome}, {session.save_outcome}")

    async def close(self) -> None:
        """Close the manager."""
        await self.manager.aclose()


class OursByDefault(Ours):
    """The same with its default budgets."""

    budgets: dict[str, float] = {}  # noqa: RUF012


class OursUnchanged(Ours):
    """The same, and the agent changes nothing."""

    changes = False


CONTESTANTS: Final[dict[str, type[Contestant]]] = {
    "naive GET+SET": Naive,
    "seed GET+SET+SET": Seed,
    "floor: naive over our lanes": Floor,
    "floor: safe, in a straight line": SafeFloor,
    "floor: the same, unchanged": SafeFloorUnchanged,
    "ours": Ours,
    "ours, unchanged": OursUnchanged,
}

"""The ways to a guarded Redis: TLS, unix socket, and a user with the smallest rights."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import pytest

from session_reuse import SessionManager, reusable_session
from session_reuse.errors import StoreError
from tests.harness.servers import HOST, RedisServer

MINIMAL_ACL: Final = (
    "on >password resetchannels resetkeys ~browser:* -@all "
    "+get +getex +set +getrange +setrange +type +exists +del +rename +pexpire +pttl "
    "+zadd +zrange +zrangebyscore +zrem +zremrangebyrank +eval +evalsha +time"
)
"""What agents need on 6.2 and later; `<key_prefix>:*` for the keys."""
LISTING: Final = "+scan +strlen"
"""What `SessionManager.sessions()` and the commands that list need besides."""
RIGHTS: Final = [word[1:] for word in MINIMAL_ACL.split() if word.startswith("+")]
PATIENT: Final = {
    "registry": None,
    "close_timeout": 0.1,
    "attempt_timeout": 5.0,
    "connect_timeout": 5.0,
    "restore_timeout": 10.0,
    "save_timeout": 10.0,
}
"""A TLS handshake on a loaded machine takes longer than an attempt may by default."""
REFUSED: Final = PATIENT | {"attempt_timeout": 1.0, "restore_timeout": 2.0, "save_timeout": 2.0}
"""An exit without a right tries to give its lease back for twice the time of an attempt."""
NAME: Final = "shop.example/alice"


async def whole_life(manager: SessionManager) -> None:
    """Save, reuse, checkpoint, exclusive, affinity, bad marks, invalidate."""
    async with reusable_session(NAME, "agent", manager=manager) as session:
        assert not session.degraded
        session.data["n"] = 1
        await session.checkpoint()
        session.data["n"] = 2
    assert session.save_outcome == "saved"
    async with reusable_session(None, "agent", manager=manager, exclusive=True, max_uses=9) as session:
        assert session.outcome == "reused"
    assert session.save_outcome == "unchanged"
    async with reusable_session(NAME, manager=manager) as session:
        session.mark_bad()
    assert await manager.affinity("agent") == NAME
    assert await manager.evict(NAME)
    assert await manager.restore(NAME) is None
    assert set(manager.stats().breakers.values()) == {"closed"}
    assert not any(name in manager.stats().entered for name in ("auth", "unavailable", "timeout"))


@pytest.fixture
async def guarded() -> AsyncIterator[RedisServer]:
    """A server with one user of the smallest rights."""
    with RedisServer() as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "agent", *MINIMAL_ACL.split())
        yield server


async def test_the_documented_rights_are_enough(guarded: RedisServer) -> None:
    """The minimal ACL is enough for all that an agent does."""
    async with SessionManager(f"redis://agent:password@{HOST}:{guarded.port}/0", **PATIENT) as manager:
        await whole_life(manager)
    assert refused(guarded) <= {"client", "hello", "ping", "client|setinfo"}


async def test_each_documented_right_is_needed(guarded: RedisServer) -> None:
    """Each right is needed by some part of an agent's life: without it, something is refused."""
    assert [right for right in RIGHTS if right not in await refused_without(guarded, right)] == []


async def refused_without(guarded: RedisServer, right: str) -> set[str]:
    """Live an agent's life without one right, and return what was refused."""
    with guarded.client() as client:
        client.execute_command("ACL", "SETUSER", "agent", "reset", *MINIMAL_ACL.split(), f"-{right}")
        client.execute_command("ACL", "LOG", "RESET")
        client.flushall()
        client.script_flush()
    async with SessionManager(f"redis://agent:password@{HOST}:{guarded.port}/0", **REFUSED) as manager:
        with contextlib.suppress(AssertionError, StoreError):
            await whole_life(manager)
        with contextlib.suppress(AssertionError, StoreError):
            await second_life(manager)
    return refused(guarded)


def refused(guarded: RedisServer) -> set[str]:
    """Return the commands that the server has refused for lack of a right."""
    with guarded.client() as client:
        return {str(entry["object"]) for entry in client.acl_log(128) if entry["reason"] == "command"}


async def second_life(manager: SessionManager) -> None:
    """The parts that the first life may not have reached."""
    await manager.affinity("agent")
    async with reusable_session("shop.example/bob", "agent", manager=manager) as session:
        session.data["n"] = 1
    await manager.evict("shop.example/bob")


async def test_tls_works_with_the_servers_certificate_only() -> None:
    """`rediss://` works with the server's certificate, and only with it."""
    with RedisServer(tls=True) as server:
        async with SessionManager(server.url, **PATIENT) as manager:
            await whole_life(manager)
        untrusted = server.url.partition("?")[0]
        async with SessionManager(untrusted, **PATIENT) as manager, reusable_session(NAME, manager=manager) as session:
            assert session.outcome == "unavailable"
            session.discard()


async def test_a_unix_socket_works() -> None:
    """`unix://` works."""
    with RedisServer(unix=True) as server:
        async with SessionManager(server.url, **PATIENT) as manager:
            await whole_life(manager)

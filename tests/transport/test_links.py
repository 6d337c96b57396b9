"""Slow and far links: what arrives is no time-out, and one session's size is its own trouble."""

from __future__ import annotations

import asyncio
import os
from time import monotonic
from typing import Any

import pytest
import redis.asyncio
from redis._parsers import _AsyncRESP2Parser
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from session_reuse import Outcome, SaveOutcome, SessionManager
from session_reuse._store.redis import redis_py
from tests.harness.fault_proxy import FaultProxy
from tests.harness.lag import Lag
from tests.harness.servers import HOST, RedisServer
from tests.transport.visits import DEFAULTS, breakers, outcomes, visit, visits

pytestmark = pytest.mark.alone("the link takes most of the default budgets")

PAD = os.urandom(1_000_000).hex()
"""Two million bytes; without compression they go over the wire as they are."""
_TOLERATED_LAG = 0.1
"""Seconds of the machine's own delays with which a try says nothing."""
NAMES = [f"shop/{number}" for number in range(20)]


@pytest.fixture(params=["hiredis", "without hiredis"])
def client_options(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return arguments for a client that reads by hiredis, or by redis-py's own parser."""
    if request.param == "hiredis":
        pytest.importorskip("hiredis")
        return {}
    monkeypatch.setattr(redis_py, "hiredis", None)
    return {"parser_class": _AsyncRESP2Parser}


async def test_a_large_session_over_a_slow_link_is_reused(proxy: FaultProxy, client_options: dict[str, Any]) -> None:
    """2 MB over 8 MB/s take longer than an attempt may be silent. Six agents at once share what arrives."""
    client = redis.asyncio.Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0), **client_options)
    async with client, SessionManager(client, **DEFAULTS, compression="none") as manager:
        assert (await visit(manager, "big", pad=PAD)).saved is SaveOutcome.SAVED
        await visits(manager, NAMES)
        proxy.download_rate = 8_000_000
        for _ in range(3):
            large, *small = await asyncio.gather(
                visit(manager, "big", save=False), *(visit(manager, name, save=False) for name in NAMES)
            )
            assert large.outcome is Outcome.REUSED
            assert outcomes(small) == {"reused": len(small)}
        assert outcomes(await visits(manager, ["big"] * 6, save=False)) == {"reused": 6}
        assert breakers(manager) == {"closed"}


async def test_a_large_session_is_reused_by_a_process_that_has_not_seen_it(proxy: FaultProxy) -> None:
    """Its size is not known beforehand. Small ones that come with it go by another lane."""
    async with SessionManager(proxy.url, **DEFAULTS, compression="none") as writer:
        await visit(writer, "big", pad=PAD)
        await visits(writer, NAMES)
    proxy.download_rate = 8_000_000
    async with SessionManager(proxy.url, **DEFAULTS, compression="none") as manager:
        found = await visits(manager, ["big", *NAMES], save=False)
        assert outcomes(found) == {"reused": len(found)}
        assert breakers(manager) == {"closed"}


async def test_a_large_session_is_saved_over_a_slow_link(proxy: FaultProxy) -> None:
    """Time that sending takes is not the server's silence."""
    async with SessionManager(proxy.url, **DEFAULTS, compression="none") as manager:
        await visits(manager, NAMES)
        proxy.upload_rate = 8_000_000
        large, *small = await asyncio.gather(visit(manager, "big", pad=PAD), *(visit(manager, name) for name in NAMES))
        assert large.saved is SaveOutcome.SAVED
        assert {one.saved for one in small} == {SaveOutcome.SAVED}
        assert breakers(manager) == {"closed"}


async def test_a_store_80_ms_away_is_reused_at_every_enter(lag: Lag) -> None:
    """With TLS, a password and its own database: also at the first enter, which opens the connection."""
    with RedisServer(tls=True, password="secret") as server:
        async with FaultProxy((HOST, server.port)) as proxy:
            url = server.url.replace(f":{server.port}/0", f":{proxy.port}/3")
            async with SessionManager(url, **DEFAULTS) as near:
                assert outcomes(await visits(near, NAMES)) == {"missing": len(NAMES)}
            proxy.latency = 0.08
            for _ in range(12):
                async with SessionManager(url, **DEFAULTS, close_timeout=0.1) as manager:
                    began = monotonic()
                    found = [await visit(manager), *await visits(manager, NAMES, save=False), await visit(manager)]
                    is_reused = all(one.outcome is Outcome.REUSED for one in found)
                    assert is_reused or lag.since(began) > _TOLERATED_LAG
                    if is_reused:
                        assert (found[0].saved, found[-1].saved) == (SaveOutcome.SAVED, SaveOutcome.SAVED)
                        assert breakers(manager) == {"closed"}
                        return
            pytest.fail("the machine was never quiet enough")


async def test_a_slow_store_is_not_asked_twice(proxy: FaultProxy) -> None:
    """A second connection is for one that may be dead, not for a server that is known to take its time."""
    async with SessionManager(proxy.url, **DEFAULTS) as manager:
        await visits(manager, NAMES)
        proxy.latency = 0.08
        for _ in range(5):  # this is how it gets to know
            await visit(manager)
        opened, asked = proxy.accepted, proxy.commands
        for _ in range(5):
            assert (await visit(manager, save=False)).outcome is Outcome.REUSED
        assert (proxy.accepted, proxy.commands) == (opened, asked + 5)

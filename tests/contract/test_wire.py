"""What goes over the wire: counted by MONITOR on a real server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from session_reuse import SaveOutcome, SessionManager, reusable_session
from tests.harness.servers import RedisServer

KEY = "browser:session:shop.example/alice"


async def stored(manager: SessionManager) -> None:
    """Leave a session of some size, and every script used once."""
    for number in range(2):
        async with reusable_session("shop.example/alice", "agent-1", manager=manager) as session:
            session.data["n"] = f"{number} " * 2000
    async with reusable_session("shop.example/alice", "agent-1", manager=manager):
        pass
    async with reusable_session("shop.example/alice", "agent-1", manager=manager, exclusive=True):
        pass


async def test_a_reuse_is_exactly_one_command(manager: SessionManager, redis_server: RedisServer) -> None:
    """Restoring costs one GETEX, and nothing else."""
    await stored(manager)
    async with redis_server.monitor() as seen:
        visit = reusable_session("shop.example/alice", "agent-1", manager=manager)
        session = await visit.__aenter__()
        await seen.barrier()
        assert session.reused
        assert seen.names == ["GETEX"]
        assert KEY in seen.lines[0]
    await visit.__aexit__(None, None, None)


async def test_an_unchanged_session_sends_no_payload(manager: SessionManager, redis_server: RedisServer) -> None:
    """Leaving unchanged refreshes the time to live and the affinity. The state does not travel."""
    await stored(manager)
    visit = reusable_session("shop.example/alice", "agent-1", manager=manager)
    session = await visit.__aenter__()
    async with redis_server.monitor() as seen:
        await visit.__aexit__(None, None, None)
        await seen.barrier()
        assert session.save_outcome is SaveOutcome.UNCHANGED
        assert seen.names[-1] == "EVALSHA"
        assert set(seen.names) <= {"EVALSHA", "SET"}
        assert sum(len(line) for line in seen.lines) < 1200
        assert all("1 1 1" not in line for line in seen.lines)


async def test_a_save_is_one_round_trip(manager: SessionManager, redis_server: RedisServer) -> None:
    """The payload goes by a native SET, the script gets small arguments only, all in one write."""
    await stored(manager)
    async with redis_server.monitor() as seen:
        async with reusable_session("shop.example/alice", "agent-1", manager=manager) as session:
            session.data["n"] = "new " * 2000
        await seen.barrier()
        assert session.save_outcome is SaveOutcome.SAVED
        assert seen.names[0] == "GETEX"
        assert seen.names[-1] == "EVALSHA"
        assert set(seen.names[1:-1]) == {"SET"}
        staging = next(line for line in seen.lines if "staging" in line and '"SET"' in line)
        script = next(line for line in seen.lines if '"EVALSHA"' in line)
        assert len(staging) > len(script)
        assert len(script) < 1200


async def test_with_a_lease_it_is_still_one_round_trip(manager: SessionManager, redis_server: RedisServer) -> None:
    """Lease and state come back together: two commands in one write, the payload outside of the script."""
    await stored(manager)
    async with redis_server.monitor() as seen:
        visit = reusable_session("shop.example/alice", "agent-1", manager=manager, exclusive=True)
        await visit.__aenter__()
        await seen.barrier()
        assert seen.names == ["EVALSHA", "GETEX"]
    await visit.__aexit__(None, None, None)


async def test_the_stored_keys_are_the_documented_ones(manager: SessionManager, redis_server: RedisServer) -> None:
    """Names, types and times to live stand as documented, and nothing is left without an end."""
    await stored(manager)
    with redis_server.client() as client:
        keys = {key.decode(): client.pttl(key) for key in client.scan_iter()}
        assert set(keys) - {name for name in keys if ":deadlines:" in name or ":once:" in name} == {
            KEY,
            "browser:affinity:agent-1",
            "browser:agents:{browser:session:shop.example/alice}",
        }
        assert all(ttl > 86_000_000 for name, ttl in keys.items() if ":deadlines:" not in name and ":once:" not in name)
        assert client.get("browser:affinity:agent-1") == b"shop.example/alice"
        assert client.getrange(KEY, 0, 3) == b"SRS1"


async def test_a_restore_starts_the_time_to_live_anew(redis_server: RedisServer) -> None:
    """Sliding by default. Without, only a save counts as use."""
    for sliding, expected in ((True, 86_000), (False, 0)):
        async with SessionManager(redis_server.url, registry=CollectorRegistry(), sliding=sliding) as manager:
            await stored(manager)
            with redis_server.client() as client:
                client.expire(KEY, 1000)
                visit = reusable_session("shop.example/alice", manager=manager)
                await visit.__aenter__()
                assert client.ttl(KEY) > expected
                assert (client.ttl(KEY) > 1000) is sliding
                await visit.__aexit__(None, None, None)
                assert client.ttl(KEY) > 86_000

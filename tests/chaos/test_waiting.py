"""Changes that wait for the store, and what becomes of them when it is back."""

from __future__ import annotations

from session_reuse import BrowserSession, Outcome, SaveOutcome, SessionManager, reusable_session
from tests.harness.polling import until
from tests.harness.probes import parts_of
from tests.harness.servers import RedisServer

NAME = "shop.example/alice"


async def test_a_late_save_undoes_no_newer_one_of_another_process(own_redis: RedisServer) -> None:
    """A change that waited is older than what another process saved meanwhile: where both changed, the newer one stays."""
    async with SessionManager(own_redis.url, registry=None) as ours:
        await ours.save(BrowserSession(NAME, data={"x": 1}))
        async with reusable_session(NAME, manager=ours) as session:
            session.data.update(x=2, mine=2)
            own_redis.kill()
        assert session.save_outcome is SaveOutcome.PENDING
        own_redis.start()
        runtime = await parts_of(ours)
        runtime.guarded.at().write.open_now(60.0)  # ours comes last
        async with SessionManager(own_redis.url, registry=None) as theirs:
            async with reusable_session(NAME, manager=theirs) as session:
                session.data["x"] = 3
            assert session.save_outcome is SaveOutcome.SAVED
            runtime.guarded.at().write.probe_now()
            runtime.writer.wake()
            await until(lambda: not ours.stats().pending)
            found = await theirs.restore(NAME)
        assert found is not None
        assert found.outcome is Outcome.REUSED
        assert found.data == {"x": 3, "mine": 2}


async def test_one_save_that_cannot_pass_does_not_hold_up_the_others(own_redis: RedisServer) -> None:
    """A waiting save that no store will take is given up, and those behind it are written."""
    async with SessionManager(own_redis.url, registry=None, max_state_bytes=400) as manager:
        await manager.save(BrowserSession("shop.example/poison", data={"x": "a" * 150}))
        async with reusable_session("shop.example/poison", manager=manager) as one:
            async with reusable_session("shop.example/sound", manager=manager) as other:
                async with SessionManager(own_redis.url, registry=None) as theirs:
                    third = await theirs.restore("shop.example/poison")
                    assert third is not None
                    third.data["y"] = "b" * 100
                    await theirs.save(third)
                own_redis.kill()
                other.data["n"] = 1
            one.data["z"] = "c" * 100  # with y it is too large
        assert manager.stats().pending == 2
        own_redis.start()
        await until(lambda: not manager.stats().pending)
        assert await one.settled() is SaveOutcome.SKIPPED
        assert await other.settled() is SaveOutcome.SAVED
        found = await manager.restore("shop.example/sound")
        assert found is not None
        assert found.data == {"n": 1}

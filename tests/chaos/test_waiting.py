"""Two saves of one session that wait for the store together: whose changes survive."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from session_reuse import BrowserSession, Outcome, SaveOutcome, SessionManager, reusable_session
from session_reuse.config import Config
from session_reuse.lifecycle.commit import next_header
from session_reuse.lifecycle.conflict import merged
from session_reuse.lifecycle.request import Layer, SaveRequest, bounded
from session_reuse.lifecycle.spooled_save import packed, unpacked
from session_reuse.lifecycle.waiting import joined
from session_reuse.state.baseline import Baseline, Expectation
from session_reuse.state.header import Header
from tests.support.polling import until
from tests.support.servers import RedisServer

NAME = "shop.example/alice"


def document_with(**data: Any) -> bytes:
    """Return a document."""
    return orjson.dumps({"fingerprint": NAME, "storage_state": {"cookies": [], "origins": []}, "data": data})


def request(version: int | None, view: dict[str, Any], epoch: int = 0, **data: Any) -> SaveRequest:
    """Return a save of a session that saw this version and view; None for one that never saw the store."""
    header = None
    if version is not None:
        header = Header(save_ids=("abcdef012345",), version=version, epoch=epoch, created_at=1, saved_at=version)
    baseline = Baseline(
        expectation=Expectation.UNKNOWN if header is None else Expectation.REVISION,
        entered=monotonic(), header=header, epoch=epoch, view=document_with(**view) if view else b"",
    )  # fmt: skip
    return SaveRequest(
        fingerprint=NAME, agent_id=None, document=document_with(**data), dialect="o", baseline=baseline,
        save_id="0123456789ab", saved_at=1000.0,
    )  # fmt: skip


def data_of(save: SaveRequest) -> dict[str, Any]:
    """Return the notes in a save."""
    found: dict[str, Any] = orjson.loads(save.document)["data"]
    return found


@pytest.mark.parametrize("order", [1, -1], ids=["seen first", "unseen first"])
def test_degraded_session_wipes_out_a_good_one_that_waits(order: int) -> None:
    """Whoever never saw the store gives way to whoever did, in either order."""
    seen, unseen = request(3, {"login": 1}, login=1, work=2), request(None, {}, other=1)
    assert joined(*[seen, unseen][::order]) is seen


@pytest.mark.parametrize("order", [1, -1], ids=["older first", "newer first"])
def test_older_view_undoes_what_a_newer_one_knows(order: int) -> None:
    """Both sets of changes survive, and what only the older view lacks is not taken for deleted or changed back."""
    older = request(3, {"x": 1, "y": 1}, x=1, y=1, mine=1)
    newer = request(4, {"x": 2, "y": 1, "z": 1}, x=2, y=5, z=1)
    both = joined(*[older, newer][::order])
    assert data_of(both) == {"x": 2, "y": 5, "z": 1, "mine": 1}
    assert both.baseline is newer.baseline


def test_old_change_takes_the_age_of_the_save_that_carries_it_on() -> None:
    """A change made before another process's save stays older than it, although a later save carries it along."""
    first = replace(request(3, {"x": 1}, x=2), saved_at=1000.0)
    second = replace(request(3, {"x": 1}, x=2, mine=1), saved_at=3000.0, layers=first.stack)
    theirs = Header(save_ids=("cba987654321",), version=4, created_at=1, saved_at=2_000_000)
    now_known = replace(second.baseline, header=theirs)
    after = merged(second, now_known, {"storage_state": {}, "data": {"x": 9}})
    assert data_of(after) == {"x": 9, "mine": 1}


def test_branch_of_an_old_save_takes_back_what_was_changed_since() -> None:
    """An agent that began from a save that waited does not undo what another has made of the same item meanwhile."""
    first = replace(request(3, {"x": 27}, x=28), saved_at=1000.0)
    second = replace(request(3, {"x": 27}, x=29), saved_at=3000.0, layers=first.stack)
    branch = replace(request(3, {"x": 27}, x=28, mine=1), saved_at=4000.0, layers=first.stack)
    both = joined(second, branch)
    assert data_of(both) == {"x": 29, "mine": 1}
    stored = replace(both.baseline, header=Header(save_ids=("cba987654321",), created_at=1, saved_at=3_500_000))
    assert data_of(merged(both, stored, {"storage_state": {}, "data": {"x": 29}})) == {"x": 29, "mine": 1}


@pytest.mark.parametrize("order", [1, -1], ids=["older first", "newer first"])
def test_old_save_brought_up_to_a_newer_version_takes_back_what_is_in_it(order: int) -> None:
    """What the newer version has made of an item is later than the old save, and stays."""
    old = replace(request(3, {"x": 27}, x=28, mine=1), saved_at=1000.0)
    header = Header(save_ids=("abcdef012345",), version=4, created_at=1, saved_at=2_000_000)
    new = request(4, {"x": 29}, x=29, z=1)
    new = replace(new, saved_at=3000.0, baseline=replace(new.baseline, header=header))
    both = joined(*[old, new][::order])
    assert data_of(both) == {"x": 29, "mine": 1, "z": 1}
    assert both.saved_at == 3000.0
    later = replace(both.baseline, header=replace(header, version=5, saved_at=2_500_000))
    assert data_of(merged(both, later, {"storage_state": {}, "data": {"x": 29}})) == {"x": 29, "mine": 1, "z": 1}


def test_late_save_makes_a_newer_state_look_old() -> None:
    """A save that waited and is merged in leaves the state as new as it was, so that no other late save wins over it."""
    theirs = Header(save_ids=("cba987654321",), version=4, created_at=1, saved_at=2_000_000)
    late = replace(request(3, {"x": 1}, mine=1), saved_at=1000.0)
    through = merged(late, replace(late.baseline, header=theirs), {"storage_state": {}, "data": {"x": 9}})
    services = SimpleNamespace(wall_clock=lambda: 5000.0, config=Config(registry=None))
    assert next_header(services, through).saved_at == 2_000_000


def test_long_outage_piles_up_layers() -> None:
    """Layers are bounded, and the oldest keep their age."""
    layers = tuple(Layer(b"{}", "o", float(at)) for at in range(10))
    assert [layer.saved_at for layer in bounded(layers)] == [0.0, 8.0, 9.0]


def test_state_from_before_an_invalidation_joins_one_from_after() -> None:
    """A save from before an invalidation is dropped, not merged into the new login."""
    before, after = request(9, {}, epoch=1, old=1), request(1, {}, epoch=2, new=1)
    assert joined(before, after) is after
    assert joined(after, before) is after


def test_spooled_save_loses_a_field() -> None:
    """What is read from the disk is what was written, its ground included."""
    before = request(3, {"x": 1}, epoch=7, x=2)
    after = unpacked(packed(before))
    assert (after.document, after.save_id, after.saved_at) == (before.document, before.save_id, before.saved_at)
    assert (after.baseline.header, after.baseline.view) == (before.baseline.header, before.baseline.view)
    assert abs(after.baseline.entered - before.baseline.entered) < 0.5


async def test_late_save_undoes_a_newer_one_of_another_process(own_redis: RedisServer) -> None:
    """A save that waited is older than what another process saved meanwhile: where both changed, the newer one stays."""
    async with SessionManager(own_redis.url, registry=None) as ours:
        await ours.save(BrowserSession(NAME, data={"x": 1}))
        async with reusable_session(NAME, manager=ours) as session:
            session.data.update(x=2, mine=2)
            own_redis.kill()
        assert session.save_outcome is SaveOutcome.PENDING
        own_redis.start()
        ours._services.guard.at().write.open_now(60.0)  # ours comes last
        async with SessionManager(own_redis.url, registry=None) as theirs:
            async with reusable_session(NAME, manager=theirs) as session:
                session.data["x"] = 3
            ours._services.guard.at().write.probe_now()
            ours._services.on_pending()
            await until(lambda: not ours.stats().pending)
            found = await theirs.restore(NAME)
        assert found is not None
        assert found.outcome is Outcome.REUSED
        assert found.data == {"x": 3, "mine": 2}


async def test_one_save_that_cannot_pass_holds_up_all_others(own_redis: RedisServer) -> None:
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
        await until(lambda: not manager.stats().pending, timeout=8.0)
        found = await manager.restore("shop.example/sound")
        assert found is not None
        assert found.data == {"n": 1}

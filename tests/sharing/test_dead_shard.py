"""A Cluster with a shard that does not answer: its own sessions wait, those of the other shards do not notice."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from session_reuse import Outcome, SaveOutcome, SessionManager, reusable_session
from tests.harness.polling import until
from tests.harness.probes import runtime, waiting_of
from tests.harness.servers import RedisCluster, RedisServer
from tests.sharing.traces import MakeManager, save_many

pytestmark = [pytest.mark.cluster, pytest.mark.alone("healthy shards answer within 1 s")]
NAMES = [f"shop/{number}" for number in range(60)]
ROUNDS = 4


def shard_of(cluster: RedisCluster, names: list[str]) -> dict[str, RedisServer]:
    """Return the primary of each session."""
    return {name: cluster.primary_of(f"browser:session:{name}") for name in names}


async def agent(manager: SessionManager, name: str, number: int) -> tuple[Outcome, SaveOutcome | None]:
    """One agent's run."""
    async with reusable_session(name, manager=manager) as session:
        session.data["round"] = number
    return session.outcome, session.save_outcome


async def test_a_frozen_shard_stops_its_own_sessions_only(cluster: RedisCluster, make_manager: MakeManager) -> None:
    """However often the frozen shard fails, no session of another shard starts fresh or waits to be saved."""
    manager = await make_manager(cluster.url, attempt_timeout=1.0, restore_timeout=2.0, save_timeout=3.0)
    await save_many(manager, NAMES)
    shards = shard_of(cluster, NAMES)
    frozen = shards[NAMES[0]]
    lost = [name for name in NAMES if shards[name] is frozen]
    well = [name for name in NAMES if shards[name] is not frozen]
    assert lost
    assert well
    visits = {name: reusable_session(name, manager=manager) for name in NAMES}
    for visit in visits.values():
        (await visit.__aenter__()).data["before"] = True
    frozen.pause()
    await asyncio.gather(*(visit.__aexit__(None, None, None) for visit in visits.values()))
    seen: dict[str, Counter[str]] = {"lost": Counter(), "well": Counter()}
    for number in range(ROUNDS):
        results = await asyncio.gather(*(agent(manager, name, number) for name in NAMES))
        for name, (outcome, saved) in zip(NAMES, results, strict=True):
            seen["lost" if name in lost else "well"][f"{outcome}/{saved}"] += 1
    assert seen["well"] == {"reused/saved": ROUNDS * len(well)}
    assert all(kind.endswith("/pending") for kind in seen["lost"])
    guard = runtime(manager).guarded
    states = {name: guard.at(runtime(manager).guarded.server_of(name)).write.state for name in NAMES}
    assert {states[name] for name in well} == {"closed"}
    assert "closed" not in {states[name] for name in lost}
    assert manager.stats().breakers["write"] != "closed"
    frozen.resume()
    await until(lambda: not waiting_of(manager), message="what waited for the shard is saved")
    for name in lost:
        found = await manager.restore(name)
        assert found is not None
        assert found.data["before"], "what was done before the shard froze"


async def test_a_close_brings_through_what_waits_for_healthy_shards(
    cluster: RedisCluster, make_manager: MakeManager
) -> None:
    """Saves for a frozen shard do not hold up, at the close, those for a shard that is back."""
    manager = await make_manager(
        cluster.url, attempt_timeout=1.0, restore_timeout=2.0, save_timeout=2.0, close_timeout=6.0
    )
    await save_many(manager, NAMES)
    shards = shard_of(cluster, NAMES)
    nodes = list({id(node): node for node in shards.values()}.values())
    for node in nodes:
        node.pause()
    await asyncio.gather(*(agent(manager, name, 9) for name in NAMES))
    assert len(waiting_of(manager)) == len(NAMES)
    for node in nodes[1:]:
        node.resume()
    await manager.aclose()
    assert {waiting.fingerprint for waiting in waiting_of(manager)} == {
        name for name in NAMES if shards[name] is nodes[0]
    }

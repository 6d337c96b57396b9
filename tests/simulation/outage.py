"""Redis is away for ten minutes of virtual time: `python -m tests.simulation.outage [REUSE_WHILE_AWAY]`."""

from __future__ import annotations

import sys
from random import Random
from typing import Final

from session_reuse import SessionManager
from tests.chaos.outage import Outage
from tests.simulation import seams
from tests.simulation.loop import Host, SimLoop
from tests.simulation.network import Link, Network, SimClient, SimPool
from tests.simulation.redis_server import RedisServer

SECONDS: Final = (240.0, 360.0)


async def away(network: Network, reuse_while_away: float) -> None:
    """Have it away for one of two hosts."""
    link, other = Link(Host("here")), Link(Host("there"))
    network.links += (link, other)
    here, there = (
        SessionManager(SimClient(SimPool(network, each, 0.25)), registry=None, reuse_while_away=reuse_while_away)
        for each in (link, other)
    )

    async def kill() -> None:
        network.down = True
        network.cut_all()

    async def cut() -> None:
        network.hold(link)

    async def start() -> None:
        network.down = False

    async def heal() -> None:
        network.let_through(link)

    async with here, there:
        await Outage(here, there, kill, cut, start, heal, SECONDS).run()


def main() -> None:
    """Run it."""
    loop = SimLoop(lambda: 0.001)
    server = RedisServer(lambda: seams.EPOCH + loop.time())
    network = Network(loop, server, Random(0), seams.script_names())
    seams.begin(loop, 0)
    loop.run(away(network, float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0))
    seams.end()
    sys.stdout.write(f"{loop.time():.0f} s\n")


if __name__ == "__main__":
    main()

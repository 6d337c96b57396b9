"""Redis is away under twenty agents of twelve identities: once in virtual time, once for real."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from functools import partial

from session_reuse import SessionManager
from tests.chaos.outage import Outage
from tests.chaos.testbed import PATIENT
from tests.harness.fault_proxy import Fault, FaultProxy
from tests.harness.servers import HOST, RedisServer


def test_no_agent_logs_in_again_in_ten_minutes_without_redis() -> None:
    """In virtual time. All that was saved meanwhile is there afterwards, and what another host has evicted is not."""
    command = [sys.executable, "-m", "tests.simulation.outage"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "598 s\n"


async def test_no_agent_logs_in_again_while_a_real_server_is_killed() -> None:
    """The same for some seconds: a killed server, then a network that is silent for one of two hosts."""
    logging.getLogger("session_reuse").setLevel(logging.CRITICAL)
    with RedisServer(appendonly=True) as server:
        async with (
            FaultProxy((HOST, server.port)) as proxy,
            SessionManager(proxy.url, registry=None) as here,
            SessionManager(server.url, registry=None, **PATIENT) as there,
        ):
            outage = Outage(
                here,
                there,
                kill=partial(asyncio.to_thread, server.kill),
                cut=partial(proxy.switch, Fault.BLACK_HOLE),
                start=partial(asyncio.to_thread, server.start),
                heal=proxy.heal,
                seconds=(3.0, 3.0),
            )
            await outage.run()

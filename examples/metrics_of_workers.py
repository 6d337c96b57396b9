# /// script
# requires-python = ">=3.11"
# dependencies = ["session-reuse[embedded]"]
# ///
"""Add up the metrics of worker processes that come and go, and print a scrape after their end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile


async def work(number: str) -> None:
    """Enter one session. The metrics go to files of this process."""
    from session_reuse import reusable_session

    async with reusable_session("workers.example/alice", f"agent-{number}") as session:
        session.data["number"] = number


def run_workers(folder: str) -> None:
    """Run two workers, one after the other."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": folder}  # before prometheus_client is imported
    for number in ("1", "2"):
        with subprocess.Popen([sys.executable, __file__, number], env=environment) as worker:
            worker.wait()
        mark_dead(worker.pid, folder)


def mark_dead(worker: int, folder: str) -> None:
    """Remove the gauges of a worker that has ended. Its counters stay."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker, folder)


def scrape(folder: str) -> list[str]:
    """Return the samples that count something, over all workers."""
    from prometheus_client import CollectorRegistry, generate_latest, multiprocess

    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, folder)
    lines = generate_latest(registry).decode().splitlines()
    wanted = ("session_reused_total", "session_miss_total", "session_saved_total")
    return [line for line in lines if line.startswith(wanted) and not line.endswith(" 0.0")]


if len(sys.argv) > 1:
    asyncio.run(work(sys.argv[1]))
else:
    with tempfile.TemporaryDirectory() as temporary:
        run_workers(temporary)
        print("\n".join(scrape(temporary)))

"""Starts workers and talks with them. Must never leave one behind, nor end a process it did not start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """One running `tests.sharing.worker`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self, timeout: float = 60.0) -> dict[str, Any]:
        """Return the next thing it says."""
        assert self._process.stdout is not None
        async with asyncio.timeout(timeout):
            line = await self._process.stdout.readline()
        assert line, "the worker has ended without a word"
        said: dict[str, Any] = json.loads(line)
        return said

    def tell(self) -> None:
        """Let it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    def stop(self) -> None:
        """Freeze it (SIGSTOP)."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a frozen one go on (SIGCONT)."""
        self._process.send_signal(signal.SIGCONT)

    async def end(self) -> None:
        """Kill it if it runs, and reap it."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
        await self._process.communicate()


@asynccontextmanager
async def workers(count: int, task: str, **arguments: Any) -> AsyncIterator[list[Worker]]:
    """Run several workers with the same task."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running: list[Worker] = []
    try:
        for _ in range(count):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.sharing.worker", task, json.dumps(arguments), cwd=ROOT, env=environment,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**22,
            )  # fmt: skip
            running.append(Worker(process))
        yield running
    finally:
        await asyncio.gather(*(worker.end() for worker in running))

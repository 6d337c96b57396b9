"""This process's share in the private redis-server behind `embedded://`.

The server belongs to all processes of the user that hold the shared users' lock of its data folder, and is stopped by
its guardian when the last of them lets go or dies. Whoever comes first starts both, under the start lock. Being alive
is decided by the locks and by an answer over the socket, never by a process id.
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote

from session_reuse._store.embedded.lock import FileLock
from session_reuse._store.embedded.server import find_server_binary, open_folder
from session_reuse._store.embedded.start import running_server
from session_reuse.errors import LifecycleError

if TYPE_CHECKING:
    from pathlib import Path

    from session_reuse._store.embedded.server import ServerFolder

__all__ = ["EmbeddedServer", "acquire", "find_server_binary"]

_LOCK_CAP = 15.0  # the start lock is held while a server starts or stops: longer than the guardian gives it


class _Share:
    """One process's membership in one server, counted."""

    def __init__(self, folder: ServerFolder, binary: Path | str | None) -> None:
        self.folder = folder
        self.binary = binary
        self.process = os.getpid()
        self.handles = 0
        self.server_pid = 0
        self.users = FileLock(folder.users_lock)

    def keep_running(self) -> None:
        """Join if not joined yet, and start the server if none runs."""
        start = FileLock(self.folder.start_lock)
        try:
            start.take(cap=_LOCK_CAP)
            self.users.take(shared=True, cap=_LOCK_CAP)
            self.server_pid = running_server(self.folder, self.binary)
        finally:
            # Unlocked, not only closed: a process being spawned by another thread may hold a copy for a moment.
            start.drop()
            start.close()


class _Shares:
    """All shares of this process."""

    def __init__(self) -> None:
        self.watching = False
        self.forget()

    def forget(self) -> None:
        """Start anew, in a forked child: its parent's shares are not its own, and their locks are closed already."""
        self.guard = threading.RLock()
        self.by_folder: dict[Path, _Share] = {}

    def join(self, path: Path | None, binary: Path | str | None) -> _Share:
        """Count one more handle on the share in the server of `path`, whose server then runs."""
        with self.guard:
            self._watch()
            folder = open_folder(path)
            share = self.by_folder.get(folder.path) or _Share(folder, binary)
            try:
                share.keep_running()
            except BaseException:
                if not share.handles:
                    share.users.close()
                raise
            share.handles += 1
            self.by_folder[folder.path] = share
            return share

    def leave(self, share: _Share) -> None:
        """Give back one handle; with the last one this process is no user any more."""
        with self.guard:
            share.handles -= 1
            if not share.handles:
                del self.by_folder[share.folder.path]
                share.users.drop()
                share.users.close()

    def leave_all(self) -> None:
        """Leave every server, at the end of the process."""
        with self.guard:
            for share in list(self.by_folder.values()):
                share.handles = 1
                self.leave(share)

    def _watch(self) -> None:
        if not self.watching:
            self.watching = True
            atexit.register(self.leave_all)
            os.register_at_fork(after_in_child=self.forget)


_shares = _Shares()


class EmbeddedServer:
    """A running private server, for as long as this handle is not released. Made by `acquire`; any thread may use it."""

    def __init__(self, share: _Share) -> None:
        self._share = share
        self._released = False

    def __repr__(self) -> str:
        state = "released" if self._released else f"pid={self.pid}"
        return f"<EmbeddedServer {self.url} {state}>"

    @property
    def socket_path(self) -> Path:
        """Where the server listens; the same after a restart."""
        return self._share.folder.socket_path

    @property
    def url(self) -> str:
        """The `unix://` address for a Redis client."""
        return f"unix://{quote(os.fspath(self.socket_path))}"

    @property
    def data_folder(self) -> Path:
        """Where the server keeps its append-only file and its log."""
        return self._share.folder.path

    @property
    def pid(self) -> int:
        """The process id of the server when it was acquired, or last made sure of."""
        return self._share.server_pid

    def ensure_running(self) -> None:
        """Start the server again, on the same data and socket, if it is gone. To be called when connecting failed.

        In a forked child this joins the server first: a handle made by the parent counts for the parent only.

        Raises:
            LifecycleError: the handle was released.
            StoreUnavailableError: the server does not start or answer.
        """
        with _shares.guard:
            if self._released:
                raise LifecycleError("this handle of the embedded server was released: acquire a new one")
            share = self._share
            if share.process != os.getpid():
                self._share = _shares.join(share.folder.path, share.binary)
            else:
                share.keep_running()

    def release(self) -> None:
        """Let go of the server, which stops soon after its last user did. Once counts: more calls do nothing."""
        with _shares.guard:
            share = self._share
            mine = share.process == os.getpid() and share is _shares.by_folder.get(share.folder.path)
            if mine and not self._released:
                _shares.leave(share)
            self._released = True


def acquire(path: Path | None = None, *, binary: Path | str | None = None) -> EmbeddedServer:
    """Join the private server of a data folder, starting it when none runs. Blocks for tens of milliseconds.

    Args:
        path: the data folder; None for `session_reuse/redis` in the user's data folder.
        binary: the redis-server to start; see `find_server_binary`. Not looked at when a server runs.

    Raises:
        ConfigurationError: no redis-server is installed, or the folder cannot be used.
        StoreUnavailableError: the server does not start or answer; the message quotes its log.
    """
    return EmbeddedServer(_shares.join(path, binary))

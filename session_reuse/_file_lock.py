"""File locks that the kernel drops when their holder dies.

A lock belongs to the open file, not to the process: a copy of the descriptor in a forked child would keep it held after
its holder is gone. So a child closes its copies at once (closing a copy does not unlock the parent's), and every
descriptor is closed on exec unless it is handed on by name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FIRST_POLL, _LAST_POLL = 0.002, 0.02


class _OpenLocks:
    """The descriptors of this process's locks, so that a forked child can close its copies."""

    def __init__(self) -> None:
        self.guard = threading.RLock()
        self.descriptors: set[int] = set()
        # Lambdas: a child replaces the guard, and the hooks must then use the new one.
        os.register_at_fork(
            before=lambda: self.guard.acquire(),  # noqa: PLW0108 - see above
            after_in_parent=lambda: self.guard.release(),  # noqa: PLW0108 - see above
            after_in_child=self.close_copies,
        )

    def close_copies(self) -> None:
        """Close what was inherited from the parent, without unlocking it."""
        self.guard = threading.RLock()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()


_open_locks = _OpenLocks()


@contextmanager
def forks_held_off() -> Iterator[None]:
    """Make other threads' forks wait: for moments in which a child would inherit what it must not keep."""
    with _open_locks.guard:
        yield


class FileLock:
    """One open lock file, unlocked at first."""

    def __init__(self, path: Path) -> None:
        """Open `path`, made with mode 0600 when missing. A symbolic link there is refused."""
        self.path = path
        with forks_held_off():
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            _open_locks.descriptors.add(self.descriptor)

    def try_take(self, *, shared: bool = False) -> bool:
        """Take the lock if that needs no waiting, and say whether it was."""
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(self.descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def take(self, *, cap: float, shared: bool = False) -> None:
        """Take the lock within `cap` seconds.

        Raises:
            TimeoutError: another process held it all the time.
        """
        deadline = time.monotonic() + cap
        pause = _FIRST_POLL
        while not self.try_take(shared=shared):
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"held by another process for more than {cap:g} s", str(self.path))
            time.sleep(pause)
            # 12 processes that kept to 2 ms starved the starting server for up to 15 s on a busy machine (2026-11-22).
            pause = min(pause * 2, _LAST_POLL)

    def wait(self) -> None:
        """Take the lock, however long that lasts."""
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)

    def drop(self) -> None:
        """Unlock, for all copies of the descriptor, and keep the file open."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def end(self) -> None:
        """Unlock and close. A process that is being started by another thread may hold a copy for a moment."""
        self.drop()
        self.close()

    def content(self) -> str:
        """Read the few bytes that the holder wrote into the file."""
        return os.pread(self.descriptor, 32, 0).decode("ascii", "replace")

    def clear(self) -> None:
        """Empty the file."""
        os.ftruncate(self.descriptor, 0)

    def close(self) -> None:
        """Close the file. The lock ends with the last copy of the descriptor. Closing twice, or a copy, does no harm."""
        with forks_held_off():
            if self.descriptor in _open_locks.descriptors:
                _open_locks.descriptors.discard(self.descriptor)
                os.close(self.descriptor)
            self.descriptor = -1

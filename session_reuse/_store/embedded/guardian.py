"""The guardian: the parent of one private redis-server, which stops it after its last user.

It signals nothing but its own child. It runs in a session of its own, in a bare interpreter (standard library and this
package only), and never polls: one thread waits for the server to end, the other for the users' lock, which the kernel
drops even when a user is killed. The guardian lives exactly as long as its server: when either dies, the next user
starts both again.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from session_reuse._file_lock import FileLock
from session_reuse._store.embedded.server import ServerFolder, ask, server_status

if TYPE_CHECKING:
    from collections.abc import Callable

BOOT = (
    "import os, sys; os.fork() and os._exit(0); sys.path.insert(0, sys.argv[1]); "
    "from session_reuse._store.embedded.guardian import main; main(*sys.argv[2:])"
)
"""What the interpreter is started with: it forks first, so that the starter has no child to reap."""

_ORPHAN_CAP = 4.0  # less than a starter waits, so that it can quote the reason
_STOP_CAP = 8.0
_PR_SET_PDEATHSIG = 1
_SETTINGS = {
    "port": "0",  # no TCP: the socket's folder decides who may connect
    "unixsocketperm": "700",
    "daemonize": "no",
    "logfile": "",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "aof-load-truncated": "yes",
    "auto-aof-rewrite-min-size": "8mb",  # 64mb by default: a slower start than a private server needs
    "maxmemory-policy": "noeviction",
    "notify-keyspace-events": "Exge",  # the clean-up hears of expired sessions at once
    "crash-log-enabled": "no",  # a crash report would quote commands, and with them stored values
}


def main(folder: str, socket_path: str, binary: str, guardian_lock: str) -> None:
    """Run one server until it ends, or until it has no user.

    Args:
        folder: the data folder.
        socket_path: where the server listens.
        binary: the redis-server.
        guardian_lock: number of the inherited descriptor of the guardian's lock, which is held.
    """
    # What the starter blocked or ignored would stay so in the server too, and its rewrites would never be reaped.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o077)
    place = ServerFolder(Path(folder), Path(socket_path))
    try:
        server_lock = _own_server_lock(place)
        process = start_server(place, binary, server_lock)
    except OSError as error:
        sys.exit(f"no embedded server: {error}")
    for descriptor in (server_lock.descriptor, int(guardian_lock)):
        os.pwrite(descriptor, str(process.pid).encode(), 0)
    threading.Thread(target=stop_when_unused, args=(place, process), daemon=True).start()
    process.wait()


def _own_server_lock(place: ServerFolder) -> FileLock:
    """Take the server's lock. A server whose guardian was killed still holds it and is asked to end."""
    lock = FileLock(place.server_lock)
    if not lock.try_take():
        _shut_down(place, lock.content())
        lock.take(cap=_ORPHAN_CAP)
    lock.clear()
    return lock


def _shut_down(place: ServerFolder, server_pid: str) -> None:
    """Shut the server down if it has this process id: then it holds the server's lock, and is no foreign one."""
    if server_status(place.socket_path).get("process_id") == server_pid:
        ask(place.socket_path, "SHUTDOWN")


def start_server(place: ServerFolder, binary: str, server_lock: FileLock) -> subprocess.Popen[bytes]:
    """Start redis-server in the data folder, as the holder of a copy of `server_lock`."""
    _move_aside(place.socket_path)
    settings = {**_SETTINGS, "unixsocket": str(place.socket_path)}
    multi_part = place.path / "appendonlydir"
    if multi_part.exists():
        # Written by 7.0 or later. Before that the setting is unknown: an older server ends here instead of starting empty.
        settings["appenddirname"] = multi_part.name
    arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
    return subprocess.Popen(  # noqa: S603 - the binary is the user's own choice
        [binary, *arguments],
        cwd=place.path,
        env={**os.environ, "LC_ALL": "C"},  # 7.0 refuses to start when the locale of the environment is not installed
        pass_fds=[os.dup(server_lock.descriptor)],  # duplicated: with `preexec_fn` the fork hooks close the lock's own
        preexec_fn=_end_with_guardian(),  # noqa: PLW1509 - there is one thread yet
    )


def _end_with_guardian() -> Callable[[], object] | None:
    """On Linux, let the kernel terminate the server when the guardian is killed."""
    if sys.platform == "linux":
        with suppress(ImportError, OSError, AttributeError):
            import ctypes

            prctl = ctypes.CDLL(None).prctl
            return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return None


def _move_aside(path: Path) -> None:
    """Keep a file that is no socket: redis-server would delete it."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            path.replace(path.with_suffix(".moved-aside"))


def stop_when_unused(place: ServerFolder, process: subprocess.Popen[bytes]) -> None:
    """Wait until no process uses the server, then stop it."""
    users, start = FileLock(place.users_lock), FileLock(place.start_lock)
    while True:
        users.wait()
        # Given back before the start lock is taken: a joining process holds that one and waits for this.
        users.drop()
        start.wait()
        if users.try_take():
            break
        start.drop()
    # No process can join from here on: that needs the start lock, which goes with this process.
    _shut_down(place, str(process.pid))  # at once; a signal is looked at ten times a second
    process.terminate()
    try:
        process.wait(_STOP_CAP)
    except subprocess.TimeoutExpired:
        process.kill()

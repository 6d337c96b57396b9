"""Time until the command of `session-reuse run` starts, beside a bare start of Chromium: `python -m benchmarks.run_overhead`.

The bare start is a Python program of the standard library: it starts the same Chromium, waits until its DevTools address
answers, and starts the same command. The others also read one key, set one cookie and attach to the tabs, as each program that
restores a session does at least. One has sockets of the standard library only, which is the floor. The hand-made one imports
redis-py and websockets meanwhile. Rounds are interleaved, and medians are compared.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.reporting import Goal, Results, command, table
from session_reuse.browsers._chromium_process import OWN_FLAGS
from session_reuse.browsers.chromium import find_chromium, launch_arguments
from tests.harness.servers import RedisServer

COMMAND = ("sh", "-c", "date +%s.%N; cat /proc/$PPID/task/*/schedstat")
"""Prints the time, and the processor time of each thread of the program that has started it."""
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
_READ_BY_SOCKET = """
    import json, socket
    with socket.create_connection(sys.argv[2].removeprefix("redis://").split("/")[0].split(":")) as store:
        store.sendall(b"GET browser:session:shop.example/alice\\r\\n")
        store.recv(65536)
"""
_CONNECT_BY_SOCKET = """
    with socket.create_connection(("127.0.0.1", int(port))) as plain:
        asked = "Host: 127.0.0.1\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Version: 13"
        plain.sendall(f"GET {path} HTTP/1.1\\r\\n{asked}\\r\\nSec-WebSocket-Key: {'A' * 22}==\\r\\n\\r\\n".encode())
        stream = plain.makefile("rb")
        while stream.readline() != b"\\r\\n":
            pass
        def send(method, **params):
            text = json.dumps({"id": 1, "method": method, "params": params}).encode()
            plain.sendall(bytes([0x81, 0xFE]) + len(text).to_bytes(2, "big") + bytes(4) + text)
            answer = {}
            while answer.get("id") != 1:
                size = stream.read(2)[1]
                if size > 125:
                    size = int.from_bytes(stream.read(2 if size == 126 else 8), "big")
                answer = json.loads(stream.read(size))
        SEND
"""
_MEANWHILE = """
    import json, redis.asyncio
    from websockets.sync.client import connect
    redis.Redis.from_url(sys.argv[2]).get("browser:session:shop.example/alice")
"""
_CONNECT = """
    with connect(f"ws://127.0.0.1:{port}{path}", compression=None, max_size=None) as socket:
        def send(method, **params):
            socket.send(json.dumps({"id": 1, "method": method, "params": params}))
            while (answer := json.loads(socket.recv())).get("id") != 1:
                pass
            return answer["result"]
        SEND
"""
_SEND = """
        cookie = {"name": "sid", "value": "1", "domain": "shop.example", "path": "/"}
        send("Storage.setCookies", cookies=[cookie])
        send("Target.setAutoAttach", autoAttach=True, flatten=True, waitForDebuggerOnStart=True)
"""
_LOGIN = {
    "cookies": [
        {"name": "sid", "value": "1", "domain": "shop.example", "path": "/", "expires": -1, "httpOnly": True, "secure": True, "sameSite": "Lax"}
    ],
    "origins": [{"origin": "https://shop.example", "localStorage": [{"name": "token", "value": "1"}]}],
}  # fmt: skip


def _program(meanwhile: str, connect: str) -> str:
    connect = connect.replace("        SEND\n", _SEND)
    return _BARE.replace("    # MEANWHILE\n", meanwhile).replace("    # CONNECT\n", connect)


def until_command(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return the seconds from the start of a program until its command runs, and its own processor time until then."""
    begun = time.time()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    now, *threads = done.stdout.split("\n")
    return float(now) - begun, sum(int(thread.split()[0]) for thread in threads if thread) / 1e9


def measure(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return what each program took in each round."""
    program = str(Path(sys.executable).with_name("session-reuse"))
    floor, hand_made = _program(_READ_BY_SOCKET, _CONNECT_BY_SOCKET), _program(_MEANWHILE, _CONNECT)
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
            "floor": [sys.executable, "-c", floor, chromium, server.url, *COMMAND],
            "hand-made": [sys.executable, "-c", hand_made, chromium, server.url, *COMMAND],
            "run, nothing stored": [program, "run", "shop.example/new", "--save", "never", "--", *COMMAND],
            "run, a login stored": [program, "run", _FINGERPRINT, "--", *COMMAND],
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
        for _ in range(rounds + 1):
            for name, words in contestants.items():
                taken[name].append(until_command(words, environment))
    return {name: each[1:] for name, each in taken.items()}  # the first warms the disk's cache


def start(*, quick: bool = False, rounds: int = 15) -> Results:
    """Time until the command runs, beside a bare start of Chromium."""
    found = measure(2 if quick else rounds)
    bare = [seconds for seconds, _ in found["bare"]]
    ratios, rows = {}, []
    for name, taken in found.items():
        ratios[name] = statistics.median(seconds / beside for (seconds, _), beside in zip(taken, bare, strict=True))
        median, processor = (statistics.median(column) for column in zip(*taken, strict=True))
        rows.append((name, f"{median:.3f}", f"{ratios[name]:.2f}", f"{processor:.3f}"))
    table("until the command starts", ("", "seconds", "/ bare", "CPU of the program"), rows)
    peer = f"floor {ratios['floor']:.2f}, hand-made {ratios['hand-made']:.2f}"
    return found, [
        Goal(f"{name}: until the command starts / bare Chromium", 1.15, ratios[name], peer=peer)
        for name in found
        if name.startswith("run")
    ]


if __name__ == "__main__":
    raise SystemExit(command(__doc__, start))

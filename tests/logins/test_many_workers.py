"""Many processes on few identities, half of them killed: never two on one, and each is served."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.harness.servers import RedisServer
from tests.logins.pool_kill import is_good

WORKERS, MEMBERS = 24, 8


def test_half_of_the_workers_are_killed_and_each_is_served(redis_server: RedisServer) -> None:
    """Within the bound of the documentation. No identity has two holders, and what the living saved is there."""
    words = ["--workers", str(WORKERS), "--identities", str(MEMBERS), "--url", redis_server.url]
    command = [sys.executable, "-m", "tests.logins.pool_kill", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    numbers = json.loads(done.stdout)
    assert is_good(numbers), numbers
    assert numbers["killed"] == WORKERS // 2
    assert done.returncode == 0

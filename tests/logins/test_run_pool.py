"""`session-reuse run --pool`: a command gets a free member of a pool."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from session_reuse import SessionManager
from tests.agents.runs import finished, report_of
from tests.harness.servers import RedisServer
from tests.logins.pool_kill import POOL

pytestmark = pytest.mark.browser


def started(*words: str, url: str) -> subprocess.Popen[str]:
    """Start a run."""
    command = [sys.executable, "-m", "session_reuse.cli", "run", "--url", url, *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_command_gets_a_free_member(redis_server: RedisServer) -> None:
    """Two runs at once get two members. A third one ends with 1, or waits until a member is free."""

    async def add() -> None:
        async with SessionManager(redis_server.url, registry=None) as manager:
            await manager.pool(POOL).add("alice", "bob")

    asyncio.run(add())
    stay = ("--pool", POOL, "--", "sh", "-c", "echo here; cat")
    with started(*stay, url=redis_server.url) as first, started(*stay, url=redis_server.url) as second:
        for each in (first, second):
            assert each.stdout is not None
            assert each.stdout.readline() == "here\n"
        with started("--pool", POOL, "--", "true", url=redis_server.url) as third:
            report = report_of(finished(third)[1])
        assert (third.returncode, report["error"], report["pool"]) == (1, "SessionBusyError", POOL)
        with started("--pool", POOL, "--wait", "60", "--", "true", url=redis_server.url) as fourth:
            found = [report_of(finished(each)[1]) for each in (first, second, fourth)]
    names = [each["fingerprint"] for each in found]
    assert sorted(names[:2]) == [f"{POOL}/alice", f"{POOL}/bob"]
    assert names[2] in names[:2]
    assert [each["exit_code"] for each in found] == [0, 0, 0], json.dumps(found)


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["alice"], "give a command to run"),
        (["--pool", POOL], "give a command to run"),
        (["--pool", POOL, "--"], "give a command to run"),
        ([], "give a FINGERPRINT, or a --pool"),
        (["alice", "--check-url", "http://shop.example/", "--check-text", "", "--", "true"], "every page has it"),
        (["alice", "--check-url", "shop.example/me", "--", "true"], "must begin with http"),
    ],
)
def test_a_run_without_its_parts_is_refused(words: list[str], missing: str, redis_server: RedisServer) -> None:
    """The message says what is missing."""
    with started(*words, url=redis_server.url) as process:
        err = finished(process)[1]
    assert process.returncode == 2
    assert missing in err

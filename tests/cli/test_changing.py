"""`evict`, `export`, `import`, `rotate`, `cleanup`: what changes a store must do what it says and no more."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from session_reuse import Liveness, SessionManager, SessionSummary, reusable_session
from session_reuse.cli.commands import rotate
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.testing import state_with_cookie
from tests.cli.conftest import ALICE, CANARIES, STATE, CommandLine, store
from tests.harness.polling import wait_until
from tests.harness.probes import parts_of
from tests.harness.servers import RedisServer

OLD, NEW = b"o" * 32, b"n" * 32
OLD_TEXT, NEW_TEXT = base64.b64encode(OLD).decode(), base64.b64encode(NEW).decode()
KEY = f"browser:session:{ALICE}"


def test_evicted_session_is_gone_for_everyone(cli: CommandLine, alice: str, redis_server: RedisServer) -> None:
    """Eviction deletes, and says whether there was something."""
    answer = cli("evict", alice, "nobody", "--json")
    assert answer.lines == [{"fingerprint": alice, "evicted": True}, {"fingerprint": "nobody", "evicted": False}]
    assert answer.code == 1
    with redis_server.client() as client:
        assert not client.exists(KEY)
    assert cli("evict", alice).code == 1


def test_rm_is_another_name_of_evict(cli: CommandLine, alice: str) -> None:
    """People who manage files and keys type `rm` first."""
    assert cli("rm", alice, "--json").lines == [{"fingerprint": alice, "evicted": True}]
    assert "alias: rm" in cli("--help").out
    assert "Delete sessions for everyone" in cli("rm", "--help").out


def test_evicted_session_is_not_brought_back_by_a_holder(
    redis_server: RedisServer, cli: CommandLine, alice: str
) -> None:
    """A late save of an agent that held the session changes nothing."""

    async def hold() -> None:
        async with (
            SessionManager(redis_server.url, registry=None) as manager,
            reusable_session(alice, manager=manager) as session,
        ):
            session.data["late"] = True
            assert (await asyncio.to_thread(cli, "evict", alice)).code == 0

    asyncio.run(hold())
    assert cli("show", alice).code == 1


@pytest.mark.parametrize("file_format", ["session-reuse", "playwright", "browser-use"])
def test_session_survives_a_file(cli: CommandLine, alice: str, tmp_path: Path, file_format: str) -> None:
    """What is exported in any format can be imported, and logs in as before."""
    file = tmp_path / "session"
    assert cli("export", alice, "--format", file_format, "-o", str(file)).code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert cli("evict", alice).code == 0
    assert cli("import", str(file), "--fingerprint", "shop.example/copy").code == 0
    copy = cli("show", "shop.example/copy", "--reveal", "--json").json
    assert copy["cookies"][0]["value"] == CANARIES[0]
    assert copy["origins"][0]["localStorage"][0]["value"] == CANARIES[1]


def test_playwright_reads_what_we_export(cli: CommandLine, alice: str, tmp_path: Path) -> None:
    """The file holds nothing that Playwright refuses."""
    file = tmp_path / "state.json"
    cli("export", alice, "--format", "playwright", "-o", str(file))
    state = json.loads(file.read_bytes())
    assert state == {
        "cookies": STATE["cookies"],
        "origins": [{"origin": "https://shop.example", "localStorage": [{"name": "token", "value": CANARIES[1]}]}],
    }


def test_export_never_replaces_a_file_unasked(cli: CommandLine, alice: str, tmp_path: Path) -> None:
    """An existing file is safe until --force."""
    file = tmp_path / "mine"
    file.write_text("precious")
    file.chmod(0o644)
    assert cli("export", alice, "-o", str(file)).code == 2
    assert file.read_text() == "precious"
    assert cli("export", alice, "-o", str(file), "--force").code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_export_needs_no_links_and_replaces_no_device(
    cli: CommandLine, alice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems of networks and of sticks have no hard links. `--force` put a file in the place of /dev/null."""

    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert cli("export", alice, "-o", str(tmp_path / "a")).code == 0
    assert os.listdir(tmp_path) == ["a"]
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        answer = cli("export", alice, "-o", str(tmp_path / name), "--force")
        assert (answer.code, "name a file" in answer.err) == (2, True), answer.err
    assert (tmp_path / "pipe").is_fifo()


def test_import_never_replaces_a_session_unasked(cli: CommandLine, alice: str, tmp_path: Path) -> None:
    """A stored login is safe until --force."""
    file = tmp_path / "state.json"
    file.write_text(json.dumps({"cookies": [{"name": "a", "value": "b", "domain": "shop.example"}]}))
    refused = cli("import", str(file), "--fingerprint", alice, "--json")
    assert (refused.code, refused.json["error"]) == (1, "Exists")
    assert cli("import", str(file), "--fingerprint", alice, "--force", "--json").json["outcome"] == "saved"
    assert [cookie["name"] for cookie in cli("show", alice, "--json").json["cookies"]] == ["a"]


@pytest.mark.parametrize(("trouble", "cause"), [("full", "memory or disk is full"), ("read-only", "read-only")])
def test_a_session_that_the_store_refuses_is_an_error_with_its_cause(
    own_redis: RedisServer, tmp_path: Path, trouble: str, cause: str
) -> None:
    """`import` and `copy` name what an operator has to change."""
    cli = CommandLine(own_redis.url)
    store(own_redis.url, ALICE)
    (tmp_path / "state.json").write_text(json.dumps(state_with_cookie()))
    with own_redis.client() as client:
        if trouble == "full":
            client.config_set("maxmemory", 1)
        else:
            client.replicaof("127.0.0.1", 1)
            client.config_set("replica-serve-stale-data", "yes")
    for words in (["import", str(tmp_path / "state.json"), "new"], ["copy", ALICE, "new"]):
        answer = cli(*words, "--json")
        assert answer.code == 3, answer.out
        assert cause in answer.json["message"], answer.json["message"]


@pytest.mark.parametrize("content", [b"", b"junk", b"[]", b'{"x": 1}', b'{"cookies": [1]}', b"SRS1junk"])
def test_bad_file_stores_nothing(cli: CommandLine, tmp_path: Path, content: bytes) -> None:
    """A file that is no session is refused with its own exit code."""
    file = tmp_path / "bad"
    file.write_bytes(content)
    assert cli("import", str(file), "--fingerprint", "x").code == 4
    assert cli("ls", "--json").out == ""


def test_files_and_names_that_cannot_be_used_are_usage_errors(cli: CommandLine, alice: str, tmp_path: Path) -> None:
    """Exit code 2 and one line, whatever is wrong with the arguments."""
    state = tmp_path / "state.json"
    state.write_text(json.dumps(state_with_cookie()))
    kept = tmp_path / "kept"
    assert cli("export", alice, "-o", str(kept)).code == 0
    for words in (
        ["import", str(tmp_path / "absent"), "--fingerprint", "x"],
        ["import", str(state)],
        ["import", str(state), "x", "--fingerprint", "y"],
        ["import", str(state), "x" * 600],
        ["import", str(kept), ""],
        ["copy", alice, "x" * 600],
        ["login", "http://127.0.0.1:9/", "x" * 600, "--cdp-url", "http://127.0.0.1:9"],
        ["export", alice, "-o", str(tmp_path / "no" / "folder")],
        ["export", alice],
        ["show", "x" * 600],
    ):
        assert cli(*words).code == 2, words


def test_a_file_that_cannot_be_written_is_named_as_given(cli: CommandLine, alice: str) -> None:
    """The error names the file that was asked for, not a temporary one."""
    answer = cli("export", alice, "-o", "/nope/x")
    assert answer.code == 2
    assert "/nope/x: No such file or directory" in answer.err


def test_a_file_may_have_as_long_a_name_as_the_file_system_allows(cli: CommandLine, alice: str, tmp_path: Path) -> None:
    """The temporary file has a short one."""
    path = tmp_path / ("x" * 255)
    assert cli("export", alice, "-o", str(path)).code == 0
    assert list(tmp_path.iterdir()) == [path]


def test_export_names_what_a_format_leaves_out(cli: CommandLine, alice: str, tmp_path: Path) -> None:
    """A file of another tool's format holds less than the session."""
    answer = cli("export", alice, "-o", str(tmp_path / "a"), "--format", "playwright")
    assert "left out" in answer.err
    assert "the agent's data (1)" in answer.err
    assert "sessionStorage items (1)" in answer.err
    assert "left out" not in cli("export", alice, "-o", str(tmp_path / "b")).err


RICH: Final = {
    "cookies": [
        {"name": "kept", "value": "1", "domain": "shop.example", "path": "/"},
        {"name": "chips", "value": "2", "domain": "shop.example", "path": "/", "partitionKey": "https://top.example"},
        {"name": "opaque", "value": "3", "domain": "shop.example", "path": "/", "partitionKeyOpaque": True},
    ],
    "origins": [
        {
            "origin": "https://shop.example", "localStorage": [{"name": "a", "value": "1"}],
            "indexedDB": [{"name": "plain", "version": 1, "stores": []}],
            "indexedDBRich": [{"name": "rich", "version": 1, "keys": [], "dump": "{}"}], "opfs": [{"name": "file"}],
        },
    ],
    "credentials": [{"id": "passkey"}],
}  # fmt: skip
"""A session with something of each part."""


@pytest.mark.parametrize(
    ("file_format", "cookies", "left_out"),
    [
        ("playwright", {"kept", "chips"}, {"databases": 1, "partitioned cookies": 1}),
        ("browser-use", {"kept"}, {"databases": 2, "files": 1, "credentials": 1, "partitioned cookies": 2}),
        (
            "netscape", {"kept"},
            {"localStorage items": 1, "databases": 2, "files": 1, "credentials": 1, "partitioned cookies": 2},
        ),
        ("session-reuse", {"kept", "chips", "opaque"}, {}),
    ],
)  # fmt: skip
def test_an_export_counts_each_part_that_it_leaves_out(
    cli: CommandLine, tmp_path: Path, file_format: str, cookies: set[str], left_out: dict[str, int]
) -> None:
    """Programs read it in `left_out`. A cookie of an opaque partition would be sent to other sites without it."""
    file, exported = tmp_path / "state.json", tmp_path / "exported"
    file.write_text(json.dumps(RICH))
    assert cli("import", str(file), "shop").code == 0
    assert [each["name"] for each in cli("show", "shop", "--json").json["origins"][0]["indexedDB"]] == ["plain", "rich"]
    answer = cli("export", "shop", "-o", str(exported), "--format", file_format, "--json")
    assert answer.json["left_out"] == left_out
    written = {cookie["name"] for cookie in RICH["cookies"] if cookie["name"].encode() in exported.read_bytes()}
    assert written == cookies


@pytest.mark.parametrize(
    "cookie",
    [
        {"domain": ".shop.example", "expirationDate": 4e9, "hostOnly": False, "httpOnly": True, "name": "sid",
         "path": "/", "sameSite": "no_restriction", "secure": True, "session": False, "storeId": "0", "value": "v", "id": 1},
        {"domain": ".shop.example", "expiry": 4_000_000_000, "httpOnly": True, "name": "sid", "path": "/",
         "sameSite": "None", "secure": True, "value": "v"},
    ],
    ids=["browser extension", "Selenium"],
)  # fmt: skip
def test_an_array_of_cookies_can_be_imported(cli: CommandLine, tmp_path: Path, cookie: dict[str, object]) -> None:
    """What browser extensions and Selenium write is a login, too."""
    (tmp_path / "cookies.json").write_text(json.dumps([cookie]))
    assert cli("import", str(tmp_path / "cookies.json"), "--fingerprint", ALICE, "--json").json["cookies"] == 1
    (stored,) = cli("show", ALICE, "--json", "--reveal").json["cookies"]
    expected = {
        "name": "sid",
        "value": "v",
        "domain": ".shop.example",
        "expires": 4e9,
        "httpOnly": True,
        "secure": True,
    }
    assert stored | expected | {"sameSite": "None"} == stored


def test_sealed_export_needs_its_key(cli: CommandLine, redis_server: RedisServer, tmp_path: Path) -> None:
    """An exported session of an encrypted store is no use without the key."""
    store(redis_server.url, ALICE, encryption_keys=(OLD,))
    file = tmp_path / "sealed"
    assert cli("export", ALICE, "-o", str(file), SESSION_REUSE_ENCRYPTION_KEYS=OLD_TEXT).code == 0
    assert not any(canary.encode() in file.read_bytes() for canary in CANARIES)
    assert cli("import", str(file), "--fingerprint", "y").code == 4
    assert cli("import", str(file), "--fingerprint", "y", SESSION_REUSE_ENCRYPTION_KEYS=OLD_TEXT).code == 0


@pytest.mark.parametrize("command", ["import", "copy"])
def test_a_session_of_another_key_is_left_alone_and_named(
    cli: CommandLine, redis_server: RedisServer, tmp_path: Path, command: str
) -> None:
    """Nobody can tell what it holds: not even `--force` replaces it."""
    store(redis_server.url, ALICE, encryption_keys=(OLD,))
    store(redis_server.url, "shop.example/bob")
    (tmp_path / "state.json").write_text(json.dumps(state_with_cookie()))
    words = ["import", str(tmp_path / "state.json")] if command == "import" else ["copy", "shop.example/bob"]
    refused = cli(*words, ALICE, "--force")
    assert refused.code == 4
    assert ALICE in refused.err
    assert "evict" in refused.err
    assert cli("show", ALICE, SESSION_REUSE_ENCRYPTION_KEYS=OLD_TEXT).code == 0


def test_rotation_seals_all_with_the_first_key(cli: CommandLine, redis_server: RedisServer) -> None:
    """After a rotation the old key can be dropped, and no time to live has changed."""
    store(redis_server.url, ALICE, "b", encryption_keys=(OLD,))
    with redis_server.client() as client:
        client.pexpire(KEY, 50_000)
    both = {"SESSION_REUSE_ENCRYPTION_KEYS": f"{NEW_TEXT},{OLD_TEXT}"}
    assert cli("rotate", "--dry-run", "--json", **both).json["rotated"] == 2
    assert cli("show", ALICE, SESSION_REUSE_ENCRYPTION_KEYS=NEW_TEXT).code == 4
    assert cli("rotate", "--json", **both).json | {"rotated": 2, "current": 0, "unreadable": 0} == {
        "current": 0, "rotated": 2, "gone": 0, "contended": 0, "unreadable": 0, "dry_run": False,
    }  # fmt: skip
    shown = cli("show", ALICE, "--reveal", "--json", SESSION_REUSE_ENCRYPTION_KEYS=NEW_TEXT).json
    assert shown["cookies"][0]["value"] == CANARIES[0]
    assert 0 < shown["ttl"] <= 50
    assert cli("rotate", "--json", **both).json["current"] == 2


def test_an_agent_finds_its_last_session_after_a_rotation(cli: CommandLine, redis_server: RedisServer) -> None:
    """Its affinity is sealed with the new key as well, and keeps its time to live. What others have written stays."""
    store(redis_server.url, ALICE, encryption_keys=(OLD,))
    with redis_server.client() as client:
        client.pexpire("browser:affinity:agent-1", 50_000)
        client.set("browser:affinity:forged", ALICE)
        client.rpush("browser:affinity:junk", "x")
        assert cli("rotate", SESSION_REUSE_ENCRYPTION_KEYS=f"{NEW_TEXT},{OLD_TEXT}").code == 0
        assert 0 < client.ttl("browser:affinity:agent-1") <= 50
        assert client.get("browser:affinity:forged") == ALICE.encode()

    async def last() -> tuple[str | None, ...]:
        async with SessionManager(redis_server.url, registry=None, encryption_keys=(NEW,)) as manager:
            return await manager.affinity("agent-1"), await manager.affinity("forged")

    assert asyncio.run(last()) == (ALICE, None)


def test_rotation_is_no_save_of_an_agent(cli: CommandLine, redis_server: RedisServer) -> None:
    """A login that a probe has found dead stays dead, and as old as its last save."""

    async def summary(verdict: str = "") -> SessionSummary:
        async with SessionManager(redis_server.url, registry=None) as manager:
            (found,) = [each async for each in manager.sessions()]
            if verdict:
                runtime, created_at = await parts_of(manager), round((found.created_at or 0) * 1000)
                await runtime.store.note_liveness(ALICE, verdict, created_at, 60.0, timeout=2.0)
            return found

    store(redis_server.url, ALICE, encryption_keys=(OLD,))
    saved_at = asyncio.run(summary("dead")).saved_at
    assert cli("rotate", "--json", SESSION_REUSE_ENCRYPTION_KEYS=f"{NEW_TEXT},{OLD_TEXT}").json["rotated"] == 1
    after = asyncio.run(summary())
    assert (after.liveness, after.saved_at, after.version) == (Liveness.DEAD, saved_at, 2)


def test_rotation_never_overwrites_a_concurrent_save(
    cli: CommandLine, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that saves between rotation's read and its write keeps its update."""
    store(redis_server.url, ALICE, encryption_keys=(OLD,))
    commit, saves = rotate._commit, []

    async def commit_too_late(services: object, stored: object) -> bool:
        if not saves:
            saves.append(True)
            async with (
                SessionManager(redis_server.url, registry=None, encryption_keys=(OLD,)) as manager,
                reusable_session(ALICE, manager=manager) as session,
            ):
                session.data["meanwhile"] = "kept"
        return await commit(services, stored)

    monkeypatch.setattr(rotate, "_commit", commit_too_late)
    assert cli("rotate", SESSION_REUSE_ENCRYPTION_KEYS=f"{NEW_TEXT},{OLD_TEXT}").code == 0
    shown = cli("show", ALICE, "--json", SESSION_REUSE_ENCRYPTION_KEYS=NEW_TEXT).json
    assert "meanwhile" in [item["name"] for item in shown["data"]]


def test_rotation_leaves_what_it_cannot_read(cli: CommandLine, redis_server: RedisServer) -> None:
    """Damaged, plain and foreign sessions stay as they are, and are reported. Plain ones move only when asked."""
    store(redis_server.url, ALICE)
    with redis_server.client() as client:
        before = client.get(KEY)
        answer = cli("rotate", "--json", SESSION_REUSE_ENCRYPTION_KEYS=NEW_TEXT)
        assert (answer.code, answer.json["unreadable"]) == (4, 1)
        assert client.get(KEY) == before
    assert "1 session stored in plain" in cli("rotate", SESSION_REUSE_ENCRYPTION_KEYS=NEW_TEXT).err
    assert "--from-plain" in cli("rotate", SESSION_REUSE_ENCRYPTION_KEYS=NEW_TEXT).err
    assert cli("rotate", "--from-plain", SESSION_REUSE_ENCRYPTION_KEYS=NEW_TEXT).code == 0
    assert cli("show", ALICE, SESSION_REUSE_ENCRYPTION_KEYS=NEW_TEXT).code == 0
    assert cli("rotate").code == 2


def test_cleanup_removes_what_an_expired_session_leaves(cli: CommandLine, redis_server: RedisServer) -> None:
    """After one pass, no affinity points to a session that has ended."""
    store(redis_server.url, ALICE, ttl=0.05)
    with redis_server.client() as client:
        client.set("browser:affinity:agent-1", ALICE)
        wait_until(lambda: not client.exists(KEY))
        assert cli("cleanup", "--once", "--json").json["expired"] == 1
        assert not client.exists("browser:affinity:agent-1")
    assert "0 expired sessions" in cli("cleanup", "--once").out


@pytest.mark.parametrize("trouble", ["dead", "without rights"])
def test_the_cleanup_job_says_at_once_why_it_does_nothing(own_redis: RedisServer, trouble: str) -> None:
    """A service whose store is away, or whose user lacks a right, says so: where, why, and what to do."""
    url = own_redis.url.replace("redis://", "redis://weak:pw@")
    with own_redis.client() as client:
        client.acl_setuser("weak", enabled=True, passwords=["+pw"], keys=["*"], categories=["-@all", "+@connection"])
    if trouble == "dead":
        own_redis.kill()
    command = [sys.executable, "-m", "session_reuse.cli", "cleanup", "--url", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        try:
            assert job.stderr is not None
            assert "cleaning up" in job.stderr.readline()
            lines = [job.stderr.readline()]
            if "notifications_off" in lines[0]:  # either may be noticed first
                lines.append(job.stderr.readline())
            line = lines[-1]
            assert "Expired sessions are not cleaned up" in line
            assert "session-reuse doctor" in line
            assert f"127.0.0.1:{own_redis.port}" in line
            assert "pw@" not in line
            job.send_signal(signal.SIGTERM)
            assert len(job.stderr.read().splitlines()) <= 3
            assert job.wait(60) == 0
        finally:
            job.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_cleanup_job_runs_until_it_is_told_to_end(redis_server: RedisServer, number: signal.Signals) -> None:
    """As a service it cleans up on its own, and a stop is no failure."""
    command = [sys.executable, "-m", "session_reuse.cli", "cleanup", "--json", "--url", redis_server.url]
    environment = {**os.environ, "SESSION_REUSE_CLEANUP_INTERVAL": "0.2"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as job:
        try:
            store(redis_server.url, ALICE, ttl=0.05)
            assert job.stdout is not None
            line = job.stdout.readline()
            assert line, job.communicate()[1]
            assert json.loads(line) == {"expired": ALICE}
            job.send_signal(number)
            assert job.wait(60) == 0
        finally:
            job.kill()


@pytest.mark.parametrize("command", [["cleanup"], ["top"], ["keep", "--url", "http://{site}", "--expect-text", "a"]])
def test_one_pass_that_was_cut_off_is_not_done(command: list[str]) -> None:
    """A schedule that stops it, as by SIGTERM after a minute, must not take the pass for done."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        store_option = "--store" if command[0] == "keep" else "--url"
        line = [sys.executable, "-m", "session_reuse.cli", *command, "--once", store_option, place]
        with subprocess.Popen(line, stderr=subprocess.PIPE) as one_pass:
            try:
                connection, _ = silent.accept()
                with connection:
                    one_pass.send_signal(signal.SIGTERM)
                    assert one_pass.wait(60) == ExitCode.INTERRUPTED
            finally:
                one_pass.kill()

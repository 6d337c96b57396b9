"""`ls`, `show`, `stats`, `top`: what operators look at must neither leak nor change anything."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_reuse.cli.connection import Place
from tests.cli.conftest import ALICE, CANARIES, CommandLine, store
from tests.harness.servers import RedisServer


def test_listing_is_one_json_object_per_session(cli: CommandLine, redis_server: RedisServer) -> None:
    """Programs can read the listing line by line."""
    store(redis_server.url, "shop.example/a", "shop.example/b", "other.example/c")
    answer = cli("ls", "--json")
    assert answer.code == 0
    assert sorted(line["fingerprint"] for line in answer.lines) == [
        "other.example/c",
        "shop.example/a",
        "shop.example/b",
    ]
    assert {line["version"] for line in answer.lines} == {1}
    assert answer.err == ""


def test_saves_on_disk_are_not_delivered_to_another_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They wait for the store of the environment. A command that names another one leaves them alone."""
    here, there = "redis://127.0.0.1:1/0", "redis://127.0.0.1:1/1"
    monkeypatch.setenv("SESSION_REUSE_SPOOL_DIR", str(tmp_path))
    monkeypatch.setenv("SESSION_REUSE_ENCRYPTION_KEYS", base64.b64encode(b"k" * 32).decode())
    for url, place in ((None, Place(there)), (here, Place()), (here, Place(here))):
        if url is not None:
            monkeypatch.setenv("SESSION_REUSE_URL", url)
        assert place.config().spool_dir == tmp_path
    assert Place(there).config().spool_dir is None


def test_listing_obeys_pattern_and_limit(cli: CommandLine, redis_server: RedisServer) -> None:
    """An operator with a million sessions sees the few that were asked for."""
    store(redis_server.url, "shop.example/a", "shop.example/b", "other.example/c")
    assert len(cli("ls", "shop.example/*", "--json").lines) == 2
    assert len(cli("ls", "--limit", "1", "--json").lines) == 1
    assert "other.example/c" in cli("ls").out


def test_name_from_outside_does_not_command_the_terminal(cli: CommandLine, redis_server: RedisServer) -> None:
    """A fingerprint with escape sequences is shown, not obeyed."""
    store(redis_server.url, "evil\x1b[2J[bold]name")
    answer = cli("ls")
    assert "\x1b" not in answer.out
    assert "evil\\x1b[2J[bold]name" in answer.out


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_values_stay_masked_until_revealed(cli: CommandLine, alice: str, form: list[str]) -> None:
    """No cookie or storage value appears in any output without --reveal, and each of them with it."""
    for command in (["ls"], ["show", alice], ["stats"], ["top", "--once"], ["doctor"]):
        answer = cli(*command, *form)
        assert answer.code == 0
        assert not [canary for canary in CANARIES if canary in answer.out + answer.err]
    revealed = cli("show", alice, "--reveal", *form).out
    assert all(canary in revealed for canary in CANARIES)


def test_show_describes_the_whole_session(cli: CommandLine, alice: str) -> None:
    """An operator sees history, cookies and origins without opening the value."""
    shown = cli("show", alice, "--json").json
    assert shown["version"] == 1
    assert shown["encrypted"] is False
    assert shown["cookies"][0] | {"domain": "shop.example", "httpOnly": True, "value": None} == shown["cookies"][0]
    assert shown["origins"][0]["localStorage"] == [{"name": "token", "value": None, "length": len(CANARIES[1])}]
    assert "shop.example" in cli("show", alice).out


def test_looking_neither_prolongs_nor_counts(cli: CommandLine, alice: str, redis_server: RedisServer) -> None:
    """A session that is only looked at expires when it would have, and counts no use."""
    with redis_server.client() as client:
        key = f"browser:session:{alice}"
        client.pexpire(key, 50_000)
        before = client.get(key)
        for command in (["ls"], ["show", alice], ["stats"], ["top", "--once"], ["doctor"]):
            cli(*command)
        assert 0 < client.pttl(key) <= 50_000
        assert client.get(key) == before


def test_missing_session_is_told_apart_from_a_damaged_one(
    cli: CommandLine, alice: str, redis_server: RedisServer
) -> None:
    """Scripts can act on the difference: 1 for nothing there, 4 for unreadable."""
    assert cli("show", "nobody").code == 1
    assert cli("show", "nobody", "--json").json["error"] == "NotThere"
    with redis_server.client() as client:
        client.set(f"browser:session:{alice}", b"junk")
        assert cli("show", alice).code == 4
        client.delete(f"browser:session:{alice}")
        client.rpush(f"browser:session:{alice}", "x")
        assert cli("show", alice, "--json").json["exit_code"] == 4


def test_foreign_value_is_listed_and_counted(cli: CommandLine, alice: str, redis_server: RedisServer) -> None:
    """A value that is not ours does not break the view of those that are."""
    with redis_server.client() as client:
        client.set("browser:session:foreign", b"junk")
    assert "not ours" in cli("ls").out
    stats = cli("stats", "--json").json
    assert (stats["sessions"], stats["foreign"]) == (2, 1)


@pytest.fixture
def limited(redis_server: RedisServer) -> Iterator[str]:
    """The address for a user that may read the session `a` alone."""
    patterns = ("~browser:session:a", "~browser:[^s]*", "~browser:staging*")
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">pw", "+@all", *patterns)
        yield redis_server.url.replace("://", "://limited:pw@")
        client.execute_command("ACL", "DELUSER", "limited")


def test_a_session_that_may_not_be_read_hides_no_other(cli: CommandLine, limited: str) -> None:
    """It is named, and the exit code is that of a right that lacks. It ended each listing before."""
    store(cli.url, "a", "b")
    for words in (["ls"], ["status"], ["stats"], ["top", "--once"]):
        answer = cli(*words, url=limited)
        assert answer.code == (0 if words[0] == "top" else 3), answer.err
        assert words[0] == "top" or "error: b: the user lacks a right" in answer.err
        assert words[0] == "stats" or ("a " in answer.out and "refused" in answer.out)
    rows = cli("status", "--json", url=limited).lines
    assert {row["fingerprint"]: row["problem"] for row in rows[:-1]} == {"a": None, "b": "refused"}
    assert (rows[-1]["exit_code"], rows[-1]["message"].partition(":")[0]) == (3, "b")
    assert cli("stats", "--json", url=limited).lines[0]["refused"] == 1


def test_a_session_that_may_not_be_read_ends_no_rotation(cli: CommandLine, limited: str) -> None:
    """The others are sealed."""
    store(cli.url, "a", "b")
    answer = cli("rotate", "--from-plain", "--json", url=limited, SESSION_REUSE_ENCRYPTION_KEYS="k" * 43 + "=")
    assert (answer.code, answer.lines[0]["rotated"]) == (3, 1)
    assert answer.lines[1]["message"].startswith("b: ")


def test_affinities_that_may_not_be_written_hide_no_rotation(cli: CommandLine, redis_server: RedisServer) -> None:
    """The sessions are sealed, their count is printed, and the exit code is that of a right that lacks."""
    old, new = "k" * 43 + "=", "n" * 42 + "g="
    store(cli.url, "a", encryption_keys=old)
    patterns = ("~browser:[^a]*", "~browser:a[^f]*", "%R~browser:affinity:*")
    with redis_server.client() as client:
        if int(client.info("server")["redis_version"].partition(".")[0]) < 7:
            pytest.skip("Redis 6.2 has no rights to read alone")
        client.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">pw", "+@all", *patterns)
        url = redis_server.url.replace("://", "://limited:pw@")
        answer = cli("rotate", "--json", url=url, SESSION_REUSE_ENCRYPTION_KEYS=f"{new},{old}")
        client.execute_command("ACL", "DELUSER", "limited")
    assert (answer.code, answer.lines[0]["rotated"]) == (3, 1)
    assert answer.lines[1]["message"].startswith("affinities of agents: the user lacks a right")


def test_a_session_that_may_not_be_evicted_ends_no_eviction(cli: CommandLine, limited: str) -> None:
    """The next one is evicted, and the first one is named. It ended the command, without its name."""
    store(cli.url, "a", "b")
    answer = cli("evict", "b", "a", "--json", url=limited)
    assert (answer.code, answer.lines[0]) == (3, {"fingerprint": "a", "evicted": True})
    assert answer.lines[1]["message"].startswith("b: ")


def test_what_another_program_has_written_hides_nothing(cli: CommandLine, redis_server: RedisServer) -> None:
    """A pool of another type is named. Names that are none are left out, and an infinite score is a number of JSON."""
    store(redis_server.url, "a")
    with redis_server.client() as client:
        for name in ("good", "typed", ""):
            client.zadd("browser:pools", {name: 0})
        client.set("browser:pool:{browser:pool:typed}", "x")
        client.zadd("browser:pool:{browser:pool:good}", {"alice": 0, "bob": float("inf")})
        client.zadd("browser:agents:{browser:session:a}", {"agent": float("inf")})
        client.set("browser:liveness:{browser:session:a}", "² 1 live")
    answer = cli("pool", "ls", "--json")
    assert (answer.code, [row["member"] for row in answer.lines[:-1]]) == (3, ["alice", "bob"])
    assert "'typed': a key of ours holds another type" in answer.lines[-1]["message"]
    assert "Infinity" not in answer.out
    assert "'typed'" in cli("pool", "ls").err
    assert cli("status", "--json").json["used_by"] == "agent"


def test_stats_add_up(cli: CommandLine, redis_server: RedisServer) -> None:
    """Number, bytes, encrypted share and what expires soon are right."""
    store(redis_server.url, "a", "b")
    store(redis_server.url, "c", encryption_keys=(b"k" * 32,))
    store(redis_server.url, "d", ttl=60.0)
    stats = cli("stats", "--json").json
    assert (stats["sessions"], stats["encrypted"], stats["expiring_soon"]) == (4, 1, 1)
    assert stats["encrypted_share"] == 0.25
    with redis_server.client() as client:
        assert stats["bytes"] == sum(client.strlen(f"browser:session:{name}") for name in "abcd")
    assert "1 (25%)" in cli("stats").out


def test_stats_of_an_empty_store(cli: CommandLine) -> None:
    """Nothing stored is no error."""
    assert cli("stats", "--json").json["sessions"] == 0
    assert cli("stats").code == 0
    assert cli("ls").code == 0


def test_top_looks_once(cli: CommandLine, alice: str) -> None:
    """The live view can be tried in a script."""
    look = cli("top", "--once", "--json").json
    assert look["sessions"] == 1
    assert look["latest"][0]["fingerprint"] == ALICE
    assert alice in cli("top", "--once").out


def test_key_prefix_keeps_applications_apart(cli: CommandLine, alice: str) -> None:
    """One application's operator does not see another's sessions."""
    assert cli("ls", "--key-prefix", "other", "--json").out == ""
    assert cli("show", alice, "--key-prefix", "other").code == 1

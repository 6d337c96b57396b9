"""`doctor`: it tells healthy, misconfigured and dead servers apart, names the remedy, and changes nothing."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest

from session_reuse import SaveOutcome, blocking
from session_reuse._store.redis import scripts
from session_reuse.cli.doctor.facts import Facts, facts_of, needed_commands
from session_reuse.cli.doctor.finding import Status
from session_reuse.cli.doctor.server_checks import (
    clock,
    latency,
    memory,
    notifications,
    persistence,
    rights,
    topology,
    version,
)
from session_reuse.cli.doctor.wire import Wire, pairs
from session_reuse.config import Config, ConfigOptions
from session_reuse.errors import StoreTimeoutError
from tests.cli.conftest import ALICE, Answer, CommandLine, store
from tests.harness.servers import RedisCluster, RedisServer, free_port
from tests.harness.stored import KEYS

OLD, NEW = (base64.b64encode(letter * 32).decode() for letter in (b"o", b"n"))
SCRIPTS = Path(*scripts.__path__)
GOOD = {"notify-keyspace-events": "Exge", "maxmemory-policy": "noeviction", "maxmemory": "0", "appendonly": "yes"}


@pytest.fixture
def healthy(own_redis: RedisServer) -> RedisServer:
    """A server with nothing to complain about."""
    configure(own_redis, **GOOD)
    return own_redis


def configure(server: RedisServer, **settings: str) -> None:
    """Change settings of a running server."""
    with server.client() as client:
        for name, value in settings.items():
            client.config_set(name, value)


class Checks(dict[str, Any]):
    """Findings by the name of their check."""

    def __missing__(self, name: str) -> NoReturn:
        raise AssertionError(f"nothing is said of {name}: {list(self.values())}")


def checks(answer: Answer) -> Checks:
    """Return the findings. Each that is not ok names a remedy."""
    found = Checks({each["check"]: each for each in answer.json["checks"]})
    assert all(each["remedy"] for each in found.values() if each["status"] != "ok")
    return found


def diagnose(server: RedisServer, *words: str, **environment: str) -> Answer:
    """Run the doctor with a patience that does not depend on the load of this machine."""
    patient = {"SESSION_REUSE_ATTEMPT_TIMEOUT": "30", "SESSION_REUSE_RESTORE_TIMEOUT": "30"}
    return CommandLine(server.url)("doctor", "--json", *words, **patient, **environment)


def test_healthy_server_is_called_healthy(healthy: RedisServer) -> None:
    """Nothing is found where nothing is wrong."""
    answer = diagnose(healthy, SESSION_REUSE_CHROMIUM="/bin/true")
    assert {name: each["found"] for name, each in checks(answer).items() if each["status"] != "ok"} == {}
    assert (answer.code, answer.json["verdict"]) == (0, "healthy")


def lasting_keys(client: Any) -> list[bytes]:
    """Return the keys, but for the notes of given-back leases, which end after a minute."""
    return sorted(key for key in client.keys() if not key.startswith(b"browser:once:"))  # noqa: SIM118


def test_nothing_is_changed_by_the_diagnosis(healthy: RedisServer) -> None:
    """Every key and every setting is as it was."""
    store(healthy.url, ALICE)
    with healthy.client() as client:
        before = lasting_keys(client), client.config_get("*"), client.get(f"browser:session:{ALICE}")
        diagnose(healthy)
        assert (lasting_keys(client), client.config_get("*"), client.get(f"browser:session:{ALICE}")) == before


def test_dead_server_is_called_dead() -> None:
    """No server at the address: exit code 3 and what to do."""
    answer = CommandLine(f"redis://127.0.0.1:{free_port()}")("doctor", "--json")
    assert (answer.code, answer.json["verdict"]) == (3, "dead")
    assert "start the server" in checks(answer)["server"]["remedy"]


def test_a_look_at_the_sessions_that_fails_takes_no_other_finding_with_it(
    healthy: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that answered all questions is not called dead because one later answer was late."""

    async def late(*_: object) -> NoReturn:
        raise StoreTimeoutError("no answer")

    monkeypatch.setattr("session_reuse.cli.commands.doctor.stored_finding", late)
    found = checks(diagnose(healthy))
    assert (found["server"]["status"], found["notifications"]["status"]) == ("ok", "ok")
    assert (found["sessions"]["status"], "could not be checked" in found["sessions"]["found"]) == ("fail", True)


def test_wrong_password_is_a_misconfiguration() -> None:
    """A server that refuses us is told apart from one that is not there, and no password is printed."""
    with RedisServer(password="right") as server:
        answer = CommandLine(server.url.replace(":right@", ":canary-password@"))("doctor", "--json")
    assert (answer.code, answer.json["verdict"]) == (1, "misconfigured")
    assert "password" in checks(answer)["server"]["remedy"]
    assert "canary-password" not in answer.out + answer.err


def test_evicting_server_is_warned_of(healthy: RedisServer) -> None:
    """allkeys-lru on a server with a limit loses logins silently. Without a limit it never comes into play."""
    configure(healthy, **{"maxmemory-policy": "allkeys-lru"})
    assert checks(diagnose(healthy))["eviction"]["status"] == "ok"
    configure(healthy, maxmemory="500mb")
    assert "noeviction" in checks(diagnose(healthy))["eviction"]["remedy"]
    assert diagnose(healthy).code == 0
    assert diagnose(healthy, "--strict").code == 1


def test_missing_events_are_warned_of(healthy: RedisServer) -> None:
    """The setting is compared as a set: order does not matter, and A stands for the classes."""
    for setting, status in (("gxeE", "ok"), ("AE", "ok"), ("Ex", "warn"), ("", "warn"), ("Kxge", "warn")):
        configure(healthy, **{"notify-keyspace-events": setting})
        assert checks(diagnose(healthy))["notifications"]["status"] == status, setting
    assert "E" in checks(diagnose(healthy))["notifications"]["found"]


def test_sessions_of_a_lost_key_are_found(healthy: RedisServer) -> None:
    """Stored sessions that no one here can read are found before the agents start fresh."""
    store(healthy.url, ALICE, encryption_keys=(base64.b64decode(OLD),))
    answer = diagnose(healthy, SESSION_REUSE_ENCRYPTION_KEYS=NEW)
    assert (answer.code, answer.json["verdict"]) == (1, "misconfigured")
    assert "old keys" in checks(answer)["sessions"]["remedy"]
    both = checks(diagnose(healthy, SESSION_REUSE_ENCRYPTION_KEYS=f"{NEW},{OLD}"))["sessions"]
    assert (both["status"], "rotate" in both["remedy"]) == ("warn", True)
    assert checks(diagnose(healthy, SESSION_REUSE_ENCRYPTION_KEYS=OLD))["sessions"]["status"] == "ok"
    assert checks(diagnose(healthy))["sessions"]["status"] == "fail"


def test_plain_sessions_beside_keys_are_found(healthy: RedisServer) -> None:
    """Switching encryption on makes older sessions unusable, and the way out is named."""
    store(healthy.url, ALICE)
    assert "--from-plain" in checks(diagnose(healthy, SESSION_REUSE_ENCRYPTION_KEYS=NEW))["sessions"]["remedy"]


def test_damaged_session_is_found(healthy: RedisServer) -> None:
    """A flipped bit shows in the sample."""
    store(healthy.url, ALICE)
    with healthy.client() as client:
        client.setrange(f"browser:session:{ALICE}", client.strlen(f"browser:session:{ALICE}") - 1, b"\xff")
    assert checks(diagnose(healthy))["sessions"]["status"] == "fail"


@pytest.mark.parametrize(
    ("variable", "check"), [("SESSION_REUSE_ENCRYPTION_KEYS", "keys"), ("SESSION_REUSE_TTL", "settings")]
)
def test_wrong_setting_is_named(healthy: RedisServer, variable: str, check: str) -> None:
    """A variable that cannot be read is a finding with the variable's name, without its value."""
    answer = diagnose(healthy, **{variable: "canary-value"})
    assert answer.code == 1
    assert variable in checks(answer)[check]["found"]
    assert "canary-value" not in answer.out


def test_two_wrong_settings_are_both_named(healthy: RedisServer) -> None:
    """The second one ended the command without a report."""
    answer = diagnose(healthy, SESSION_REUSE_ENCRYPTION_KEYS="x", SESSION_REUSE_LANES="abc")
    assert answer.code == 1
    assert {"keys", "settings"} <= checks(answer).keys()


def test_lacking_rights_are_named(healthy: RedisServer) -> None:
    """The user is told which commands to allow, and that user needs no right to look at rights."""
    with healthy.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "poor", "on", ">x", "~browser:*", "+@all", "-rename", "-info", "-config"
        )
        client.execute_command("ACL", "SETUSER", "outside", "on", ">x", "~other:*", "+@all")
    url = healthy.url.replace("redis://", "redis://poor:x@")
    answer = CommandLine(url)("doctor", "--json")
    assert answer.code == 1
    rights = checks(answer)["rights"]
    assert ("RENAME" in rights["found"], "+rename" in rights["remedy"]) == (True, True)
    outside = CommandLine(healthy.url.replace("redis://", "redis://outside:x@"))("doctor", "--json")
    assert checks(outside)["rights"]["status"] == "fail"


def test_every_command_of_our_scripts_is_checked_for() -> None:
    """A script that needs a new command must not surprise a restricted user."""
    checked = {words[0] for commands in needed_commands(KEYS, "x").values() for words in commands}
    names = ("acquire", "commit", "renew", "release", "invalidate", "count_use", "slide", "look", "forget_affinity")
    used = {
        part.split("'", 1)[0]
        for name in names
        for part in (SCRIPTS / f"{name}.lua").read_text().split("redis.call('")[1:]
    }
    assert used <= checked


def test_an_unknown_variable_is_named_with_the_nearest(healthy: RedisServer) -> None:
    """A misspelt setting is found, and does not stand in the way."""
    answer = diagnose(healthy, SESSION_REUSE_TLL="60")
    assert (answer.code, answer.err) == (0, "")
    found = checks(answer)["variables"]
    assert (found["status"], found["remedy"]) == ("warn", "rename SESSION_REUSE_TLL to SESSION_REUSE_TTL")


def test_a_wrong_key_beside_a_spool_is_named(healthy: RedisServer, tmp_path: Path) -> None:
    """The rest is examined without keys, and so without the spool, which needs them."""
    answer = diagnose(healthy, SESSION_REUSE_ENCRYPTION_KEYS="", SESSION_REUSE_SPOOL_DIR=str(tmp_path))
    assert (answer.code, checks(answer)["keys"]["status"], checks(answer)["agent"]["status"]) == (1, "fail", "ok")
    assert "SESSION_REUSE_ENCRYPTION_KEYS" in checks(answer)["keys"]["found"]


def test_saves_that_wait_on_disk_are_counted(healthy: RedisServer, tmp_path: Path) -> None:
    """The spool's files, rights and keys are looked at, and nothing in it is changed."""
    folder = tmp_path / "spool"
    with_spool = {"SESSION_REUSE_SPOOL_DIR": str(folder), "SESSION_REUSE_ENCRYPTION_KEYS": NEW}
    assert checks(diagnose(healthy, **with_spool))["spool"]["status"] == "ok"
    assert not folder.exists()
    with_keys: ConfigOptions = {"encryption_keys": NEW, "spool_dir": folder, "close_timeout": 2.0}
    with (
        blocking.SessionManager(f"redis://127.0.0.1:{free_port()}", registry=None, **with_keys) as manager,
        blocking.reusable_session(ALICE, manager=manager) as session,
    ):
        session.data["n"] = 1
    assert session.save_outcome is SaveOutcome.SPOOLED
    kept = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    found = checks(diagnose(healthy, **with_spool))["spool"]
    assert (found["status"], f"1 save waiting in {folder}" in found["found"]) == ("ok", True)
    assert (
        "not configured here"
        in checks(diagnose(healthy, **with_spool | {"SESSION_REUSE_ENCRYPTION_KEYS": OLD}))["spool"]["found"]
    )
    folder.chmod(0o755)
    assert "chmod 700" in checks(diagnose(healthy, **with_spool))["spool"]["remedy"]
    prefixed = checks(diagnose(healthy, **with_spool, SESSION_REUSE_KEY_PREFIX="prod"))["spool"]
    assert (prefixed["status"], "1 save of another key prefix" in prefixed["found"]) == ("warn", True)
    assert f"move them to {folder}/prod.prefix" in prefixed["remedy"]
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == kept
    file = tmp_path / "file"
    file.touch()
    assert checks(diagnose(healthy, **with_spool | {"SESSION_REUSE_SPOOL_DIR": str(file)}))["spool"]["status"] == "fail"


@pytest.mark.cluster
@pytest.mark.slow
def test_cluster_is_checked_server_by_server() -> None:
    """Each primary is looked at, and the worst finding is shown. A URL of the wrong kind is named."""
    with RedisCluster() as cluster:
        url = cluster.url
        assert CommandLine(url)("doctor", "--json").json["verdict"] in {"healthy", "attention"}
        single = "redis://" + url.partition("://")[2].partition(",")[0]
        assert "redis+cluster://" in checks(CommandLine(single)("doctor", "--json"))["topology"]["remedy"]


def test_a_remedy_leads_to_the_store_that_was_checked(healthy: RedisServer) -> None:
    """As it is printed, it would otherwise change another store, or none."""
    configure(healthy, **{"notify-keyspace-events": ""})
    elsewhere = diagnose(healthy, "--url", healthy.url, "--key-prefix", "prod", SESSION_REUSE_URL="redis://127.0.0.1:1")
    remedy = checks(elsewhere)["notifications"]["remedy"]
    ours, _, by_redis = remedy.partition(", or ")
    assert ours == f"session-reuse cleanup --url {healthy.url} --key-prefix prod --configure-notifications"
    assert by_redis.startswith(f"redis-cli -h 127.0.0.1 -p {healthy.port} CONFIG SET notify-keyspace-events ")
    assert checks(diagnose(healthy))["notifications"]["remedy"].startswith("session-reuse cleanup --configure")


CONFIG = Config(url="redis://127.0.0.1:6379", wait_replicas=1)
INFO = {"used_memory": "1"}
HELLO = {"version": "7.0.15", "mode": "standalone", "role": "master"}


@pytest.mark.parametrize(
    ("check", "facts", "status"),
    [
        (version, Facts(reported={"version": "6.0.16"}), Status.FAIL),
        (version, Facts(reported={"version": "6.2.0"}), Status.OK),
        (version, Facts(), Status.OK),
        (version, Facts(reported={"redis_version": "5.0.14"}), Status.FAIL),
        (latency, Facts(latencies=[0.2] * 50), Status.FAIL),
        (latency, Facts(latencies=[0.001] * 49 + [0.1]), Status.WARN),
        (latency, Facts(latencies=[0.001] * 50), Status.OK),
        (notifications, Facts(), Status.OK),
        (rights, Facts(refused={"cleanup": ["PSUBSCRIBE"]}), Status.OK),
        (memory, Facts(reported={"used_memory": "95", "maxmemory": "100"}), Status.WARN),
        (memory, Facts(reported={"used_memory": "101", "maxmemory": "100"}), Status.FAIL),
        (persistence, Facts(reported=INFO | {"rdb_last_bgsave_status": "err", "aof_enabled": "1"}), Status.FAIL),
        (persistence, Facts(reported=INFO | {"aof_enabled": "0", "save": "3600 1"}), Status.OK),
        (persistence, Facts(reported=INFO | {"aof_enabled": "0", "save": ""}), Status.WARN),
        (clock, Facts(clock_ahead=-5.0), Status.WARN),
        (clock, Facts(clock_ahead=500.0), Status.FAIL),
        (topology, Facts(reported=HELLO | {"role": "replica"}), Status.FAIL),
        (topology, Facts(reported=HELLO | {"mode": "sentinel"}), Status.FAIL),
        (topology, Facts(reported=HELLO | {"mode": "cluster"}), Status.FAIL),
        (topology, Facts(reported=INFO | HELLO | {"connected_slaves": "0"}), Status.WARN),
        (topology, Facts(reported=INFO | HELLO | {"connected_slaves": "1"}), Status.OK),
        (topology, Facts(reported=INFO | HELLO | {"loading": "1"}), Status.FAIL),
    ],
)
def test_judgement(check: Any, facts: Facts, status: Status) -> None:
    """Each state of a server that cannot be had in a test is judged right."""
    finding = check(facts, CONFIG)
    assert finding.status is status
    assert bool(finding.remedy) is (status is not Status.OK)


async def test_numbers_are_those_of_info() -> None:
    """Dragonfly writes its setting as "8.00GiB"."""

    class Dragonfly:
        name = ""

        async def ask(self, *words: object) -> object:
            answers = {"CONFIG": [b"maxmemory", b"0.10KiB"], "TIME": [b"1", b"0"]}
            return answers.get(str(words[0]), b"used_memory:95\r\nmaxmemory:100\r\n")

        async def ask_for_pairs(self, *words: object) -> dict[str, str]:
            return pairs(await self.ask(*words))

    facts = await facts_of(cast("Wire", Dragonfly()), KEYS)
    assert (facts.number("used_memory"), facts.number("maxmemory")) == (95, 100)

"""`doctor` against servers and users that are of no use: each gets the right reason, its remedy and its exit code."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import re
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.exceptions import InvalidResponse, ResponseError

from session_reuse import SessionManager, reusable_session
from session_reuse._store.redis.diagnosis import Trouble, diagnose, diagnosis
from session_reuse._store.redis.failures import failure_from
from session_reuse.errors import StoreError
from tests.cli.conftest import CommandLine
from tests.harness.pages import PageHandler
from tests.harness.pages import serving as serving_pages
from tests.harness.polling import wait_until
from tests.harness.servers import HOST, RedisServer, SentinelGroup, free_port

MINIMAL: Final = (
    "+@connection +get +getex +set +del +exists +type +getrange +setrange +strlen +rename +pexpire +pttl +zadd +zrange "
    "+zremrangebyrank +zrem +zscore +zrangebyscore +time +eval +evalsha +scan"
)
"""The minimal ACL of the reference."""


class Unfit(NamedTuple):
    """A store that cannot be used, and what is to be said of it."""

    url: Callable[[], AbstractContextManager[str]]
    check: str
    found: str
    remedy: str
    code: int = 1


@contextmanager
def refused() -> Iterator[str]:
    """Nothing listens there."""
    yield f"redis://{HOST}:{free_port()}"


@contextmanager
def unknown_host() -> Iterator[str]:
    """The name server knows no such host."""
    yield "redis://no-such-host.invalid:6379"


@contextmanager
def no_socket() -> Iterator[str]:
    """Nothing is at the path."""
    yield "unix:///nowhere/redis.sock"


@contextmanager
def frozen() -> Iterator[str]:
    """The server accepts connections and says nothing."""
    with RedisServer() as server:
        server.pause()
        yield server.url
        server.resume()


@contextmanager
def plain_server_by_tls() -> Iterator[str]:
    """TLS on our side only."""
    with RedisServer() as server:
        yield f"rediss://{HOST}:{server.port}"


@contextmanager
def tls_server_in_plain() -> Iterator[str]:
    """TLS on the server's side only."""
    with RedisServer(tls=True) as server:
        yield f"redis://{HOST}:{server.port}"


@contextmanager
def self_signed() -> Iterator[str]:
    """No one vouches for the certificate."""
    with RedisServer(tls=True) as server:
        yield f"rediss://{HOST}:{server.port}"


@contextmanager
def no_authority_file() -> Iterator[str]:
    """The file of the authority is missing."""
    with RedisServer(tls=True) as server:
        yield f"rediss://{HOST}:{server.port}?ssl_ca_certs=/nowhere/ca.pem"


@contextmanager
def wants_a_client_certificate() -> Iterator[str]:
    """The server wants to know the client."""
    with RedisServer(tls=True) as server:
        with server.client() as client:
            client.config_set("tls-auth-clients", "yes")
        yield server.url


def certificate(folder: Path, host: str, days: int) -> Path:
    """Write a certificate for a host that ends so many days from now, and its key behind it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "session_reuse test")])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=9))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "certificate.pem"
    file.write_bytes(signed.public_bytes(pem) + private)
    return file


@contextmanager
def serving(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Have each connection to a port served by a function in a thread."""
    with socket.create_server((HOST, 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=talk_to, args=(connection,), daemon=True).start()

        def talk_to(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                talk(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]


def with_certificate(host: str, days: int) -> Callable[[], AbstractContextManager[str]]:
    """Return a server that shows a certificate for a host, which ends so many days from now."""

    @contextmanager
    def shown() -> Iterator[str]:
        with tempfile.TemporaryDirectory() as folder:
            file = certificate(Path(folder), host, days)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(file)
            with serving(lambda connection: context.wrap_socket(connection, server_side=True).close()) as port:
                yield f"rediss://{HOST}:{port}?ssl_ca_certs={file}"

    return shown


def old_redis(connection: socket.socket) -> None:
    """Answer as Redis 5 does."""
    info = b"redis_version:5.0.14\r\nredis_mode:standalone\r\nrole:master\r\n"
    with connection.makefile("rb") as words:
        while line := words.readline():
            parts = [(words.readline(), words.readline().strip())[1] for _ in range(int(line[1:]))]
            command = parts[0].upper()
            if command == b"PING":
                connection.sendall(b"+PONG\r\n")
            elif command == b"INFO":
                connection.sendall(b"$%d\r\n%s\r\n" % (len(info), info))
            else:
                connection.sendall(b"-ERR unknown command `%s`, with args beginning with: \r\n" % parts[0])


@contextmanager
def too_old() -> Iterator[str]:
    """Redis 5."""
    with serving(old_redis) as port:
        yield f"redis://{HOST}:{port}"


@contextmanager
def ssh_server() -> Iterator[str]:
    """A server of something else."""
    with serving(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")) as port:
        yield f"redis://{HOST}:{port}"


@contextmanager
def http_server() -> Iterator[str]:
    """A web server. It answers every request by an error."""
    with serving_pages(PageHandler) as port:
        yield f"redis://{HOST}:{port}"


@contextmanager
def wrong_password() -> Iterator[str]:
    """The password is another."""
    with RedisServer(password="right") as server:
        yield f"redis://:canary-password@{HOST}:{server.port}"


@contextmanager
def no_password() -> Iterator[str]:
    """The URL has no password."""
    with RedisServer(password="right") as server:
        yield f"redis://{HOST}:{server.port}"


@contextmanager
def needless_password() -> Iterator[str]:
    """The server has no password."""
    with RedisServer() as server:
        yield f"redis://:canary-password@{HOST}:{server.port}"


def user(rules: str, keys: str = "~browser:*") -> Callable[[], AbstractContextManager[str]]:
    """Return a server with a user of these rights."""

    @contextmanager
    def logged_in() -> Iterator[str]:
        with RedisServer() as server, server.client() as client:
            client.execute_command(
                "ACL", "SETUSER", "agents", "on", ">pw", keys, "resetchannels", "-@all", *rules.split()
            )
            yield f"redis://agents:pw@{HOST}:{server.port}"

    return logged_in


def configured(*args: str) -> Callable[[], AbstractContextManager[str]]:
    """Return a server with these settings."""

    @contextmanager
    def started() -> Iterator[str]:
        with RedisServer(args=args) as server:
            yield server.url

    return started


@contextmanager
def replica() -> Iterator[str]:
    """A replica of a living primary."""
    with RedisServer() as primary, RedisServer(args=("--replicaof", HOST, str(primary.port))) as server:
        yield server.url


@contextmanager
def full() -> Iterator[str]:
    """More memory is in use than allowed."""
    with RedisServer() as server, server.client() as client:
        client.config_set("maxmemory", "100kb")
        yield server.url


@contextmanager
def no_room() -> Iterator[str]:
    """All clients that the server takes are there."""
    with RedisServer() as server, server.client() as client:
        client.config_set("maxclients", 1)
        yield server.url


@contextmanager
def no_such_database() -> Iterator[str]:
    """The server has 16 databases."""
    with RedisServer() as server:
        yield f"redis://{HOST}:{server.port}/99"


@contextmanager
def no_such_database_of_a_socket() -> Iterator[str]:
    """The same over a socket."""
    with RedisServer(unix=True) as server:
        yield server.url.replace("db=0", "db=99")


@contextmanager
def cluster_url_to_one_server() -> Iterator[str]:
    """A Cluster's URL."""
    with RedisServer() as server:
        yield f"redis+cluster://{HOST}:{server.port}"


@contextmanager
def one_server_url_to_a_cluster() -> Iterator[str]:
    """A node of a Cluster."""
    with RedisServer(cluster=True) as server:
        yield server.url


@contextmanager
def cluster_without_the_right_to_its_map() -> Iterator[str]:
    """A user without CLUSTER SLOTS."""
    with RedisServer(cluster=True) as server, server.client() as client:
        client.execute_command("ACL", "SETUSER", "agents", "on", ">pw", "~browser:*", "+@all", "-cluster")
        yield f"redis+cluster://agents:pw@{HOST}:{server.port}"


@contextmanager
def wrong_password_of_the_sentinels() -> Iterator[str]:
    """The servers have another one."""
    with SentinelGroup(replicas=0, sentinels=1) as group:
        with group.sentinels[0].client() as client:
            client.execute_command("ACL", "SETUSER", "default", ">pw")
        yield f"{group.url}?sentinel_password=canary-password"


@contextmanager
def master_that_no_sentinel_knows() -> Iterator[str]:
    """Another name."""
    with SentinelGroup(replicas=0, sentinels=1) as group:
        yield group.url.replace(f"/{group.name}", "/other")


@contextmanager
def sentinel_url_to_one_server() -> Iterator[str]:
    """A Sentinel's URL."""
    with RedisServer() as server:
        yield f"redis+sentinel://{HOST}:{server.port}/mymaster"


@contextmanager
def wrong_query() -> Iterator[str]:
    """An option that does not exist."""
    with RedisServer() as server:
        yield f"redis://{HOST}:{server.port}?socket_timeot=5"


UNFIT: Final = {
    "refused": Unfit(refused, "server", "connection is refused", "start the server", 3),
    "unknown host": Unfit(unknown_host, "server", "no host of this name", "correct the host", 3),
    "no socket": Unfit(no_socket, "server", "no socket at this path", "correct the path", 3),
    "frozen": Unfit(frozen, "server", "no answer in time", "start the server again", 3),
    "TLS to a plain server": Unfit(plain_server_by_tls, "server", "does not speak TLS", "use redis:// in place"),
    "plain to a TLS server": Unfit(tls_server_in_plain, "server", "speaks TLS at this port", "use rediss:// in place"),
    "self-signed": Unfit(self_signed, "server", "not trusted: self-signed certificate", "?ssl_ca_certs="),
    "certificate of another host": Unfit(
        with_certificate("127.0.0.9", 9), "server", "IP address mismatch", "the host name that the certificate is for"
    ),
    "expired certificate": Unfit(with_certificate(HOST, -1), "server", "certificate has expired", "renew"),
    "no file of the authority": Unfit(no_authority_file, "settings", "ssl_ca_certs must be a file that exists", "correct"),
    "client certificate": Unfit(wants_a_client_certificate, "server", "asks for a client certificate", "ssl_certfile"),
    "HTTP server": Unfit(http_server, "server", "an HTTP server answers", "correct host and port"),
    "SSH server": Unfit(ssh_server, "server", "something answers that is not Redis", "correct host and port"),
    "wrong password": Unfit(wrong_password, "server", "rejects the user or the password", "correct user and password"),
    "no password": Unfit(no_password, "server", "wants a password", "add user and password"),
    "needless password": Unfit(needless_password, "server", "no password for the default user", "leave the password out"),
    "no GETEX": Unfit(user(MINIMAL.replace(" +getex", "")), "rights", "restore: GETEX", "+getex"),
    "no EVALSHA": Unfit(user(MINIMAL.replace(" +evalsha", "")), "rights", "save: EVALSHA", "+evalsha"),
    "no ZADD": Unfit(user(MINIMAL.replace(" +zadd", "")), "rights", "save: ZADD", "+zadd"),
    "other keys": Unfit(user(MINIMAL, "~other:*"), "rights", "keys browser:* are not allowed", "~browser:*"),
    "read-only user": Unfit(user("+@read +@connection"), "rights", "may only read", "+set"),
    "EVALSHA switched off": Unfit(configured("--rename-command", "EVALSHA", ""), "commands", "not know EVALSHA", "rename-command"),
    "replica": Unfit(replica, "topology", "read-only replica", "point the URL to the primary"),
    "too few replicas": Unfit(configured("--min-replicas-to-write", "1"), "writes", "too few replicas", "min-replicas-to-write"),
    "full": Unfit(full, "memory", "memory is full", "raise maxmemory"),
    "too old": Unfit(too_old, "version", "Redis 5.0.14 has no GETEX", "upgrade the server"),
    "no such database": Unfit(no_such_database, "server", "no database of this number", "lower number"),
    "Cluster URL to one server": Unfit(cluster_url_to_one_server, "topology", "not part of a Cluster", "use redis://"),
    "URL of one server to a Cluster": Unfit(one_server_url_to_a_cluster, "topology", "part of a Cluster", "redis+cluster://"),
    "Sentinel URL to one server": Unfit(sentinel_url_to_one_server, "topology", "no Sentinel", "use redis://"),
    "no right to the map": Unfit(cluster_without_the_right_to_its_map, "rights", "lacks a right: CLUSTER SLOTS", "+cluster|slots"),
    "password of Sentinels": Unfit(wrong_password_of_the_sentinels, "server", "rejects the user", "sentinel_password=…"),
    "wrong query": Unfit(wrong_query, "settings", "unknown option socket_timeot", "correct"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_each_unfit_store_gets_its_own_answer(name: str) -> None:
    """The check, the reason, the remedy and the exit code are right, and no password is shown."""
    unfit = UNFIT[name]
    with unfit.url() as url:
        answer = CommandLine(url)("doctor", "--json")
    failed = {each["check"]: each for each in answer.json["checks"] if each["status"] == "fail"}
    assert list(failed) == [unfit.check], answer.json
    assert unfit.found in failed[unfit.check]["found"]
    assert unfit.remedy in failed[unfit.check]["remedy"]
    assert (answer.code, answer.json["verdict"]) == (unfit.code, {1: "misconfigured", 3: "dead"}[unfit.code])
    assert "canary-password" not in answer.out + answer.err


def test_the_answers_differ() -> None:
    """No two kinds of unfit store are told the same."""
    told = {(unfit.check, unfit.found) for unfit in UNFIT.values()}
    assert len(told) == len(UNFIT) >= 12


@pytest.mark.slow
def test_sentinels_are_told_apart_from_servers_and_asked_for_the_master() -> None:
    """A Sentinel's port in a redis:// URL, a master it does not know, and a group that works."""
    with SentinelGroup() as group:
        wait_until(
            lambda: CommandLine(group.url)("doctor", "--json").code == 0, timeout=60.0, message="the group works"
        )
        first = group.url.partition("://")[2].partition(",")[0]
        port = CommandLine(f"redis://{first}")("doctor", "--json")
        name = CommandLine(group.url.replace(f"/{group.name}", "/other"))("doctor", "--json")
    told = [
        next(each for each in answer.json["checks"] if each["status"] == "fail")["found"] for answer in (port, name)
    ]
    assert (port.code, name.code) == (1, 1)
    assert "this is a Sentinel" in told[0]
    assert f"knows no master 'other', but: {group.name}" in told[1]


@pytest.mark.parametrize(
    ("url", "found", "remedy"),
    [
        (no_such_database, "there is no database of this number", "use a lower number"),
        (no_such_database_of_a_socket, "there is no database of this number", "use a lower number"),
        (cluster_url_to_one_server, "this server is not part of a Cluster", "use redis://"),
        (
            master_that_no_sentinel_knows,
            "no Sentinel knows a master of this name that works",
            "correct the master's name",
        ),
        (no_room, "the server has no room for another client", "raise maxclients"),
        (http_server, "an HTTP server answers, not Redis", "correct host and port"),
        (ssh_server, "something answers that is not Redis", "correct host and port"),
    ],
)
async def test_an_agent_is_told_why_the_store_cannot_be_used(
    url: Callable[[], AbstractContextManager[str]], found: str, remedy: str
) -> None:
    """Strict errors name the reason and the remedy, and so does the one line of the log."""
    with url() as address:
        async with SessionManager(address, registry=None, strict=True) as manager:
            with pytest.raises(StoreError, match=f"{found}; {remedy}"):
                await reusable_session("shop", manager=manager).__aenter__()


@pytest.mark.parametrize(
    "text", ['Protocol error, got "<" as reply type byte', "Protocol Error: b'HTTP/1.1 400 Bad Request'"]
)
def test_an_http_server_is_known_with_and_without_hiredis(text: str) -> None:
    """Their parsers say it in other words."""
    assert "an HTTP server answers" in str(failure_from(InvalidResponse(text)).error)


def test_a_primary_without_replicas_is_no_replica() -> None:
    """It refuses writes for another reason."""
    error = failure_from(ResponseError("NOREPLICAS Not enough good replicas to write.")).error
    assert "too few replicas in step" in str(error)


@pytest.mark.parametrize(("page", "lacking"), [("reference/stored-form", "cleanup"), ("how-to/clean-up", "")])
def test_the_users_of_the_documentation_are_enough(page: str, lacking: str) -> None:
    """They work, and doctor finds nothing to fail or to warn of in their rights."""
    text = (Path(__file__).parents[2] / f"docs/{page}.md").read_text()
    rules = re.search(r"^ACL SETUSER \w+ on >password (.*)$", text, re.MULTILINE)
    assert rules is not None
    with RedisServer() as server, server.client() as client:
        client.config_set("notify-keyspace-events", "Exge")
        client.execute_command("ACL", "SETUSER", "agents", "on", ">pw", *rules[1].split())
        url = f"redis://agents:pw@{HOST}:{server.port}"
        answer = CommandLine(url)("doctor", "--json", SESSION_REUSE_CHROMIUM="/bin/true")
    found = {each["check"]: each["found"] for each in answer.json["checks"]}
    assert [each["found"] for each in answer.json["checks"] if each["status"] != "ok"] == []
    assert answer.code == 0
    assert found["rights"].partition("not allowed for ")[2].partition(":")[0] == lacking


def test_options_of_the_url_reach_every_kind_of_store() -> None:
    """Time-outs in the query are numbers for a Cluster's and a socket's client as well: an agent works."""
    query = "socket_timeout=5&socket_connect_timeout=5&health_check_interval=30&client_name=x"
    with RedisServer(unix=True) as on_socket, RedisServer(cluster=True) as node, node.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_until(
            lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"), timeout=60.0, message="a Cluster"
        )
        for url in (
            f"{on_socket.url}&{query}",
            f"redis+cluster://{HOST}:{node.port}?{query}",
            f"redis://{HOST}:{node.port}?{query}",
        ):
            answer = CommandLine(url)("doctor", "--json", SESSION_REUSE_ATTEMPT_TIMEOUT="4")
            found = {each["check"]: each for each in answer.json["checks"]}
            if url.startswith("redis://"):  # the Cluster's node, by the wrong scheme
                assert (answer.code, found["topology"]["status"]) == (1, "fail")
            else:
                assert (answer.code, found["agent"]["status"]) == (0, "ok"), answer.json


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (redis.ResponseError("DENIED Redis is running in protected mode because ..."), Trouble.PROTECTED),
        (redis.ConnectionError("max number of clients reached"), Trouble.CLIENTS),
        (redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"), Trouble.LOADING),
        (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"), Trouble.DISK),
        (redis.ResponseError("BUSY Redis is busy running a script."), Trouble.BUSY),
        (redis.exceptions.ClusterDownError("CLUSTERDOWN Hash slot not served"), Trouble.CLUSTER_DOWN),
        (redis.exceptions.ReadOnlyError("You can't write against a read only replica."), Trouble.READ_ONLY),
        (OSError(113, "No route to host"), Trouble.UNREACHABLE),
        (PermissionError(13, "Permission denied"), Trouble.SOCKET_RIGHTS),
        (KeyError("x"), Trouble.OTHER),
    ],
)
def test_what_a_test_cannot_have_is_diagnosed_by_its_words(error: Exception, trouble: Trouble) -> None:
    """Each has a reason and a remedy."""
    found = diagnose(error)
    assert found.trouble is trouble
    assert found.found
    assert found.remedy


def test_every_trouble_has_words() -> None:
    """No kind of failure is without its reason and its remedy, and no two share both."""
    told = [diagnosis(trouble) for trouble in Trouble]
    assert len({(each.found, each.remedy) for each in told}) == len(Trouble)

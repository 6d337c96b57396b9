"""Real Redis servers for tests: single, Sentinel, Cluster.

Everything listens on loopback, on ports below those that systems give to outgoing connections: no client can sit on the
port of a server that is down for a moment. Each server lives in its own folder that goes when it is closed.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime as dt
import ipaddress
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from abc import ABC, abstractmethod
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from session_reuse._store.embedded.server import find_server_binary
from tests.harness.polling import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

HOST: Final = "127.0.0.1"
BUS_OFFSET: Final = 10_000
"""The port of a node's cluster bus, counted from its own."""

_MONITOR_LINE = re.compile(r'\S+ \[\d+ (?P<source>[^\]]*)\] "(?P<name>[^"]*)"')
_NOT_THE_CLIENT = frozenset({"HELLO", "CLIENT", "AUTH", "SELECT", "PING", "MONITOR"})
_REPLICATION = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
_SHARES = 8
"""How many test processes have ports of their own."""
_SLOTS = 16384
_SETTLING_NODE_TIMEOUT = 3.0


class ServerDidNotStartError(Exception):
    """A server ended before it answered. The message holds the end of its log."""


def redis_binary() -> str:
    """Return the server that `embedded://` would run: that of the system, also where an activated environment has an older one."""
    return str(find_server_binary())


def ports_of(worker: str) -> list[int]:
    """Return the ports of a test process, which pytest-xdist calls `gw0`, `gw1` and so on, in its own order.

    A server that is down for a moment does not hold its port. So no other test process takes from these, and this one
    takes each of them once before it takes one again.
    """
    number = worker.removeprefix("gw")
    ports = list(range(12_000 + (int(number) if number.isdecimal() else 0) % _SHARES, 22_000, _SHARES))
    random.SystemRandom().shuffle(ports)  # the shared generator is seeded alike in parallel test processes
    return ports


_PORTS = cycle(ports_of(os.environ.get("PYTEST_XDIST_WORKER", "")))


def free_port(*, bus: bool = False) -> int:
    """Return a loopback port no one listens on. With `bus`, the port of its cluster bus is free as well."""
    return next(port for port in _PORTS if _is_free(port) and (not bus or _is_free(port + BUS_OFFSET)))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@dataclass(eq=False, kw_only=True)
class RedisServer:
    """One redis-server process. A context manager that starts and closes it."""

    args: Sequence[str] = ()
    """More command line arguments, e.g. `("--maxmemory", "1mb")`."""
    appendonly: bool = False
    """Keep every write over a kill -9: append-only file, synced at each write."""
    password: str | None = field(default=None, repr=False)
    unix: bool = False
    """Listen on a unix socket instead of a port."""
    tls: bool = False
    """Speak TLS with a certificate made for this server; `url` names the file to trust."""
    cluster: bool = False
    port: int = 0
    """0 picks a free one at the first start; it is kept over restarts."""
    folder: Path = field(init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _owner: int = field(default=0, init=False, repr=False)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """True while the process lives, also when it is paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def socket_path(self) -> Path:
        """Where the unix socket is, when there is one."""
        return self.folder / "redis.sock"

    @property
    def certificate(self) -> Path:
        """The certificate to trust, when there is one."""
        return self.folder / "certificate.pem"

    @property
    def url(self) -> str:
        """What a client needs to know: address, password, certificate."""
        user = f":{self.password}@" if self.password else ""
        if self.unix:
            return f"unix://{user}{self.socket_path}?db=0"
        if self.tls:
            return f"rediss://{user}{HOST}:{self.port}/0?ssl_ca_certs={self.certificate}"
        return f"redis://{user}{HOST}:{self.port}/0"

    def start(self) -> Self:
        """Start the server, or start it again with what it had, and wait until it answers."""
        if self.running:
            return self
        if not self._owner:
            return self._start_first()
        self._launch()
        return self

    def stop(self) -> None:
        """Shut the server down in order. Its data and its port stay reserved for the next start."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server with kill -9, paused or not, and reap it."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): connections stay, the kernel still accepts, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT). It then serves what was sent meanwhile."""
        self._signal(signal.SIGCONT)

    def restart(self, *, empty: bool = False) -> None:
        """Stop and start on the same port, with the data there was (see `appendonly`) or with none."""
        self.stop()
        if empty:
            for path in self.folder.iterdir():
                if path.suffix not in {".pem", ".log"}:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.start()

    def close(self) -> None:
        """End the server at once and remove its folder. A forked child of the test process must not do so."""
        if self._owner != os.getpid():
            return
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)
        self._owner = 0

    def client(self, **options: Any) -> redis.Redis:
        """Return a plain client without retries. Close it, or use it in a `with`."""
        defaults = {"socket_timeout": 5.0, "socket_connect_timeout": 5.0, "retry": Retry(NoBackoff(), 0)}
        return redis.Redis.from_url(self.url, **defaults | options)

    @asynccontextmanager
    async def monitor(self) -> AsyncIterator[Monitor]:
        """Collect the commands that clients send while the context is open."""
        retry = AsyncRetry(NoBackoff(), 0)
        client = redis.asyncio.Redis.from_url(self.url, protocol=2, socket_timeout=5.0, retry=retry)
        listening = client.connection_pool.make_connection()
        try:
            await listening.connect()
            await listening.send_command("MONITOR")
            await listening.read_response()
            monitor = Monitor(client, listening)
            yield monitor
            await monitor.barrier()
        finally:
            await listening.disconnect()
            await client.aclose()

    def _start_first(self) -> Self:
        self._owner = os.getpid()
        self.folder = Path(tempfile.mkdtemp(prefix="session-reuse-test-"))
        atexit.register(self.close)
        if self.tls:
            _write_certificate(self.certificate, self.folder / "key.pem")
        try:
            self._launch_on_some_port()
        except BaseException:
            self.close()
            raise
        return self

    def _launch_on_some_port(self) -> None:
        if self.port:
            return self._launch()
        for _ in range(5):
            self.port = free_port(bus=self.cluster)
            with contextlib.suppress(ServerDidNotStartError):  # someone else was faster to take the port
                return self._launch()
        self.port = free_port(bus=self.cluster)
        return self._launch()

    def _launch(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(self._answers, timeout=60.0, message=f"redis-server on port {self.port} answers")
        except BaseException:
            self.kill()
            raise

    def _command(self) -> list[str]:
        command = [redis_binary(), "--bind", HOST, "--save", "", "--dir", str(self.folder), *self._listen()]
        if self.appendonly:
            command += ["--appendonly", "yes", "--appendfsync", "always"]
        if self.password:
            command += ["--requirepass", self.password, "--masterauth", self.password]
        if self.cluster:
            command += [
                "--cluster-enabled",
                "yes",
                "--cluster-announce-ip",
                HOST,
                "--cluster-config-file",
                "nodes.conf",
            ]
        return [*command, *self.args]

    def _listen(self) -> list[str]:
        if self.unix:
            return ["--port", "0", "--unixsocket", str(self.socket_path), "--unixsocketperm", "700"]
        if self.tls:
            certificate, key = str(self.certificate), str(self.folder / "key.pem")
            files = ["--tls-cert-file", certificate, "--tls-ca-cert-file", certificate, "--tls-key-file", key]
            return ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no", *files]
        return ["--port", str(self.port)]

    def _answers(self) -> bool:
        if not self.running:
            raise ServerDidNotStartError((self.folder / "server.log").read_text(errors="replace")[-2000:])
        with contextlib.suppress(redis.RedisError, OSError), self.client() as client:
            client.ping()
            return client.info("server")["process_id"] == self.pid  # and not someone else's on this port
        return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)  # does nothing once the process is reaped: its id may be another's

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(signal.SIGCONT)  # a stopped process keeps a SIGTERM for later
        self._signal(number)
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()


class Monitor:
    """What clients sent to a server, without scripts' own commands and without connections' housekeeping.

    Attributes:
        lines: the commands as MONITOR prints them, e.g. `"GET" "key"`, complete after `barrier()` or the context's end.
    """

    def __init__(self, client: redis.asyncio.Redis, listening: redis.asyncio.Connection) -> None:
        self.lines: list[str] = []
        self._client = client
        self._listening = listening

    @property
    def names(self) -> list[str]:
        """The commands' names, in capitals, in the order the server ran them."""
        return [line.split('"', 2)[1].upper() for line in self.lines]

    async def barrier(self) -> list[str]:
        """Wait for all commands that were answered until now, and return the lines so far."""
        marker = f"barrier-{uuid.uuid4().hex}"
        await self._client.echo(marker)
        while marker not in (line := str(await self._listening.read_response(), "ascii", "replace")):
            self._keep(line)
        return self.lines

    def _keep(self, line: str) -> None:
        found = _MONITOR_LINE.match(line)
        if found and found["source"] != "lua" and found["name"].upper() not in _NOT_THE_CLIENT:
            self.lines.append(line[line.index('"') :])


def _write_certificate(certificate: Path, key_file: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "session_reuse test server")])
    now = dt.datetime.now(dt.UTC)
    places = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST)), x509.DNSName("localhost")])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(places, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


class _Servers(ABC):
    """Servers that start and close together."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        """Start all servers and wait until they work together. When one fails, none is left."""
        with ExitStack() as stack:
            self._build(stack)
            self._stack = stack.pop_all()
        return self

    def close(self) -> None:
        """End all servers at once and remove their folders."""
        self._stack.close()

    @abstractmethod
    def _build(self, stack: ExitStack) -> None:
        """Start the servers."""


@dataclass(eq=False, kw_only=True)
class _SentinelProcess(RedisServer):
    watched: RedisServer
    group: SentinelGroup

    def _command(self) -> list[str]:
        config = self.folder / "sentinel.conf"
        if not config.exists():  # a sentinel keeps what it has learned in there
            config.write_text(self._first_config())
        return [redis_binary(), str(config), "--sentinel"]

    def _first_config(self) -> str:
        name, watched = self.group.name, self.watched
        lines = [f"port {self.port}", f"bind {HOST}", f"dir {self.folder}"]
        lines.append(f"sentinel monitor {name} {HOST} {watched.port} {self.group.quorum}")
        lines.append(f"sentinel down-after-milliseconds {name} {round(self.group.down_after * 1000)}")
        lines.append(f"sentinel failover-timeout {name} 3000")
        if watched.password:
            lines.append(f"sentinel auth-pass {name} {watched.password}")
        return "\n".join(lines) + "\n"


class SentinelGroup(_Servers):
    """A primary, its replicas, and the sentinels that replace it when it dies."""

    def __init__(
        self, *, replicas: int = 1, sentinels: int = 3, down_after: float = 0.5, password: str | None = None
    ) -> None:
        super().__init__()
        self.name = "main"
        self.down_after = down_after
        self.quorum = sentinels // 2 + 1
        self.data: list[RedisServer] = []
        self.sentinels: list[RedisServer] = []
        self._password = password
        self._counts = replicas, sentinels

    @property
    def url(self) -> str:
        """The address of the group: all sentinels, the name of the primary, database 0."""
        user = f":{self._password}@" if self._password else ""
        places = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{user}{places}/{self.name}/0"

    @property
    def primary(self) -> RedisServer:
        """The server that the first sentinel takes for the primary."""
        port = self._primary_port(self.sentinels[0])
        return next(server for server in self.data if server.port == port)

    def failover(self, *, timeout: float = 60.0) -> RedisServer:
        """Kill the primary, wait until all sentinels and replicas follow another, and return the new one."""
        old = self.primary
        old.kill()
        _settle(lambda: self._agreed(old), timeout, "the sentinels name a new primary")
        return self.primary

    def _build(self, stack: ExitStack) -> None:
        replicas, sentinels = self._counts
        primary = stack.enter_context(RedisServer(args=_REPLICATION, password=self._password))
        follow = (*_REPLICATION, "--replicaof", HOST, str(primary.port))
        followers = [stack.enter_context(RedisServer(args=follow, password=self._password)) for _ in range(replicas)]
        self.data = [primary, *followers]
        _settle(lambda: all(map(is_linked, followers)), 60.0, "the replicas are in step")
        processes = [_SentinelProcess(watched=primary, group=self) for _ in range(sentinels)]
        self.sentinels = [stack.enter_context(process) for process in processes]
        _settle(lambda: all(map(self._knows_all, self.sentinels)), 60.0, "the sentinels know each other")

    def _knows_all(self, sentinel: RedisServer) -> bool:
        with sentinel.client() as client:
            view = client.sentinel_master(self.name)
        replicas, sentinels = self._counts
        return view["num-slaves"] == replicas and view["num-other-sentinels"] == sentinels - 1

    def _primary_port(self, sentinel: RedisServer) -> int:
        with sentinel.client() as client:
            return int(client.sentinel_get_master_addr_by_name(self.name)[1])

    def _agreed(self, old: RedisServer) -> bool:
        ports = {self._primary_port(sentinel) for sentinel in self.sentinels if sentinel.running}
        if len(ports) != 1 or old.port in ports:
            return False
        alive = [server for server in self.data if server.running]
        return all(is_linked(server) if server.port not in ports else _role(server) == "master" for server in alive)


class RedisCluster(_Servers):
    """Three primaries and three replicas."""

    def __init__(self, *, node_timeout: float = 2.0, appendonly: bool = False, args: Sequence[str] = ()) -> None:
        super().__init__()
        self.nodes: list[RedisServer] = []
        self._appendonly = appendonly
        self._node_timeout = node_timeout
        self._more_args = args

    def _args(self, node_timeout: float) -> Sequence[str]:
        timeout = str(round(node_timeout * 1000))
        tuning = ("--cluster-node-timeout", timeout, "--cluster-replica-validity-factor", "0")
        return (*_REPLICATION, *tuning, *self._more_args)

    @property
    def url(self) -> str:
        """The address of the cluster: all its nodes."""
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def primary_of(self, key: str) -> RedisServer:
        """Return the server that a key lives on."""
        asked = next(node for node in self.nodes if node.running)
        _settle(lambda: self._owner_port(asked, key) > 0, 10.0, "the slot has a node")
        port = self._owner_port(asked, key)
        return next(node for node in self.nodes if node.port == port)

    def kill_primary_of(self, key: str, *, timeout: float = 60.0) -> RedisServer:
        """Kill the server that a key lives on, wait until its replica has taken over, and return the killed one."""
        old = self.primary_of(key)
        old.kill()
        alive = [node for node in self.nodes if node.running]
        _settle(lambda: all(self._moved(node, key, old) for node in alive), timeout, "the replica has taken over")
        return old

    def settle(self) -> None:
        """Wait until all nodes say that each slot has a primary and a replica. A change takes seconds to get around."""
        _settle(lambda: all(map(self._is_whole, self.nodes)), 60.0, "the cluster is whole")

    def _build(self, stack: ExitStack) -> None:
        # Nodes tell each other news twice in a time-out: with one of 30 s, a cluster takes 7 s to agree (2026-11-26).
        quick = self._args(min(self._node_timeout, _SETTLING_NODE_TIMEOUT))
        options = {"cluster": True, "appendonly": self._appendonly, "args": quick}
        self.nodes = [stack.enter_context(RedisServer(**options)) for _ in range(6)]
        self._introduce()
        _settle(lambda: all(map(self._knows_all, self.nodes)), 60.0, "the nodes have met")
        for primary, replica in zip(self.nodes[:3], self.nodes[3:], strict=True):
            _cluster(replica, "REPLICATE", _cluster(primary, "MYID"))
        self.settle()
        _settle(lambda: all(map(is_linked, self.nodes[3:])), 60.0, "the replicas are in step")
        for node in self.nodes:
            node.args = self._args(self._node_timeout)
            with node.client() as client:
                client.config_set("cluster-node-timeout", round(self._node_timeout * 1000))

    def _introduce(self) -> None:
        bounds = [0, _SLOTS // 3, 2 * _SLOTS // 3, _SLOTS]
        for number, node in enumerate(self.nodes):
            _cluster(node, "SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                _cluster(node, "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
            for other in self.nodes[:number]:
                _cluster(node, "MEET", HOST, other.port)

    def _knows_all(self, node: RedisServer) -> bool:
        lines = _cluster(node, "NODES").decode().splitlines()
        return len(lines) == len(self.nodes) and not any("handshake" in line for line in lines)

    def _is_whole(self, node: RedisServer) -> bool:
        ranges = _cluster(node, "SLOTS")
        covered = sum(last - first + 1 for first, last, *_ in ranges)
        return _cluster_ok(node) and covered == _SLOTS and all(len(servers) > 1 for _, _, *servers in ranges)

    def _moved(self, node: RedisServer, key: str, old: RedisServer) -> bool:
        return _cluster_ok(node) and self._owner_port(node, key) != old.port

    def _owner_port(self, node: RedisServer, key: str) -> int:
        slot = key_slot(key.encode())
        for first, last, primary, *_ in _cluster(node, "SLOTS"):
            if first <= slot <= last:
                return int(primary[1])
        return 0


def _settle(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Wait for servers to agree. One that is too busy to answer has not agreed yet."""

    def agreed() -> bool:
        with contextlib.suppress(redis.RedisError):
            return condition()
        return False

    wait_until(agreed, timeout=timeout, interval=0.05, message=what)


def _cluster(node: RedisServer, *words: Any) -> Any:
    with node.client() as client:
        return client.execute_command("CLUSTER", *words)


def _cluster_ok(node: RedisServer) -> bool:
    return b"cluster_state:ok" in _cluster(node, "INFO")


def _role(server: RedisServer) -> str:
    with server.client() as client:
        return str(client.info("replication")["role"])


def is_linked(replica: RedisServer) -> bool:
    """Return whether a server is a replica in step with its primary."""
    with replica.client() as client:
        state = client.info("replication")
    return state["role"] == "slave" and state["master_link_status"] == "up"

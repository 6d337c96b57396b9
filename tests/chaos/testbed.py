"""One small testbed for one trial: a server, a proxy before it, a manager behind that.

Everything that blocks (starting and ending servers, admin commands) runs in threads, because trials run side by side
and the enters of all of them are timed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import redis
from prometheus_client import CollectorRegistry
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from session_reuse import BrowserSession, SessionManager, reusable_session
from tests.harness.fault_proxy import FaultProxy
from tests.harness.polling import until, wait_until
from tests.harness.probes import runtime
from tests.harness.servers import HOST, RedisServer

PATIENT: Final = {"attempt_timeout": 5.0, "connect_timeout": 5.0, "restore_timeout": 10.0, "save_timeout": 10.0}
"""For looking at the store from beside, where a slow machine must not be taken for a fault."""
MINE: Final = "shop.example/alice"
OTHER: Final = "shop.example/bob"

NAMES: Final[dict[str, str]] = {}
"""Host names of testbeds that use one -> `"known"`, `"unknown"`, or `"slow"`: unknown after a second."""


@dataclass
class Testbed:
    """A server, a proxy, a manager.

    Attributes:
        server_args: more arguments of the server.
        appendonly: whether the server keeps its data over a kill.
        replica: start a replica of the server as well.
        embedded: use `embedded://` in its own folder, without a proxy.
        named: connect to a host name, which `resolver_without_network` knows.
        pool: connections of the manager's client. 0 for a URL.
        config: more settings of the manager.
    """

    __test__: ClassVar[bool] = False
    """pytest would collect it for its name."""

    server_args: tuple[str, ...] = ()
    appendonly: bool = False
    replica: bool = False
    embedded: bool = False
    named: bool = False
    pool: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    server: RedisServer = field(init=False)
    second: RedisServer | None = field(default=None, init=False)
    proxy: FaultProxy = field(init=False)
    manager: SessionManager = field(init=False)
    registry: CollectorRegistry = field(init=False)
    folder: Path = field(init=False)
    visiting: asyncio.Task[Any] | None = field(default=None, init=False)
    background: list[asyncio.Task[None]] = field(default_factory=list, init=False)
    is_flapping: bool = field(default=False, init=False)
    held: list[Any] = field(default_factory=list, init=False)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack, init=False)

    async def __aenter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="session-reuse-chaos-")))
        self.registry = CollectorRegistry()
        (self.folder / "data").mkdir()
        (self.folder / "a-file").touch()
        args = tuple(arg.replace("FOLDER", str(self.folder)) for arg in self.server_args)
        self.server = RedisServer(appendonly=self.appendonly, args=args)
        if not self.embedded:
            await self._started(self.server)
            if self.replica:
                sync = ("--repl-diskless-sync-delay", "0")
                self.second = RedisServer(args=(*sync, "--replicaof", HOST, str(self.server.port)))
                await self._started(self.second)
            self.proxy = await self._stack.enter_async_context(FaultProxy((HOST, self.server.port)))
        self.manager = self._made()
        await self._seed()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.background:
            task.cancel()
        await asyncio.gather(*self.background, return_exceptions=True)
        await self.manager.aclose()
        await self._stack.aclose()

    async def _started(self, server: RedisServer) -> None:
        await asyncio.to_thread(server.start)
        self._stack.push_async_callback(asyncio.to_thread, server.close)

    def _made(self) -> SessionManager:
        config = {"registry": self.registry, **self.config}
        if "spool_dir" in config:
            config["spool_dir"] = self.folder / config["spool_dir"]
        if self.embedded:
            return SessionManager(f"embedded://{self.folder / 'store'}", **config)
        if self.pool:
            options = {"retry": Retry(NoBackoff(), 0), "socket_timeout": 3.0, "socket_connect_timeout": 0.25}
            client = redis.asyncio.Redis(host=HOST, port=self.proxy.port, max_connections=self.pool, **options)
            self._stack.push_async_callback(client.aclose)
            return SessionManager(client, **config)
        if self.named:
            NAMES[self.name] = "known"
        return SessionManager(f"redis://{self.name if self.named else HOST}:{self.proxy.port}/0", **config)

    @property
    def name(self) -> str:
        """The host name of this testbed."""
        return f"testbed-{self.proxy.port}.invalid"

    @contextlib.asynccontextmanager
    async def direct(self) -> AsyncIterator[SessionManager]:
        """Another process, so to say: its own manager that goes to the server without the proxy."""
        if self.embedded:
            manager = SessionManager(f"embedded://{self.folder / 'store'}", registry=None, **PATIENT)
        else:
            keys = self.config.get("encryption_keys")
            serving = self.second if self.second and self.proxy.upstream[1] == self.second.port else self.server
            manager = SessionManager(serving.url, registry=None, encryption_keys=keys, **PATIENT)
        async with manager:
            yield manager

    async def _seed(self) -> None:
        async with self.direct() as manager:
            for name in (MINE, OTHER):
                await manager.save(BrowserSession(name, data={"n": 1, "owner": name}))
        if self.second is not None:
            await asyncio.to_thread(self._in_step)

    def _in_step(self) -> None:
        assert self.second is not None
        with self.server.client() as client:
            wait_until(lambda: client.wait(1, 100), message="the replica is in step")

    async def warm_up(self) -> None:
        """Open the manager's connections and load its scripts, by one visit of another session."""
        async with reusable_session(OTHER, manager=self.manager) as session:
            session.data["warm"] = True

    async def admin(self, *command: Any, server: RedisServer | None = None) -> Any:
        """Send one command to the server, past the proxy."""
        return await asyncio.to_thread(self._admin, server or self.server, command)

    @staticmethod
    def _admin(server: RedisServer, command: tuple[Any, ...]) -> Any:
        with server.client() as client:
            return client.execute_command(*command)

    def when(self, names: set[str], act: Callable[[], Awaitable[None]]) -> None:
        """Do something once, when the first of these commands (any, if empty) comes by, before it is passed on.

        What comes by on other connections meanwhile waits: none of it reaches the server before it is done.
        """
        struck: asyncio.Future[None] | None = None

        async def look(commands: list[str]) -> None:
            nonlocal struck
            if struck is not None:
                await asyncio.shield(struck)
            elif not names or names.intersection(commands):
                struck = asyncio.get_running_loop().create_future()
                try:
                    await act()
                finally:
                    self.proxy.on_commands = None
                    struck.set_result(None)

        self.proxy.on_commands = look

    @property
    def services(self) -> Any:
        """What the manager's visits share."""
        return runtime(self.manager)

    async def flushed(self, patience: float = 15.0) -> None:
        """Wait until nothing waits for the store any more."""
        await until(lambda: not self.manager.stats().pending, timeout=patience, message="pending saves were flushed")


def resolver_without_network() -> Callable[[], None]:
    """Answer for the names of testbeds, so that no query leaves the machine. Return what takes it back."""
    real = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        known = NAMES.get(host.decode() if isinstance(host, bytes) else host)
        if known == "slow":
            time.sleep(1.0)  # in a thread of asyncio's; longer than an enter may take
        if known in {"slow", "unknown"}:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(HOST if known else host, *args, **kwargs)

    socket.getaddrinfo = resolve

    def restore() -> None:
        socket.getaddrinfo = real

    return restore

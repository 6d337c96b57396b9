"""A resolver of our own: the application's threads are its own, whatever the network's resolver does."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Any

import pytest

from session_reuse import Outcome, SessionManager, reusable_session
from session_reuse._store.redis import resolver
from session_reuse.errors import StoreUnavailableError
from tests.harness.fault_proxy import FaultProxy
from tests.harness.polling import until
from tests.harness.servers import HOST, RedisServer
from tests.transport.visits import DEFAULTS, breakers, visit

REAL = socket.getaddrinfo


class Names:
    """Stands in for the system's resolver.

    Attributes:
        known: addresses of names.
        silent: while it is set, look-ups of names that end in `.internal` hang.
        asked: each look-up of such a name.
    """

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.answering = threading.Event()
        self.answering.set()
        self.asked: list[str] = []

    def getaddrinfo(self, host: str, *arguments: Any, **options: Any) -> Any:
        """Look a name up."""
        if not str(host).endswith(".internal"):
            return REAL(host, *arguments, **options)
        self.asked.append(host)
        self.answering.wait(20.0)
        if host not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return REAL(self.known[host], *arguments, **options)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """A resolver to be told what to do."""
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    yield names
    names.answering.set()
    resolver.forget()


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
@pytest.mark.alone("an enter may exceed its budget of 0.5 s by 0.25 s")
async def test_a_silent_resolver_leaves_the_applications_threads_alone(names: Names, scheme: str) -> None:
    """Enters keep their budget, one look-up hangs in a thread of ours, and `asyncio.to_thread` works at once."""
    names.answering.clear()
    url = f"{scheme}://redis.internal:6379" + ("/mymaster/0" if scheme == "redis+sentinel" else "")
    async with SessionManager(url, **DEFAULTS, close_timeout=0.1) as manager:
        for number in range(12):
            found = await visit(manager, f"shop/{number}", save=False)
            assert found.outcome in {Outcome.TIMEOUT, Outcome.UNAVAILABLE, Outcome.CIRCUIT_OPEN}
            assert found.entered_in < 0.75
            began = monotonic()
            await asyncio.to_thread(int)
            assert monotonic() - began < 1.0
        assert names.asked == ["redis.internal"]
        if scheme == "redis":
            assert breakers(manager) == {"closed"}


@pytest.mark.alone("most enters take less than 0.05 s")
async def test_a_silent_resolver_delays_the_first_agents_only(names: Names) -> None:
    """While a look-up hangs, further agents are told so at once."""
    names.answering.clear()
    async with SessionManager("redis://redis.internal:6379/0", **DEFAULTS, close_timeout=0.1) as manager:
        await visit(manager, save=False)
        took = [(await visit(manager, save=False)).entered_in for _ in range(9)]
        assert sorted(took)[4] < 0.05


async def test_connections_that_stand_do_not_need_the_resolver(names: Names, redis_server: RedisServer) -> None:
    """A resolver that falls silent later disturbs no one, and opens no breaker."""
    names.known["redis.internal"] = HOST
    async with SessionManager(f"redis://redis.internal:{redis_server.port}/0", **DEFAULTS) as manager:
        await visit(manager)
        names.answering.clear()
        resolver.forget()
        for _ in range(10):
            assert (await visit(manager)).outcome is Outcome.REUSED
        assert breakers(manager) == {"closed"}


@pytest.mark.parametrize("first", ["refuses", "is silent"])
async def test_every_address_of_a_name_is_tried(
    names: Names, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """The first address of a name refuses, or drops what is sent to it, as a lost zone does. The second one answers."""
    monkeypatch.setattr(names, "getaddrinfo", REAL)
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.9", HOST)]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: addresses if host == "two.internal" else REAL(host, *a, **k)
    )
    with ExitStack() as sockets:
        if first == "is silent":  # a listener whose queue is full answers nobody
            listener = sockets.enter_context(socket.socket())
            listener.bind(("127.0.0.9", redis_server.port))
            listener.listen(0)
            for _ in range(4):
                waiting = sockets.enter_context(socket.socket())
                waiting.settimeout(0.0)
                waiting.connect_ex(("127.0.0.9", redis_server.port))
        async with SessionManager(f"redis://two.internal:{redis_server.port}/0", **DEFAULTS) as manager:
            await until(lambda: _is_reused(manager), timeout=10.0)


async def _is_reused(manager: SessionManager) -> bool:
    async with reusable_session("shop/1", manager=manager) as session:
        session.data["n"] = 1
    return session.reused and not session.stale


async def test_tls_still_checks_the_name(names: Names) -> None:
    """The certificate is for 127.0.0.1: it is not taken for that of another name with the same address."""
    names.known["redis.internal"] = HOST
    with RedisServer(tls=True) as server:
        async with SessionManager(server.url, **DEFAULTS) as manager:
            await visit(manager)
            assert (await visit(manager)).outcome is Outcome.REUSED
        wrong = server.url.replace(HOST, "redis.internal")
        async with SessionManager(wrong, **DEFAULTS, strict=True, close_timeout=0.1) as manager:
            with pytest.raises(StoreUnavailableError, match="ismatch"):
                await visit(manager, save=False)


async def test_a_forked_child_looks_names_up_anew(names: Names, redis_server: RedisServer, proxy: FaultProxy) -> None:
    """A look-up that the parent has under way is no one's in the child."""
    names.answering.clear()
    looking = asyncio.create_task(resolver.resolve("redis.internal", 5.0))
    while not names.asked:
        await asyncio.sleep(0.01)
    resolver.forget()
    names.answering.set()
    names.known["redis.internal"] = HOST
    assert await resolver.resolve("redis.internal", 5.0) == [HOST]
    assert await looking == [HOST]


@pytest.mark.parametrize("user", ["default@", "default:@", ":@", ""])
async def test_a_user_without_a_password_is_authenticated(redis_server: RedisServer, user: str) -> None:
    """Hosted servers hand out such a URL: a user name, nothing behind it, and a database."""
    url = redis_server.url.replace("redis://", f"redis://{user}").replace("/0", "/3")
    async with SessionManager(url, **DEFAULTS) as manager:
        assert (await visit(manager)).outcome == Outcome.MISSING

"""Open a connection to each server that holds data, or find the reason why that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Final

from session_reuse._settings.url import StoreUrl, parse_url, redacted_url
from session_reuse._store.redis.connect import Connection, client_at, connect
from session_reuse._store.redis.diagnosis import Trouble, diagnose, diagnosis
from session_reuse.cli.doctor.facts import hello_of
from session_reuse.cli.doctor.finding import Finding, fail, ok, warn
from session_reuse.cli.doctor.wire import ANSWER_LIMIT, UnfitError, Wire
from session_reuse.config import Config
from session_reuse.errors import ConfigurationError, StoreError

_CONNECT_TIMEOUT: Final = 2.0
"""Seconds: a person at a prompt waits longer than an agent."""


@asynccontextmanager
async def reached(config: Config) -> AsyncIterator[tuple[list[Wire], list[Finding]]]:
    """Yield a connection to the server, or to each primary of a Cluster, and the findings so far.

    Raises:
        UnfitError: no server can be used.
    """
    patient = replace(config, connect_timeout=max(_CONNECT_TIMEOUT, config.connect_timeout))
    shown = redacted_url(config.url)
    async with AsyncExitStack() as stack:
        connection = await _started(patient, shown)
        if connection.release is not None:
            stack.push_async_callback(asyncio.to_thread, connection.release)
        stack.push_async_callback(connection.client.aclose)
        wires, found = await _Search(patient, connection, stack).wires(shown)
        yield wires, [ok("server", f"answers at {shown}"), *found]


async def _started(config: Config, shown: str) -> Connection:
    # In a thread: `embedded://` may start a server here, which takes up to ten seconds.
    def start() -> Connection:
        connection = connect(config)
        if connection.revive is not None:
            connection.revive()
        return connection

    try:
        return await asyncio.to_thread(start)
    except ConfigurationError as error:
        raise UnfitError(fail("server", str(error), "correct the setting, or install what is missing")) from None
    except StoreError as error:
        raise UnfitError(fail("server", f"{shown}: {error}", "see redis.log in its folder"), is_dead=True) from None


class _Search:
    """The search for the servers of one URL. Connections are closed by `stack`."""

    def __init__(self, config: Config, connection: Connection, stack: AsyncExitStack) -> None:
        self._config = config
        self._url: StoreUrl = parse_url(config.url)
        self._client = connection.client
        self._stack = stack

    async def wires(self, shown: str) -> tuple[list[Wire], list[Finding]]:
        if self._url.kind == "sentinel":
            return await self._first_of("sentinels", self._master_of)
        if self._url.kind == "cluster":
            return await self._first_of("nodes", self._primaries_of)
        address = self._url.hosts[0] if self._url.hosts else None
        wire = Wire(self._client.connection_pool.make_connection(), shown, address, tls=self._url.tls)
        await self._open(wire)
        wire.name = ""  # findings about an only server need no address
        return [wire], []

    async def _first_of(
        self, check: str, find: Callable[[str, int], Awaitable[list[Wire]]]
    ) -> tuple[list[Wire], list[Finding]]:
        """Return what the first host of the URL that works leads to, and a warning about a host before it."""
        away: list[UnfitError] = []
        for host, port in self._url.hosts:
            try:
                wires = await find(host, port)
            except UnfitError as error:
                away.append(error)
                continue
            return wires, [warn(check, each.finding.found, each.finding.remedy) for each in away[:1]]
        raise away[0]

    async def _open(self, wire: Wire) -> Wire:
        self._stack.push_async_callback(wire.aclose)
        await wire.open()
        return wire

    async def _at(self, host: str, port: int) -> Wire:
        client = client_at(self._config, self._url, host, port)
        self._stack.push_async_callback(client.aclose)
        made = client.connection_pool.make_connection()
        return await self._open(Wire(made, f"{host}:{port}", (host, port), tls=self._url.tls))

    async def _master_of(self, host: str, port: int) -> list[Wire]:
        name = f"{host}:{port}"
        client = client_at(self._config, self._url, host, port, is_sentinel=True)
        self._stack.push_async_callback(client.aclose)
        made = client.connection_pool.make_connection()
        wire = await self._open(Wire(made, f"Sentinel {name}", (host, port), tls=self._url.tls))
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                masters = await client.sentinel_masters()
        except Exception as error:  # noqa: BLE001  (redis-py raises more than RedisError: see _store/redis/failures.py)
            found = diagnose(error)
            if found.trouble is not Trouble.UNKNOWN_COMMAND:
                raise wire.unfit(found) from None
            remedy = "use redis:// for this server, or the port of the Sentinels, mostly 26379"
            raise UnfitError(fail("topology", f"at {name} is a Redis server and no Sentinel", remedy)) from None
        state = masters.get(self._url.master)
        if state is None:
            text = f"the Sentinel at {name} knows no master {self._url.master!r}, but: {', '.join(masters) or 'none'}"
            raise UnfitError(fail("topology", text, "correct the master's name in redis+sentinel://host:port/name"))
        return [await self._at(state["ip"], int(state["port"]))]

    async def _primaries_of(self, host: str, port: int) -> list[Wire]:
        first = await self._at(host, port)
        if (await hello_of(first)).get("mode", "cluster") != "cluster":
            raise first.unfit(diagnosis(Trouble.NOT_A_CLUSTER), "topology")
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                await self._client.initialize()
        except Exception as error:  # noqa: BLE001  (as above)
            raise first.unfit(diagnose(error), "topology") from None
        return [
            await self._open(Wire(node.acquire_connection(), node.name, (node.host, node.port), tls=self._url.tls))
            for node in self._client.get_primaries()
        ]

"""From the settings to an open connection to each server that holds data, or to the reason why there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from session_reuse._store.redis.connect import Connection, client_at, connect
from session_reuse._store.redis.diagnosis import Trouble, diagnose, diagnosis
from session_reuse._url import StoreUrl, parse_url, redacted_url
from session_reuse.cli.doctor.facts import hello_of
from session_reuse.cli.doctor.finding import Finding, fail, ok, warn
from session_reuse.cli.doctor.wire import ANSWER_LIMIT, UnfitError, Wire
from session_reuse.config import Config
from session_reuse.errors import ConfigurationError, StoreError

_PATIENCE: Final = 2.0
"""Seconds to connect: agents are in a hurry, people at a prompt would rather have an answer."""


@asynccontextmanager
async def reached(config: Config) -> AsyncIterator[tuple[list[Wire], list[Finding]]]:
    """Open a connection to the server, or to each primary of a Cluster, and yield them with what was found on the way.

    Raises:
        UnfitError: there is no server to use.
    """
    patient = replace(config, connect_timeout=max(_PATIENCE, config.connect_timeout))
    url, shown = parse_url(config.url), redacted_url(config.url)
    async with AsyncExitStack() as stack:
        connection = await _started(patient, shown)
        if connection.release is not None:
            stack.push_async_callback(asyncio.to_thread, connection.release)
        stack.push_async_callback(connection.client.aclose)
        way = _Way(patient, url, stack)
        if url.kind == "sentinel":
            wires, found = await way.by_sentinels()
        elif url.kind == "cluster":
            wires, found = await way.by_cluster(connection.client)
        else:
            address = url.hosts[0] if url.hosts else None
            made = connection.client.connection_pool.make_connection()
            wires, found = [await way.opened(Wire(made, shown, address, tls=url.tls))], []
            wires[0].name = ""
        yield wires, [ok("server", f"answers at {shown}"), *found]


async def _started(config: Config, shown: str) -> Connection:
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


class _Way:
    """How the servers of one URL are found."""

    def __init__(self, config: Config, url: StoreUrl, stack: AsyncExitStack) -> None:
        self._config = config
        self._url = url
        self._stack = stack

    async def opened(self, wire: Wire) -> Wire:
        """Open a connection that is closed at the end."""
        self._stack.push_async_callback(wire.aclose)
        await wire.open()
        return wire

    async def by_sentinels(self) -> tuple[list[Wire], list[Finding]]:
        """Ask the Sentinels for the master."""
        away: list[UnfitError] = []
        for host, port in self._url.hosts:
            try:
                ip, master_port = await self._named_by(host, port)
            except UnfitError as error:
                away.append(error)
                continue
            found = [warn("sentinels", each.finding.found, each.finding.remedy) for each in away[:1]]
            return [await self._at(ip, master_port)], found
        raise away[0]

    async def _named_by(self, host: str, port: int) -> tuple[str, int]:
        name = f"{host}:{port}"
        client = client_at(self._config, self._url, host, port, is_sentinel=True)
        self._stack.push_async_callback(client.aclose)
        made = client.connection_pool.make_connection()
        wire = await self.opened(Wire(made, f"Sentinel {name}", (host, port), tls=self._url.tls))
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                masters: dict[str, Any] = await client.sentinel_masters()
        except Exception as error:  # noqa: BLE001  (redis-py raises more than RedisError: see store/failures.py)
            found = diagnose(error)
            if found.trouble is not Trouble.UNKNOWN_COMMAND:
                raise wire.unfit(found) from None
            remedy = "use redis:// for this server, or the port of the Sentinels, mostly 26379"
            raise UnfitError(fail("topology", f"at {name} is a Redis server and no Sentinel", remedy)) from None
        state = masters.get(self._url.master)
        if state is None:
            told = f"the Sentinel at {name} knows no master {self._url.master!r}, but: {', '.join(masters) or 'none'}"
            raise UnfitError(fail("topology", told, "correct the master's name in redis+sentinel://host:port/name"))
        return state["ip"], int(state["port"])

    async def _at(self, host: str, port: int) -> Wire:
        client = client_at(self._config, self._url, host, port)
        self._stack.push_async_callback(client.aclose)
        made = client.connection_pool.make_connection()
        return await self.opened(Wire(made, f"{host}:{port}", (host, port), tls=self._url.tls))

    async def by_cluster(self, client: Any) -> tuple[list[Wire], list[Finding]]:
        """Ask the first node of the URL that answers for the primaries."""
        away: list[UnfitError] = []
        for host, port in self._url.hosts:
            try:
                first = await self._at(host, port)
            except UnfitError as error:
                away.append(error)
                continue
            if (await hello_of(first)).get("mode", "cluster") != "cluster":
                raise first.unfit(diagnosis(Trouble.NOT_A_CLUSTER), "topology")
            found = [warn("nodes", each.finding.found, each.finding.remedy) for each in away[:1]]
            return await self._primaries(client, first), found
        raise away[0]

    async def _primaries(self, client: Any, first: Wire) -> list[Wire]:
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                await client.initialize()
        except Exception as error:  # noqa: BLE001  (as above)
            raise first.unfit(diagnose(error), "topology") from None
        return [
            await self.opened(Wire(node.acquire_connection(), node.name, (node.host, node.port), tls=self._url.tls))
            for node in client.get_primaries()
        ]

"""Open a connection to each server that holds data, or find the reason why that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from session_reuse._settings.url import StoreUrl, parse_url, redacted_url
from session_reuse._store.redis.connect import Connection, client_at, connect
from session_reuse._store.redis.diagnosis import Trouble, diagnose, diagnosis
from session_reuse.cli.doctor.finding import Finding, fail, ok, warn
from session_reuse.cli.doctor.wire import UnfitError, Wire, answer_or_error, pairs
from session_reuse.config import Config
from session_reuse.errors import ConfigurationError, StoreError

_CONNECT_TIMEOUT: Final = 2.0
"""Seconds: a person at a prompt waits longer than an agent."""
_OF_SENTINELS: Final = "correct ?sentinel_username=…&sentinel_password=… in SESSION_REUSE_URL: what is before the host belongs to the servers"
_REMEDIES_OF_SENTINELS: Final = {
    Trouble.PASSWORD_WRONG.value[1]: _OF_SENTINELS,
    Trouble.PASSWORD_MISSING.value[1]: _OF_SENTINELS,
    Trouble.PASSWORD_NOT_SET.value[1]: _OF_SENTINELS,
    Trouble.RIGHTS.value[1]: "give the Sentinels' user +sentinel|masters",
}
"""In place of the remedies for servers."""


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
        wires, found = await _Search(patient, parse_url(config.url), connection, stack).wires(shown)
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


@dataclass(frozen=True, slots=True)
class _Search:
    """The search for the servers of one URL. Connections are closed by `stack`."""

    config: Config
    url: StoreUrl
    connection: Connection
    stack: AsyncExitStack

    async def wires(self, shown: str) -> tuple[list[Wire], list[Finding]]:
        if self.url.kind == "sentinel":
            return await self._first_of("sentinels", self._master_of)
        if self.url.kind == "cluster":
            return await self._first_of("nodes", self._primaries_of)
        address = self.url.hosts[0] if self.url.hosts else None
        wire = await self._open(self.connection, shown, address)
        wire.name = ""  # findings about an only server need no address
        return [wire], []

    async def _first_of(
        self, check: str, find: Callable[[str, int], Awaitable[list[Wire]]]
    ) -> tuple[list[Wire], list[Finding]]:
        """Return what the first host of the URL that works leads to, and a warning about a host before it."""
        away: list[UnfitError] = []
        for host, port in self.url.hosts:
            try:
                wires = await find(host, port)
            except UnfitError as error:
                away.append(error)
                continue
            return wires, [warn(check, each.finding.found, each.finding.remedy) for each in away[:1]]
        raise away[0]

    async def _open(self, to: Connection, name: str, address: tuple[str, int] | None) -> Wire:
        wire = Wire(to, name, address, tls=self.url.tls)
        self.stack.push_async_callback(wire.aclose)
        await wire.open()
        return wire

    async def _at(self, host: str, port: int, kind: str = "") -> Wire:
        to = Connection(client_at(self.config, self.url, host, port, is_sentinel=bool(kind)))
        return await self._open(to, f"{kind}{host}:{port}", (host, port))

    async def _master_of(self, host: str, port: int) -> list[Wire]:
        try:
            state = await self._state_of_master(host, port)
        except UnfitError as error:
            found = error.finding
            remedy = _REMEDIES_OF_SENTINELS.get(found.remedy, found.remedy)
            raise UnfitError(replace(found, remedy=remedy), is_dead=error.is_dead) from None
        return [await self._at(state["ip"], int(state["port"]))]

    async def _state_of_master(self, host: str, port: int) -> dict[str, str]:
        wire = await self._at(host, port, "Sentinel ")
        answer = await wire.ask("SENTINEL", "MASTERS")
        if isinstance(answer, Exception):
            found = diagnose(answer)
            if found.trouble is not Trouble.UNKNOWN_COMMAND:
                raise wire.unfit(found)
            remedy = "use redis:// for this server, or the port of the Sentinels, mostly 26379"
            raise UnfitError(fail("topology", f"at {host}:{port} is a Redis server and no Sentinel", remedy))
        masters = {state["name"]: state for state in map(pairs, answer)}
        state = masters.get(self.url.master)
        if state is None:
            text = f"the Sentinel at {host}:{port} knows no master {self.url.master!r}, but: {', '.join(masters) or 'none'}"
            raise UnfitError(fail("topology", text, "correct the master's name in redis+sentinel://host:port/name"))
        return state

    async def _primaries_of(self, host: str, port: int) -> list[Wire]:
        first = await self._at(host, port)
        if (await first.ask_for_pairs("HELLO", 2)).get("mode", "cluster") != "cluster":
            raise first.unfit(diagnosis(Trouble.NOT_A_CLUSTER), "topology")
        error = await answer_or_error(self.connection.client.initialize())
        if isinstance(error, Exception):
            found = diagnose(error)
            if found.trouble is Trouble.RIGHTS:
                remedy = (
                    "give the user +cluster|slots +role +asking: see Minimal rights in docs/reference/stored-form.md"
                )
                raise first.unfit(diagnosis(Trouble.RIGHTS, "CLUSTER SLOTS", remedy), "rights")
            raise first.unfit(found, "topology")
        return [await self._at(node.host, node.port) for node in self.connection.client.get_primaries()]

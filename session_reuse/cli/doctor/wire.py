"""One raw connection to one server, and the reason if it cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, Final, Protocol

from session_reuse._store.redis.diagnosis import Diagnosis, Trouble, diagnose, diagnosis
from session_reuse.cli.doctor.finding import Finding, fail

ANSWER_LIMIT: Final = 3.0
"""Seconds for one answer."""
_PROBE_LIMIT: Final = 1.0
DEAD: Final = frozenset({Trouble.DNS, Trouble.REFUSED, Trouble.UNREACHABLE, Trouble.NO_SOCKET, Trouble.SILENT})
"""No server answers."""
GONE: Final = DEAD | {Trouble.CLOSED}
"""The server does not answer any more."""
_UNCLEAR: Final = frozenset({Trouble.SILENT, Trouble.CLOSED, Trouble.TLS_FAILED, Trouble.NOT_REDIS, Trouble.OTHER})
"""The exception alone does not show the cause."""


class RawConnection(Protocol):
    """The part of a connection of redis-py that the doctor uses."""

    async def connect(self) -> None:
        """Connect and log in."""

    async def send_command(self, *words: str | int, check_health: bool) -> None:
        """Send a command."""

    async def read_response(self) -> Any:
        """Return an answer."""

    async def disconnect(self, nowait: bool) -> None:
        """Close the connection."""


class UnfitError(Exception):
    """The store cannot be used, so further checks are useless."""

    def __init__(self, finding: Finding, *, is_dead: bool = False) -> None:
        super().__init__(finding.found)
        self.finding = finding
        self.is_dead = is_dead


class Wire:
    """A connection to one server.

    Args:
        connection: of redis-py, not connected yet.
        name: the name of the server in findings. Empty if there is only one.
        address: host and port. None for a socket.
        tls: whether the connection uses TLS.
    """

    def __init__(
        self, connection: RawConnection, name: str, address: tuple[str, int] | None = None, *, tls: bool = False
    ) -> None:
        self._connection = connection
        self.name = name
        self._address = address
        self._tls = tls

    async def open(self) -> None:
        """Connect, log in, select the database and send a PING.

        Raises:
            UnfitError: the server cannot be used. The finding has the reason.
        """
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                await self._connection.connect()
            await self.execute("PING")
        except Exception as error:  # noqa: BLE001  (redis-py raises more than RedisError: see _store/redis/failures.py)
            found = diagnose(error)
            if found.trouble in {Trouble.RIGHTS, Trouble.UNKNOWN_COMMAND}:  # of PING alone
                return
            if self._address is not None and found.trouble in _UNCLEAR:
                found = await _probe(*self._address, found, tls=self._tls)
            raise self.unfit(found) from None

    def unfit(self, found: Diagnosis, check: str = "server") -> UnfitError:
        """Return the error for a failure of this server."""
        named = f"{self.name}: " if self.name else ""
        return UnfitError(fail(check, named + found.found, found.remedy), is_dead=found.trouble in DEAD)

    async def execute(self, *words: str | int) -> Any:
        """Send a command and return the answer of redis-py, which has no type.

        Raises:
            Exception: an error was the answer, or there was none in time.
        """
        async with asyncio.timeout(ANSWER_LIMIT):
            await self._connection.send_command(*words, check_health=False)
            return await self._connection.read_response()

    async def execute_if_allowed(self, *words: str | int) -> Any:
        """Send a command and return the answer, or None if the server refuses the command.

        Raises:
            UnfitError: the server does not answer any more.
        """
        try:
            return await self.execute(*words)
        except Exception as error:  # noqa: BLE001  (as above)
            found = diagnose(error)
            if found.trouble in GONE:
                raise self.unfit(found) from None
            return None

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.disconnect(nowait=True)


async def _probe(host: str, port: int, found: Diagnosis, *, tls: bool) -> Diagnosis:
    """Return a better diagnosis of an address, from a PING in plain and a TLS handshake."""
    answer = await _answer_in_plain(host, port)
    if answer[:1] in {b"+", b"-", b"$", b"*"}:  # the first bytes of RESP
        return diagnosis(Trouble.NO_TLS) if tls else found
    if answer.startswith(b"HTTP/") or b"<html" in answer.lower():
        return diagnosis(Trouble.HTTP)
    by_tls = await _tls_trouble(host, port)
    if by_tls is None:
        return diagnosis(Trouble.NOT_REDIS) if answer else found
    return found if tls and by_tls is Trouble.TLS_ONLY else diagnosis(by_tls)


async def _answer_in_plain(host: str, port: int) -> bytes:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_PROBE_LIMIT):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"PING\r\n\r\n")  # the empty line ends a request of HTTP, and Redis ignores it
                return await reader.read(1024)
            finally:
                writer.transport.abort()
    return b""


async def _tls_trouble(host: str, port: int) -> Trouble | None:
    """Return how a TLS server differs from what we tried, or None if no TLS server answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing is sent over it: only whether the server speaks TLS counts.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(_PROBE_LIMIT):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError):
        return None
    try:
        async with asyncio.timeout(_PROBE_LIMIT / 2):  # since TLS 1.3 a client is refused after the handshake
            await reader.read(1)
    except (OSError, TimeoutError) as error:
        return Trouble.CLIENT_CERTIFICATE if "CERTIFICATE_REQUIRED" in str(error) else Trouble.TLS_ONLY
    finally:
        writer.transport.abort()
    return Trouble.TLS_ONLY

"""One raw connection to one server, and the reason if it cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Iterable
from typing import Any, Final

from session_reuse._store.redis.connect import Connection
from session_reuse._store.redis.diagnosis import Diagnosis, Trouble, diagnose, diagnosis
from session_reuse.cli.doctor.finding import Finding, fail

_LIMIT: Final = 3.0
"""Seconds for one answer."""
_PROBE_LIMIT: Final = 1.0
DEAD: Final = frozenset({Trouble.DNS, Trouble.REFUSED, Trouble.UNREACHABLE, Trouble.NO_SOCKET, Trouble.SILENT})
"""No server answers."""
GONE: Final = DEAD | {Trouble.CLOSED}
"""The server does not answer any more."""
_UNCLEAR: Final = frozenset({Trouble.SILENT, Trouble.CLOSED, Trouble.TLS_FAILED, Trouble.NOT_REDIS, Trouble.OTHER})
"""The exception alone does not show the cause."""


class UnfitError(Exception):
    """The store cannot be used, so further checks are useless."""

    def __init__(self, finding: Finding, *, is_dead: bool = False) -> None:
        super().__init__(finding.found)
        self.finding = finding
        self.is_dead = is_dead


class Wire:
    """A raw connection to one server.

    A client of redis-py would drop what a server says before it is asked, as in protected mode or without room for a client.

    Args:
        to: with the client of redis-py, which makes the connection and is closed with it.
        name: the name of the server in findings. Empty if there is only one.
        address: host and port. None for a socket.
        tls: whether the connection uses TLS.
    """

    def __init__(self, to: Connection, name: str, address: tuple[str, int] | None, *, tls: bool) -> None:
        self.name = name
        self._client = to.client
        self._connection = to.client.connection_pool.make_connection()
        self._address = address
        self._tls = tls

    async def open(self) -> None:
        """Connect, log in, select the database and send a PING.

        Raises:
            UnfitError: the server cannot be used. The finding has the reason.
        """
        error = await answer_or_error(self._connection.connect()) or await self._answer("PING")
        if not isinstance(error, Exception):
            return
        found = diagnose(error)
        if found.trouble in {Trouble.RIGHTS, Trouble.UNKNOWN_COMMAND}:  # of PING alone
            return
        if self._address is not None and found.trouble in _UNCLEAR:
            found = await _probe(*self._address, found, tls=self._tls)
        raise self.unfit(found)

    def unfit(self, found: Diagnosis, check: str = "server") -> UnfitError:
        """Return the error for a failure of this server."""
        named = f"{self.name}: " if self.name else ""
        return UnfitError(fail(check, named + found.found, found.remedy), is_dead=found.trouble in DEAD)

    async def ask(self, *words: str | int) -> Any:
        """Send a command and return the answer, or the error if the server refuses the command.

        Raises:
            UnfitError: the server does not answer any more.
        """
        answer = await self._answer(*words)
        if isinstance(answer, Exception) and (found := diagnose(answer)).trouble in GONE:
            raise self.unfit(found)
        return answer

    async def ask_for_pairs(self, *words: str | int) -> dict[str, str]:
        """Return the names and values in the answer to a command. Empty if the server refuses the command."""
        answer = await self.ask(*words)
        return {} if isinstance(answer, Exception) else pairs(answer)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.disconnect(nowait=True)
        await self._client.aclose()

    async def _answer(self, *words: str | int) -> Any:
        async def talk() -> Any:
            await self._connection.send_command(*words, check_health=False)
            return await self._connection.read_response()

        return await answer_or_error(talk())


def pairs(answer: bytes | Iterable[object]) -> dict[str, str]:
    """Return the names and values of an answer: lines such as `role:master`, a list, or a dict of RESP3."""
    if isinstance(answer, bytes):
        lines = answer.decode(errors="replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)
    words = [word for item in answer.items() for word in item] if isinstance(answer, dict) else list(answer)
    texts = [word.decode(errors="replace") if isinstance(word, bytes) else str(word) for word in words]
    return dict(zip(texts[::2], texts[1::2], strict=False))


async def answer_or_error(work: Awaitable[object]) -> Any:
    """Return the result of a talk with the server, or its error, also for no answer in time."""
    try:
        async with asyncio.timeout(_LIMIT):
            return await work
    except Exception as error:  # noqa: BLE001  (redis-py raises more than RedisError: see _store/redis/failures.py)
        return error


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

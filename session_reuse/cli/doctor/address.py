"""What answers at an address that does not behave like the store of the URL: found out by two short conversations."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from enum import Enum
from typing import Final

_LIMIT: Final = 1.0
"""Seconds for each conversation."""


class Answers(Enum):
    """What stands at an address."""

    REDIS = "redis"
    TLS = "tls"
    TLS_FOR_THE_KNOWN = "tls for the known"
    """It asks for a client certificate."""
    HTTP = "http"
    OTHER = "other"
    NOTHING = "nothing"


async def what_answers(host: str, port: int) -> Answers:
    """Return what answers at an address, by a PING in plain and, if that tells nothing, by a TLS handshake."""
    said = await _said(host, port)
    if said[:1] in {b"+", b"-", b"$", b"*"}:
        return Answers.REDIS
    if said.startswith(b"HTTP/") or b"<html" in said.lower():
        return Answers.HTTP
    return await _by_tls(host, port) or (Answers.OTHER if said else Answers.NOTHING)


async def _said(host: str, port: int) -> bytes:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_LIMIT):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"PING\r\n\r\n")  # the empty line ends a request of HTTP, and Redis passes over it
                return await reader.read(1024)
            finally:
                writer.transport.abort()
    return b""


async def _by_tls(host: str, port: int) -> Answers | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(_LIMIT):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError):
        return None
    try:
        async with asyncio.timeout(_LIMIT / 2):  # since TLS 1.3 the handshake ends before the server refuses the client
            await reader.read(1)
    except (OSError, TimeoutError) as error:
        return Answers.TLS_FOR_THE_KNOWN if "CERTIFICATE_REQUIRED" in str(error) else Answers.TLS
    finally:
        writer.transport.abort()
    return Answers.TLS

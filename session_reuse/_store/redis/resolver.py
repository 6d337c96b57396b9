"""Host names to addresses, in daemon threads of our own: one look-up per host at a time, remembered for a moment.

asyncio looks names up in the event loop's default executor. A silent resolver fills that with threads that hang, and the
application's own `asyncio.to_thread` waits behind them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import threading
from contextlib import suppress
from time import monotonic  # threads have no event loop's clock
from typing import Final

_REMEMBERED_FOR: Final = 1.0
"""Seconds an answer is used again: several connections are often opened at once."""

Answer = list[str] | OSError


class ResolverSilentError(OSError):
    """The resolver has not answered. It says nothing about the server."""


class _Lookup:
    """The look-up of one host, and who waits for it."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.began = monotonic()
        self.answer: Answer | None = None
        self.waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    @property
    def is_old(self) -> bool:
        return self.answer is not None and monotonic() - self.began > _REMEMBERED_FOR

    def run(self) -> None:
        try:
            found = socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)
            answer: Answer = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        except OSError as error:
            answer = error
        except UnicodeError:  # a label is empty or too long
            answer = socket.gaierror(socket.EAI_NONAME, "not a host name")
        with _lookups_lock:
            self.answer = answer
            waiting, self.waiting = self.waiting, []
        for loop, future in waiting:
            with suppress(RuntimeError):  # that loop has been closed
                loop.call_soon_threadsafe(_wake, future)


_lookups: dict[str, _Lookup] = {}
_lookups_lock = threading.Lock()


def _forget() -> None:
    """Start anew in a forked child: the parent's threads are not there."""
    global _lookups_lock  # noqa: PLW0603
    _lookups_lock = threading.Lock()
    _lookups.clear()


os.register_at_fork(after_in_child=_forget)


async def resolve(host: str, limit: float) -> list[str]:
    """Return the addresses of a host; an address stands for itself.

    Args:
        host: a name or an address.
        limit: seconds after which a look-up that is still under way is not waited for any more.

    Raises:
        OSError: the name is not known.
        ResolverSilentError: the resolver does not answer.
    """
    with suppress(ValueError):
        ipaddress.ip_address(host.partition("%")[0])
        return [host]
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    with _lookups_lock:
        lookup = _lookups.get(host)
        is_new = lookup is None or lookup.is_old
        if lookup is None or is_new:
            lookup = _lookups[host] = _Lookup(host)
    if is_new:
        try:
            threading.Thread(target=lookup.run, name="session_reuse:resolver", daemon=True).start()
        except RuntimeError:  # from Python 3.12 on, no thread can be started when the main thread has ended
            lookup.run()
    with _lookups_lock:
        left = lookup.began + limit - monotonic()
        if lookup.answer is None:
            lookup.waiting.append((loop, future))
    if lookup.answer is None:
        try:
            async with asyncio.timeout(left):
                await future
        except TimeoutError:
            raise ResolverSilentError(f"the resolver has not answered for {limit:g} s") from None
    if isinstance(lookup.answer, OSError):
        raise lookup.answer
    return list(lookup.answer or ())


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

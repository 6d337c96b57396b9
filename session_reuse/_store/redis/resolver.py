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
from concurrent.futures import Future
from contextlib import suppress
from time import monotonic  # threads have no event loop's clock
from typing import Final

_REMEMBERED_FOR: Final = 1.0
"""Seconds an answer is used again: several connections are often opened at once."""


class ResolverSilentError(OSError):
    """The resolver has not answered. It says nothing about the server."""


_lookups: dict[str, tuple[float, Future[list[str]]]] = {}
"""Host -> when its look-up began, and the addresses."""
_silent: dict[str, list[str]] = {}
_MOST_SILENT: Final = 16
"""Addresses of a host that are remembered: those of pods and zones change."""


def forget() -> None:
    """Forget all look-ups. A forked child does: the threads of its parent are not there."""
    _lookups.clear()


os.register_at_fork(after_in_child=forget)


def avoid(host: str, address: str) -> None:
    """Return an address of a host after its others from now on: nothing has answered there."""
    known = [each for each in _silent.get(host, ()) if each != address]
    _silent[host] = [*known, address][-_MOST_SILENT:]


async def resolve(host: str, limit: float) -> list[str]:
    """Return the addresses of a host. An address stands for itself. The order is that of the resolver, but for `avoid`.

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
    began, found = _lookups.get(host) or _begun(host)
    if found.done() and monotonic() - began > _REMEMBERED_FOR:
        began, found = _begun(host)
    try:
        async with asyncio.timeout(began + limit - monotonic()):
            addresses = await asyncio.wrap_future(found)
    except TimeoutError:
        raise ResolverSilentError(f"the resolver has not answered for {limit:g} s") from None
    silent = _silent.get(host, [])
    return sorted(addresses, key=lambda each: silent.index(each) + 1 if each in silent else 0)


def _begun(host: str) -> tuple[float, Future[list[str]]]:
    """Begin to look a host up."""
    found: Future[list[str]] = Future()
    found.set_running_or_notify_cancel()  # from here on a caller that is cancelled cannot cancel it
    # Loops of two threads that come here at once look it up twice, which does no harm.
    begun = _lookups[host] = monotonic(), found

    def look_up() -> None:
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found.set_result(list(dict.fromkeys(str(entry[4][0]) for entry in entries)))
        except OSError as error:
            found.set_exception(error)
        except UnicodeError:  # a label is empty or too long
            found.set_exception(socket.gaierror(socket.EAI_NONAME, "not a host name"))

    try:
        threading.Thread(target=look_up, name="session_reuse:resolver", daemon=True).start()
    except RuntimeError:  # from Python 3.12 on, no thread can be started when the main thread has ended
        look_up()
    return begun

"""The gate of `document_gate` on a DevTools connection of our own. Must never decide anything itself."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from session_reuse.browsers.cdp_connection import CdpConnection, CdpError
from session_reuse.browsers.document_gate import DocumentGate, has_hidden_pages
from session_reuse.browsers.hidden_page import Client
from session_reuse.browsers.on_demand import OnDemand
from session_reuse.browsers.steps import Steps, run

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from session_reuse.browsers.lazy_restore import Payload


async def open_gate(
    connection: CdpConnection,
    spawn: Callable[[Steps[Any]], None],
    report: Callable[[str, str], None],
    arrived: Callable[[str, Collection[str]], None],
    context: str | None,
    payloads: list[Payload],
) -> DocumentGate | None:
    """Return a gate that holds documents of the browser's own context from now on, or None when this browser cannot.

    Args:
        connection: to the browser; its `document_gate.EVENTS` go to the gate.
        spawn: runs a procedure that nobody waits for.
        report: told what cannot be restored: kind and place, never a value.
        arrived: told which sections of an origin are known to be there.
        context: the browser's own; None when that is not known.
        payloads: of the origins to fill on demand.
    """
    client = Client((CdpError,), _send, spawn, _later(spawn))
    gate = DocumentGate(connection, client, report, arrived, OnDemand(payloads, time.monotonic))
    try:
        if context is None or not await _has_hidden_pages(connection):
            return None
        await run(gate.hold_documents())
    except CdpError:
        return None
    gate.serve(context)
    return gate


def _later(spawn: Callable[[Steps[Any]], None]) -> Callable[[float, Callable[[], Steps[Any]]], None]:
    def later(seconds: float, steps: Callable[[], Steps[Any]]) -> None:
        asyncio.get_running_loop().call_later(seconds, lambda: spawn(steps()))

    return later


def _send(connection: CdpConnection, method: str, params: dict[str, Any]) -> Any:
    return connection.send(method, params)


async def own_context(connection: CdpConnection) -> str | None:
    """Return the id of the context that the browser has by itself, or None when it does not say.

    Raises:
        CdpError: the browser did not answer.
    """
    found = await connection.send("Target.getBrowserContexts")
    if own := found.get("defaultBrowserContextId"):
        return str(own)
    others = set(found["browserContextIds"])
    targets = (await connection.send("Target.getTargets"))["targetInfos"]
    ids = (each.get("browserContextId") for each in targets if each["type"] == "page")
    return next((str(each) for each in ids if each not in others), None)


async def _has_hidden_pages(connection: CdpConnection) -> bool:
    product = (await connection.send("Browser.getVersion"))["product"]  # such as HeadlessChrome/156.0.8078.79
    return has_hidden_pages(str(product).partition("/")[2])

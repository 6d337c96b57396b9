"""Flows: algorithms written once for asynchronous and synchronous clients.

A flow is a generator that yields what a call of a client has returned: an awaitable from an asynchronous client, the
result itself from a synchronous one. A list is awaited at once. An error is raised at the place of the call.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Flow: TypeAlias = Generator[Any, Any, T]


class Together:
    """Flows to be run at the same time, where the client can do so. Each has to handle its own errors."""

    def __init__(self, flows: list[Flow[Any]]) -> None:
        self.flows = flows


async def run_async(flow: Flow[T]) -> T:
    """Run a flow over an asynchronous client."""
    result: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = flow.send(result) if error is None else flow.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        result = error = None
        try:
            result = await _awaited(step)
        except BaseException as caught:  # noqa: BLE001 - it is raised again inside the flow
            error = caught


async def _awaited(step: object) -> Any:
    if isinstance(step, Together):
        return await asyncio.gather(*(run_async(flow) for flow in step.flows))
    if isinstance(step, list):
        return await asyncio.gather(*step)
    return await step if inspect.isawaitable(step) else step


def run_sync(flow: Flow[T]) -> T:
    """Run a flow over a synchronous client: each step is its own result."""
    result: Any = None
    while True:
        try:
            result = flow.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        if isinstance(result, Together):
            result = [run_sync(each) for each in result.flows]

"""Flows: algorithms written once for asynchronous and synchronous clients.

A flow is a generator that yields steps. A step is what a call of a client has returned: an awaitable from an asynchronous client,
the result itself from a synchronous one. Another flow is a step too. The steps of a list are taken at the same time, where the
client can do so. A list holds calls or flows, not both: a synchronous client makes a call where it stands, and begins a flow when the
list is taken. An error is raised at the place of the step, or of the list.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Flow: TypeAlias = Generator[Any, Any, T]


async def run_async(flow: Flow[T]) -> T:
    """Run a flow over an asynchronous client."""
    go_on, result = flow.send, None
    while True:
        try:
            step = go_on(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        try:
            go_on, result = flow.send, await _awaited(step)
        except BaseException as error:  # noqa: BLE001 - it is raised again inside the flow
            go_on, result = flow.throw, error


async def _awaited(step: object) -> Any:
    if isinstance(step, list):
        return await asyncio.gather(*map(_awaited, step))
    if inspect.isgenerator(step):
        return await run_async(step)
    return await step if inspect.isawaitable(step) else step


def run_sync(flow: Flow[T]) -> T:
    """Run a flow over a synchronous client: each step is its own result."""
    go_on, result = flow.send, None
    while True:
        try:
            step = go_on(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        try:
            go_on, result = flow.send, _taken(step)
        except BaseException as error:  # noqa: BLE001 - it is raised again inside the flow
            go_on, result = flow.throw, error


def _taken(step: object) -> Any:
    if isinstance(step, list):
        return [_taken(each) for each in step]
    return run_sync(step) if inspect.isgenerator(step) else step

"""Procedures written once for asynchronous and synchronous clients. Must never know what they do.

A procedure is a generator that yields what a call of a client has returned: an awaitable from an asynchronous client,
the result itself from a synchronous one. It may yield a list to have several awaited at once. What it gets back is the
result, and an error is raised at the place of the call in both worlds.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Steps: TypeAlias = Generator[Any, Any, T]


async def run(steps: Steps[T]) -> T:
    """Run a procedure over an asynchronous client."""
    result: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = steps.send(result) if error is None else steps.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        result = error = None
        try:
            result = await _awaited(step)
        except BaseException as caught:  # noqa: BLE001 - it is raised again inside the procedure
            error = caught


async def _awaited(step: Any) -> Any:
    if isinstance(step, list):
        return await asyncio.gather(*step)
    return await step if inspect.isawaitable(step) else step


def run_blocking(steps: Steps[T]) -> T:
    """Run a procedure over a synchronous client: each step is its own result."""
    result: Any = None
    while True:
        try:
            result = steps.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

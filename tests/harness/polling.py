"""Waiting for a condition with a cap."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


async def until(
    condition: Callable[[], T | Awaitable[T]],
    *,
    timeout: float = 60.0,  # the condition may be synchronous, so a scope around it could not end it
    interval: float = 0.01,
    message: str = "the condition did not become true",
) -> T:
    """Return the first truthy value of a condition, plain or async.

    Raises:
        AssertionError: there was none within `timeout` seconds. What the condition itself raises comes out unchanged.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout:g} s: {message}")
        await asyncio.sleep(interval)


def wait_until(
    condition: Callable[[], T],
    *,
    timeout: float = 60.0,
    interval: float = 0.01,
    message: str = "the condition did not become true",
) -> T:
    """Return the first truthy value of a plain condition. The same as `until` for synchronous code."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout:g} s: {message}")
        time.sleep(interval)

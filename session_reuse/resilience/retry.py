"""Further attempts after a first one has failed, by tenacity. Must never be entered while all is well: it costs 100 µs.

A new `AsyncRetrying` for each use (a shared one mixes up the errors of tasks), a positive predicate (others retry a
cancellation), and `asyncio.timeout_at` around it for the deadline (tenacity's own stop conditions overshoot).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from session_reuse.resilience.failure import Failure, Retry

T = TypeVar("T")


def worth_retrying(failure: BaseException, *, patient: bool) -> bool:
    """Return whether another attempt makes sense, for a caller that can wait (`patient`) or cannot."""
    if not isinstance(failure, Failure):
        return False
    return failure.retry is Retry.ALWAYS or (patient and failure.retry is Retry.SAVE)


async def retry(
    attempt: Callable[[], Awaitable[T]], first: Failure, *, deadline: float, attempts: int, patient: bool
) -> T:
    """Repeat an attempt that has failed once, with full jitter, until it succeeds or time or attempts are used up.

    Args:
        attempt: what to do again.
        first: how it failed the first time.
        deadline: event loop time by which to give up.
        attempts: how many further attempts to make.
        patient: whether attempts that timed out are repeated too.

    Raises:
        Failure: the last one.
    """
    last = first

    async def remembered() -> T:
        nonlocal last
        try:
            return await attempt()
        except Failure as failure:
            last = failure
            raise

    retrying = AsyncRetrying(
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=0.02, max=0.2),
        retry=retry_if_exception(lambda error: worth_retrying(error, patient=patient)),
        reraise=True,
    )
    try:
        async with asyncio.timeout_at(deadline):
            return await retrying(remembered)
    except TimeoutError:
        raise last from None

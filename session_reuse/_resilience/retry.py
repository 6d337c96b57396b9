"""Further attempts after a first one has failed, by tenacity: entered only then, because it costs 100 µs.

The deadline is the caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from session_reuse._resilience.failure import AttemptFailed, Retry

T = TypeVar("T")

_FURTHER: Final = {False: 1, True: 3}
"""How many further attempts a caller gets that cannot wait, and one that can."""
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.2
jitter: Final = Random()
"""Of our own: an application that seeds `random` must not bring its processes into step."""


def is_worth_retrying(failure: BaseException, *, patient: bool) -> bool:
    """Return whether another attempt makes sense, for a caller that can wait (`patient`) or cannot."""
    if not isinstance(failure, AttemptFailed):
        return False
    return failure.retry is Retry.ALWAYS or (patient and failure.retry is Retry.SAVE)


async def retry(attempt: Callable[[], Awaitable[T]], *, patient: bool) -> T:
    """Repeat an attempt that has failed once, with full jitter, until it succeeds or attempts are used up.

    Args:
        attempt: what to do again.
        patient: whether attempts that timed out are repeated too.

    Raises:
        AttemptFailed: the last one.
    """

    def pause(state: RetryCallState) -> float:
        return jitter.uniform(0.0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**state.attempt_number))

    await asyncio.sleep(jitter.uniform(0.0, _FIRST_PAUSE))
    # A new one for each use: tasks that share one get each other's errors (tenacity 9.2.1, 2026-11-22).
    retrying = AsyncRetrying(
        stop=stop_after_attempt(_FURTHER[patient]),
        wait=pause,
        # A positive predicate: the negative ones of tenacity retry a cancellation.
        retry=retry_if_exception(lambda error: is_worth_retrying(error, patient=patient)),
        sleep=asyncio.sleep,
        reraise=True,
    )
    return await retrying(attempt)

"""Ctrl-C, a time limit of Celery and the like raise at any line: no exclusive lease outlives them."""

from __future__ import annotations

import asyncio.tasks
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import pytest

import session_reuse
from session_reuse import blocking
from session_reuse.testing import MemoryStore

OURS = (session_reuse.__path__[0], asyncio.tasks.__file__)


@contextmanager
def interrupted_at(place: int, inside: str) -> Iterator[list[str]]:
    """Raise KeyboardInterrupt at one of the lines and returns of a method and below, counted from 0. Yield where it was."""
    left, found = place, list[str]()

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal left
        if frame.f_code.co_filename.startswith(OURS) and _is_in(inside, frame) and event in {"line", "return"}:
            left -= 1
            if left == -1:
                found.append(f"{frame.f_code.co_name}:{frame.f_lineno} {event}")
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        yield found
    finally:
        sys.settrace(None)


def _is_in(method: str, frame: FrameType | None) -> bool:
    """Return whether a frame is one of a method of `reusable_session`, or of what it calls."""
    return frame is not None and (
        (frame.f_code.co_filename == blocking.__file__ and frame.f_code.co_name == method)
        or _is_in(method, frame.f_back)
    )


# Python says so of a request that was interrupted before it was sent.
@pytest.mark.filterwarnings("ignore:.*was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("inside", ["__enter__", "__exit__"])
def test_an_interrupt_at_any_line_releases_the_lease(inside: str) -> None:
    """The heartbeat would keep the lease of a `with` that nobody has left, for as long as the process lives."""
    with blocking.SessionManager(MemoryStore(), registry=None, lease_ttl=60.0) as manager:

        def outcome(**options: Any) -> str:
            with blocking.reusable_session("shop/alice", manager=manager, exclusive=True, **options) as session:
                session.data["n"] = session.data.get("n", 0) + 1
            return session.outcome.value

        outcome()
        place = 0
        while True:
            with interrupted_at(place, inside) as found, suppress(KeyboardInterrupt):
                outcome()
            if not found:
                break
            assert outcome(wait=2.0) == "reused", f"interrupted at {place}: {found}"
            place += 1
    assert place > 20


def test_a_session_that_was_left_is_not_left_again() -> None:
    """What watches for an exit that was never called is gone after the exit."""
    with blocking.SessionManager(MemoryStore(), registry=None) as manager:
        for number in range(3):
            with blocking.reusable_session("shop/alice", manager=manager) as session:
                session.data["n"] = number
        assert manager.stats().saved == {"saved": 3}

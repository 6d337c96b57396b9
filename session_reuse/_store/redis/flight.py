"""What goes out in one write: the requests of several callers, and the way of each reply back."""

from __future__ import annotations

import asyncio

from session_reuse._store.redis.redis_py import Command, Replies


class Request:
    """Commands of one caller."""

    __slots__ = ("commands", "limit", "replies", "size", "wait")

    def __init__(
        self, commands: tuple[Command, ...], limit: float, size: int, replies: asyncio.Future[Replies]
    ) -> None:
        self.wait = commands[-1] if commands[-1][0] == "WAIT" else None
        self.commands = commands if self.wait is None else commands[:-1]
        self.limit = limit
        self.size = size
        self.replies = replies

    def fail(self, error: Exception) -> None:
        """Raise an error in the caller, unless it has given up."""
        if not self.replies.done():
            self.replies.set_exception(error)


class Flight:
    """Requests that go out in one write, each with the place of its first command."""

    __slots__ = ("commands", "limit", "parts", "size", "wait")

    def __init__(self) -> None:
        self.parts: list[tuple[Request, int]] = []
        self.commands: list[Command] = []
        self.wait: Command | None = None
        self.limit = 0.0
        self.size = 0

    def add(self, request: Request) -> None:
        """Take the commands of a request."""
        self.parts.append((request, len(self.commands)))
        self.commands += request.commands
        self.limit = max(self.limit, request.limit)
        self.size += request.size
        self.wait = request.wait or self.wait

    def fail(self, error: Exception) -> None:
        """Raise an error in all callers."""
        for request, _ in self.parts:
            request.fail(error)

    def deliver(self, replies: Replies) -> None:
        """Return to each caller the replies to its commands."""
        for request, start in self.parts:
            if not request.replies.done():
                own = replies[start : start + len(request.commands)]
                request.replies.set_result(own if request.wait is None else [*own, replies[-1]])

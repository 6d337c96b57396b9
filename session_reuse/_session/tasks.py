"""Background tasks of one manager: each lives until it is done or the manager is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

Spawn = Callable[[Coroutine[None, None, object], str], "asyncio.Task[Any]"]
"""Runs work in a separate task, under a name."""


class Tasks(set["asyncio.Task[Any]"]):
    """The tasks that are not done yet. The event loop alone does not keep a task alive."""

    def spawn(self, work: Coroutine[None, None, object], name: str) -> asyncio.Task[Any]:
        """Run work in a separate task."""
        task = asyncio.get_running_loop().create_task(work, name=f"session_reuse:{name}")
        self.add(task)
        task.add_done_callback(self.discard)
        return task

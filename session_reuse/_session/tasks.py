"""Background work: tasks of one manager, which live until they are done or the manager is closed, and threads of the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, NoReturn, TypeVar

from session_reuse._cancellation import ends_us

T = TypeVar("T")

Spawn = Callable[[Coroutine[None, None, object], str], "asyncio.Task[Any]"]
"""Runs work in a separate task, under a name."""
_PREFIX: Final = "session_reuse:"
_CARRIES_CHANGES: Final = frozenset({"leave", "save"})
"""Names of the work that alone knows of a change. Each has an end, so that it holds up nobody who waits for it."""
_MOST_THREADS: Final = 4


class Tasks(set["asyncio.Task[Any]"]):
    """The tasks that are not done yet. The event loop alone does not keep a task alive."""

    def spawn(self, work: Coroutine[None, None, object], name: str) -> asyncio.Task[Any]:
        """Run work in a separate task."""
        begun = _Begun(work) if name in _CARRIES_CHANGES else work
        task = asyncio.get_running_loop().create_task(begun, name=f"{_PREFIX}{name}")
        self.add(task)
        task.add_done_callback(self.discard)
        return task

    def named(self, name: str) -> list[asyncio.Task[Any]]:
        """Return the other tasks of this name."""
        current = asyncio.current_task()
        return [task for task in self if task.get_name() == f"{_PREFIX}{name}" and task is not current]

    async def cancel(self, limit: float) -> None:
        """Cancel all tasks, and those that they begin at their end.

        Waits at most `limit` seconds for them: libraries swallow a cancellation now and then.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while tasks := self - {asyncio.current_task()}:  # one of them may close the manager
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)

    async def wait_for(self, name: str, limit: float) -> None:
        """Wait at most `limit` seconds for the tasks of this name."""
        if tasks := self.named(name):
            await asyncio.wait(tasks, timeout=max(0.0, limit))


async def until_closed(job: asyncio.Task[object]) -> None:
    """Wait for a job, which the manager cancels when it is closed."""
    try:
        await job
    except asyncio.CancelledError as error:
        if ends_us(error):
            raise


class _Begun(Coroutine[object, None, object]):
    """Work that a cancellation before its first step does not keep from beginning.

    A task that is cancelled that early never runs at all, `finally` included. `asyncio.run` cancels all tasks at its end,
    those too that were made a moment before: their changes would be gone without a word.
    """

    def __init__(self, work: Coroutine[object, None, object]) -> None:
        self._work = work
        self._has_begun = False

    def send(self, value: None) -> object:
        self._has_begun = True
        return self._work.send(value)

    def throw(
        self, kind: type[BaseException] | BaseException, value: object = None, _traceback: TracebackType | None = None
    ) -> object:
        error = value if isinstance(value, BaseException) else kind
        if not self._has_begun and isinstance(error, asyncio.CancelledError):
            return self.send(None)
        return self._work.throw(error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, None, object]:
        return self._work.__await__()


class _Threads(Executor):
    """At most four threads of our own: those of the application may be busy for minutes, and an enter must not wait for them.

    They are daemons: a disk that hangs would hold up the end of the process.

    Args:
        name: what they work at.
    """

    def __init__(self, name: str) -> None:
        self._name = f"session_reuse:{name}"
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Start anew. A forked child does: the threads of its parent are not there."""
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._started = 0

    async def __call__(self, work: Callable[[], T]) -> T:
        """Return the result of work that would hold up the event loop."""
        try:
            done = asyncio.get_running_loop().run_in_executor(self, work)
        except RuntimeError:  # the interpreter is ending
            return work()
        return await done

    def submit(self, work: Callable[..., T], /, *arguments: Any, **named: Any) -> Future[T]:
        """Queue a call.

        Raises:
            RuntimeError: the interpreter is ending, and starts no thread.
        """
        if self._started < _MOST_THREADS:
            threading.Thread(target=_serve, args=(self._jobs,), name=self._name, daemon=True).start()
            self._started += 1
        done: Future[T] = Future()
        self._jobs.put((done, partial(work, *arguments, **named)))
        return done


def _serve(jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]]) -> None:
    while True:
        _do(*jobs.get())  # in a function, so that no document stays in memory until the next job


def _do(done: Future[Any], work: Callable[[], Any]) -> None:
    if done.set_running_or_notify_cancel():
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001  (raised again where it is awaited)
            done.set_exception(error)


in_thread: Final = _Threads("codec")
on_disk_thread: Final = _Threads("disk")
"""Others than those of the codec: a network disk may hang."""


async def in_own_thread(function: Callable[[], T]) -> T:
    """Call a plain function in a thread of its own: one that hangs holds up neither the loop nor the end of the process."""
    done: Future[Callable[[], T]] = Future()
    done.set_running_or_notify_cancel()  # from here on, the end of the wait cannot cancel it

    def run() -> None:
        try:
            found = function()
            done.set_result(lambda: found)
        except BaseException as error:  # noqa: BLE001  (raised again where it is awaited)
            # A result, too: a future of asyncio refuses StopIteration, and a `next(...)` may raise it.
            done.set_result(partial(_raise, error))

    threading.Thread(target=run, name="session_reuse:call", daemon=True).start()
    return (await asyncio.wrap_future(done))()


def _raise(error: BaseException) -> NoReturn:
    raise error

"""The event loop behind the blocking API: one thread for each process, started at the first use.

The thread outlives the main thread: it ends when no other non-daemon thread is left, and closes the managers unless a
session is still open. `atexit` hooks come after that: what they use is run by the thread that waits, or by a new loop.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar
from weakref import WeakSet, ref

from session_reuse._manager import SessionManager
from session_reuse.errors import LifecycleError, StoreUnavailableError

T = TypeVar("T")

_CHECK_INTERVAL: Final = 1.0
"""How often a waiting thread makes sure that the loop still runs, in seconds."""
_CANCEL_TIMEOUT: Final = 1.0
_POLL_INTERVAL: Final = 0.02
"""How often the loop looks for threads that are still at work when the main thread has ended, in seconds."""
_DRIVE_INTERVAL: Final = 0.005
_THREAD_NAME: Final = "session_reuse"


class Background:
    """Runs coroutines for threads that have no event loop.

    Attributes:
        managers: managers to close at the end, beside the default one.
        open_sessions: references to what was entered and not left. An `atexit` hook may leave it.
    """

    def __init__(self) -> None:
        self.managers: WeakSet[SessionManager] = WeakSet()
        self.open_sessions: set[ref[object]] = set()
        self._current: _LoopThread | None = None
        self._parents: list[_LoopThread | None] = []
        self._lock = threading.Lock()
        atexit.register(self._end)  # at import, so that the hooks of the application run first
        os.register_at_fork(after_in_child=self._start_anew)

    def run(self, work: Coroutine[None, None, T]) -> T:
        """Run a coroutine on the loop and return its result. An interrupt of the wait cancels the coroutine.

        Raises:
            LifecycleError: called in a coroutine, which would block its event loop, or in our own one.
            StoreUnavailableError: the interpreter is ending, and no event loop can run here.
        """
        if inside_a_task():
            work.close()
            raise LifecycleError("inside a running event loop: use session_reuse, not session_reuse.blocking")
        if self.is_here():  # in a callback, or by the garbage collector: the result would never come
            work.close()
            raise LifecycleError("inside the event loop of session_reuse.blocking, which it would hold up")
        if sys.is_finalizing():  # after all exit hooks: CPython 3.11 would wait for ever for a new thread to start
            work.close()
            raise StoreUnavailableError("the interpreter is ending")
        thread = self._running()
        future = asyncio.run_coroutine_threadsafe(work, thread.loop)
        try:
            return thread.result(future)
        except concurrent.futures.CancelledError:
            raise StoreUnavailableError("the interpreter is ending") from None
        except BaseException:
            thread.cancel(future)
            raise

    def start(self, work: Coroutine[None, None, object]) -> None:
        """Run a coroutine on the loop and do not wait for it."""
        asyncio.run_coroutine_threadsafe(work, self._running().loop)

    def is_here(self) -> bool:
        """Return whether the loop is running in this thread, and is calling us."""
        thread = self._current
        try:
            return thread is not None and asyncio.get_running_loop() is thread.loop
        except RuntimeError:
            return False

    def _running(self) -> _LoopThread:
        thread = self._current
        if thread is None or thread.loop.is_closed():  # else without the lock: the garbage collector may come here
            with self._lock:
                thread = self._current
                if thread is None or thread.loop.is_closed():
                    thread = _LoopThread(self)
                    thread.start()
                    self._current = thread
        return thread

    def _end(self) -> None:
        thread = self._current
        if thread is not None and not thread.loop.is_closed():
            with contextlib.suppress(StoreUnavailableError):
                self.run(thread.close())
            thread.stop()

    def _start_anew(self) -> None:
        """Forget the parent's loop in a forked child: its thread is not there, and another thread may hold the lock."""
        # Kept, not freed: its end would remove the parent's sockets from the epoll object that both processes share.
        self._parents.append(self._current)
        self._current = None
        self.open_sessions = set()
        self._lock = threading.Lock()


def inside_a_task() -> bool:
    """Return whether this is a coroutine. Synchronous Playwright runs a loop in this thread, but no task of it."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


class _LoopThread:
    """An event loop and the thread that runs it. It closes the managers of `background` at the end."""

    def __init__(self, background: Background) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_Executor(thread_name_prefix="session_reuse"))
        self._background = background
        self._stopping = False
        self._closed = False
        self._driving = threading.Lock()
        self._driver: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._serve, name=_THREAD_NAME, daemon=False)

    def start(self) -> None:
        """Start the thread. Python 3.12 and later start none when the main thread has ended: then `result` runs the loop."""
        with contextlib.suppress(RuntimeError):
            self._thread.start()
        try:
            # Private, but the only hook that runs before the other threads are joined (CPython 3.9 to 3.14).
            threading._register_atexit(self._end_after_threads)  # type: ignore[attr-defined]  # noqa: SLF001
        except RuntimeError:  # the main thread has ended, and this is another thread or an `atexit` hook
            if threading.current_thread() is not threading.main_thread():
                self._end_after_threads()

    def result(self, future: Future[T]) -> T:
        """Wait for a result. Where the loop has no thread, run it here.

        Raises:
            StoreUnavailableError: the loop has ended, or this thread runs another one.
        """
        while not future.done():
            if self._thread.is_alive():
                with contextlib.suppress(TimeoutError):
                    return future.result(_CHECK_INTERVAL)
            else:
                self._drive(future, None)
        return future.result()

    def cancel(self, future: Future[T]) -> None:
        """Cancel a coroutine, and give it a moment to end."""
        if not future.cancel():
            return
        if self._thread.is_alive():
            _is_done(future, _CANCEL_TIMEOUT)
        else:
            with contextlib.suppress(StoreUnavailableError):
                self._drive(future, _CANCEL_TIMEOUT)

    def _drive(self, future: Future[T], timeout: float | None) -> None:
        with self._driving:
            work = self._wait_here(future, timeout)
            try:
                self.loop.run_until_complete(work)
            except RuntimeError as error:
                work.close()
                raise StoreUnavailableError(f"the interpreter is ending: {error}") from None

    async def _wait_here(self, future: Future[T], timeout: float | None) -> None:
        self._driver = asyncio.current_task()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not _is_done(future, 0):
                    await asyncio.sleep(_DRIVE_INTERVAL)

    def _serve(self) -> None:
        while not self._stopping:
            # A SystemExit in a task ends `run_forever`. The threads that wait for other tasks still need the loop.
            with contextlib.suppress(BaseException):
                self.loop.run_forever()
        if self._closed:
            self.loop.close()

    def _end_after_threads(self) -> None:
        if self._thread.is_alive():  # not in a forked child
            asyncio.run_coroutine_threadsafe(self._end(), self.loop)

    async def _end(self) -> None:
        """End the thread when no other one is at work."""
        while any(map(self._is_at_work, threading.enumerate())):
            await asyncio.sleep(_POLL_INTERVAL)
        if not self._background.open_sessions:
            await self.close()
        self._stop()

    def _is_at_work(self, thread: threading.Thread) -> bool:
        # Not the loop of a second copy of this module, after a reload: each would wait for the other's end.
        return not thread.daemon and thread is not threading.main_thread() and thread.name != _THREAD_NAME

    async def close(self) -> None:
        """Close the managers, and cancel the remaining tasks."""
        managers = [manager for manager in self._background.managers if not manager.closed]
        await asyncio.gather(*(manager.aclose() for manager in managers), return_exceptions=True)
        for manager in managers:
            manager._start_anew()  # noqa: SLF001
        await self.loop.shutdown_asyncgens()  # closes the default manager
        tasks = asyncio.all_tasks() - {asyncio.current_task(), self._driver}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_TIMEOUT)
        self._closed = True

    def stop(self) -> None:
        """End the thread and the loop."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop)
            self._thread.join(_CANCEL_TIMEOUT)
        else:
            self.loop.close()

    def _stop(self) -> None:
        self._stopping = True
        self.loop.stop()


class _Executor(ThreadPoolExecutor):
    """Runs a call in the calling thread when the interpreter is ending and takes no work for other threads any more."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:
            future: Future[T] = Future()
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:  # noqa: BLE001  (it belongs to the caller)
                future.set_exception(error)
            return future


def _is_done(future: Future[T], timeout: float) -> bool:
    """Wait, and return whether the coroutine behind the future has ended. Unlike `done`, also after a cancellation."""
    return bool(concurrent.futures.wait([future], timeout=timeout).done)


background: Final = Background()

"""The asynchronous and the blocking interface behind one set of verbs, so that one suite runs over both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import session_reuse
from session_reuse import blocking


class AsyncFace:
    """`session_reuse`, driven step by step on its own loop."""

    def __init__(self, url: str, **config: Any) -> None:
        self._runner = asyncio.Runner()
        self._manager = session_reuse.SessionManager(url, registry=None, **config)
        self.session_class = session_reuse.BrowserSession

    @contextmanager
    def visit(self, *names: Any, **options: Any) -> Iterator[Any]:
        """Enter and leave a session."""
        visit = session_reuse.reusable_session(*names, manager=self._manager, **options)
        session = self.run(visit.__aenter__())
        try:
            yield session
        except BaseException as error:
            self.run(visit.__aexit__(type(error), error, error.__traceback__))
            raise
        else:
            self.run(visit.__aexit__(None, None, None))

    def run(self, work: Any) -> Any:
        """Wait for what the interface returns."""
        return self._runner.run(_wait_for(work))

    def manager(self, verb: str, *arguments: Any) -> Any:
        """Ask the manager."""
        return self.run(getattr(self._manager, verb)(*arguments))

    def close(self) -> None:
        """Close the manager and the loop."""
        self.run(self._manager.aclose())
        self._runner.close()


class BlockingFace:
    """`session_reuse.blocking`, without a driver."""

    def __init__(self, url: str, **config: Any) -> None:
        self._manager = blocking.SessionManager(url, registry=None, **config)
        self.session_class = blocking.BrowserSession

    @contextmanager
    def visit(self, *names: Any, **options: Any) -> Iterator[Any]:
        """Enter and leave a session."""
        with blocking.reusable_session(*names, manager=self._manager, **options) as session:
            yield session

    def run(self, work: Any) -> Any:
        """Return what the interface has returned."""
        return work

    def manager(self, verb: str, *arguments: Any) -> Any:
        """Ask the manager."""
        return getattr(self._manager, verb)(*arguments)

    def close(self) -> None:
        """Close the manager."""
        self._manager.close()


async def _wait_for(work: Any) -> Any:
    return await work

"""Hooks on the objects of a client: before a method, and at an event. None outlives us on an object that does."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Undo = Callable[[], None]


def before(target: Any, name: str, hook: Callable[..., Any]) -> Undo:
    """Run a hook before each call of a method of this object, which stays as it is else. Return what removes the hook.

    The hook is called with the arguments of the method, and awaited if it is asynchronous, as the method then is. A synchronous
    one may be a generator: it goes on after its `yield` with the result, and is closed there if the method raises.
    Several may hook the same object: the last that removes its hook removes the wrapper too.
    """
    method = vars(target).get(name)
    if not hasattr(method, "session_reuse_hooks"):
        method = _hooked(getattr(target, name), is_async=inspect.iscoroutinefunction(hook))
        method.session_reuse_replaced = vars(target).get(name)
        setattr(target, name, method)
    method.session_reuse_hooks.append(hook)

    def undo() -> None:
        if hook in method.session_reuse_hooks:
            method.session_reuse_hooks.remove(hook)
        if method.session_reuse_hooks or vars(target).get(name) is not method:
            return  # others hook it too, or have wrapped ours, which does nothing any more
        delattr(target, name)
        if method.session_reuse_replaced is not None:
            setattr(target, name, method.session_reuse_replaced)

    return undo


def _hooked(original: Callable[..., Any], *, is_async: bool) -> Any:
    hooks: list[Callable[..., Any]] = []

    async def asynchronous(*args: Any, **options: Any) -> Any:
        for each in tuple(hooks):
            await each(*args, **options)
        return await original(*args, **options)

    def synchronous(*args: Any, **options: Any) -> Any:
        with contextlib.ExitStack() as stack:
            around = [found for each in tuple(hooks) if inspect.isgenerator(found := each(*args, **options))]
            for each in around:
                stack.callback(each.close)
                next(each)
            result = original(*args, **options)
            for each in around:
                with contextlib.suppress(StopIteration):
                    each.send(result)
        return result

    method: Any = asynchronous if is_async else synchronous
    method.session_reuse_hooks = hooks
    return method


def listen(target: Any, event: str, handler: Callable[[Any], None]) -> Undo:
    """Call a handler for each event of one of Playwright's objects. Return what ends that."""

    def listener(subject: object) -> None:  # a function of its own: Playwright keeps its wrapper on it
        handler(subject)

    def undo() -> None:
        with contextlib.suppress(RuntimeError):  # of the event loop: the synchronous Playwright was stopped
            target.remove_listener(event, listener)

    target.on(event, listener)
    return undo


def run_all(undo: list[Undo]) -> None:
    """Remove what was added, once."""
    while undo:
        undo.pop()()

"""`persist_session` under other decorators, in frameworks, and where it is used in a wrong way."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from session_reuse import (
    BrowserSession,
    ConfigurationError,
    LifecycleError,
    SessionManager,
    blocking,
    injected,
    persist_session,
    reusable_session,
)
from session_reuse.testing import MemoryStore, memory_manager
from tests.unit import framework_agents


@pytest.fixture
async def memory() -> AsyncIterator[SessionManager]:
    """A manager that keeps sessions in memory."""
    async with memory_manager() as manager:
        yield manager


@pytest.fixture
def blocking_memory() -> Iterator[blocking.SessionManager]:
    """The same for synchronous code."""
    with blocking.SessionManager(MemoryStore(), registry=None) as manager:
        yield manager


async def test_callers_and_frameworks_do_not_see_the_session(memory: SessionManager) -> None:
    """The signature, the annotations and positional arguments are those of the function without its session."""

    @persist_session("{site}/{account}", manager=memory)
    async def visit(site: str, session: BrowserSession, account: str, page: int = 1) -> str:
        return f"{session.fingerprint} {site} {account} {page}"

    assert list(inspect.signature(visit).parameters) == ["site", "account", "page"]
    assert inspect.get_annotations(visit) == {"site": str, "account": str, "page": int, "return": str}
    assert await visit("shop", "alice", page=2) == "shop/alice shop alice 2"


async def test_a_session_passed_by_a_caller_is_refused(memory: SessionManager) -> None:
    """It was replaced in silence. None and `injected()` are what an old default stands for."""

    @persist_session("shop/{account}", manager=memory)
    async def visit(account: str, *, session: BrowserSession = injected()) -> bool:
        return isinstance(session, BrowserSession)

    assert await visit("alice", session=None)
    with pytest.raises(ConfigurationError, match="__wrapped__"):
        await visit("alice", session=BrowserSession("other"))


async def test_an_injected_session_that_nobody_passes_says_so() -> None:
    """The default is no session: without the decorator, its first use names the decorator."""

    async def visit(*, session: BrowserSession = injected()) -> str:
        return session.fingerprint

    with pytest.raises(LifecycleError, match="persist_session"):
        await visit()


@pytest.mark.parametrize("kind", ["asynchronous", "plain"])
def test_fastapi_serves_a_decorated_endpoint(kind: str, blocking_memory: blocking.SessionManager) -> None:
    """The session is no query parameter. String annotations of the endpoint's module are understood."""
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    application = FastAPI()
    if kind == "plain":
        endpoint = persist_session("shop/{account}", manager=blocking_memory)(framework_agents.plain_endpoint)
        application.get("/{account}")(endpoint)
    else:
        application.get("/{account}")(
            persist_session("shop/{account}", manager=memory_manager())(framework_agents.endpoint)
        )
    reply = TestClient(application).get("/alice", params={"amount": 2})
    assert reply.json() == {"session": "shop/alice", "amount": 2}
    assert [each["name"] for each in application.openapi()["paths"]["/{account}"]["get"]["parameters"]] == [
        "account",
        "amount",
    ]


def test_typer_runs_a_decorated_command(blocking_memory: blocking.SessionManager) -> None:
    """The session is no option of the command line."""
    from typer import Typer
    from typer.testing import CliRunner

    application = Typer()
    application.command()(persist_session("shop/{account}", manager=blocking_memory)(framework_agents.command))
    done = CliRunner().invoke(application, ["alice", "--amount", "2"])
    assert done.output == "shop/alice 2\n", done.exception


async def test_pydantic_checks_the_arguments_of_a_decorated_function(memory: SessionManager) -> None:
    """`validate_call` converts what callers pass and leaves the session alone."""
    from pydantic import ValidationError, validate_call

    decorate = persist_session("shop/{account}", manager=memory)
    call = validate_call(decorate(framework_agents.endpoint))
    assert await call("alice", amount="2") == {"session": "shop/alice", "amount": 2}
    with pytest.raises(ValidationError):
        await call("alice", amount="many")


@pytest.mark.parametrize("kind", ["coroutine", "generator", "asyncgen", "session"])
def test_the_decorator_without_parentheses_says_what_to_write(kind: str) -> None:
    """At the function, not in its first call."""

    async def coroutine(account: str) -> None: ...
    def generator(account: str) -> Iterator[str]:
        yield account

    async def asyncgen(account: str) -> AsyncIterator[str]:
        yield account

    def session(account: str, *, browser: BrowserSession = injected()) -> None: ...

    function: Any = {each.__name__: each for each in (coroutine, generator, asyncgen, session)}[kind]
    with pytest.raises(ConfigurationError, match=r"write @persist_session\(.*\) over .*" + kind):
        persist_session(function)


@pytest.mark.parametrize("arguments", [("alice",), (), ("alice", 2)])
def test_a_plain_function_without_parentheses_says_so_in_its_first_call(arguments: tuple[Any, ...]) -> None:
    """Until then it could be a function that gives names."""

    @persist_session
    def plain(account: str = "") -> str:
        return account

    with pytest.raises(ConfigurationError, match=r"write @persist_session\(.*\) over .*plain"):
        plain(*arguments)


def test_a_class_is_no_function_to_decorate() -> None:
    """It became a function, whose calls made an object after the session was entered and left."""
    with pytest.raises(ConfigurationError, match="Job is a class: write it over the method"):

        @persist_session("shop.example/alice")
        class Job: ...


async def test_objects_with_an_async_call_run_inside_the_session(memory: SessionManager) -> None:
    """Their body was run after the session was left."""

    class Job:
        async def __call__(self, account: str, *, session: BrowserSession = injected()) -> str:
            session.data["ran"] = True
            return session.fingerprint

    job = persist_session("shop/{account}", manager=memory)(Job())
    assert await job("alice") == "shop/alice"
    restored = await memory.restore("shop/alice")
    assert restored is not None
    assert restored.data == {"ran": True}


async def test_partials_and_bound_methods_run_inside_the_session(memory: SessionManager) -> None:
    """A template reaches what a partial has bound by keyword."""

    class Agent:
        async def visit(self, site: str, account: str, *, session: BrowserSession = injected()) -> str:
            return session.fingerprint

    decorate = persist_session("{site}/{account}", manager=memory)
    assert await decorate(Agent().visit)("shop", "alice") == "shop/alice"
    assert await decorate(functools.partial(Agent().visit, account="bob"))("shop") == "shop/bob"


def passes_on(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of someone else's, such as a retry. Returns the coroutine or the generator of the function."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def test_a_plain_function_that_returns_a_coroutine_is_refused(blocking_memory: blocking.SessionManager) -> None:
    """Its body would run after the session was saved: what it changes would be lost in silence."""
    ran = []

    @persist_session("shop/{account}", manager=blocking_memory)
    @passes_on
    async def visit(account: str) -> None:
        ran.append(account)

    with pytest.raises(ConfigurationError, match="next to it, below other decorators"):
        visit("alice")
    assert not ran


@pytest.mark.parametrize("decorator", [contextlib.contextmanager, passes_on])
def test_a_generator_below_another_decorator_is_refused(
    decorator: Any, blocking_memory: blocking.SessionManager
) -> None:
    """Its body too would run after the session was saved."""

    @persist_session("shop/{account}", manager=blocking_memory)
    @decorator
    def visit(account: str) -> Iterator[str]:
        yield account

    with pytest.raises(ConfigurationError, match="use reusable_session inside"):
        visit("alice")


def test_a_generator_that_a_decorator_runs_to_its_end_is_inside(blocking_memory: blocking.SessionManager) -> None:
    """A decorator that returns a list has run the whole body."""

    @persist_session("shop/{account}", manager=blocking_memory)
    @lambda function: functools.wraps(function)(lambda *args, **kwargs: list(function(*args, **kwargs)))
    def visit(account: str, *, session: BrowserSession = injected()) -> Iterator[str]:
        session.data["visited"] = account
        yield account

    assert visit("alice") == ["alice"]
    assert blocking_memory.restore("shop/alice").data == {"visited": "alice"}  # type: ignore[union-attr]


async def test_a_plain_function_in_a_running_loop_names_its_remedy() -> None:
    """The advice is for who wrote the decorator, not for who used the blocking module."""

    @persist_session("shop/{account}")
    def visit(account: str) -> None: ...

    with pytest.raises(LifecycleError, match=r"make it `async def`, or call it by asyncio\.to_thread"):
        visit("alice")


def test_the_manager_of_the_other_kind_is_an_error_when_decorating(blocking_memory: blocking.SessionManager) -> None:
    """Not an AttributeError in the first call."""

    async def visit() -> None: ...
    def plain() -> None: ...

    with pytest.raises(ConfigurationError, match=r"takes a session_reuse\.SessionManager object, not"):
        persist_session("shop/x", manager=blocking_memory)(visit)
    with pytest.raises(ConfigurationError, match=r"takes a session_reuse\.blocking\.SessionManager object, not"):
        persist_session("shop/x", manager=memory_manager())(plain)


def test_an_unknown_option_is_an_error_when_decorating() -> None:
    """Not in the first call."""
    with pytest.raises(TypeError, match="tll"):
        persist_session("shop/x", tll=1)  # type: ignore[call-arg]


async def test_every_call_gets_the_domains_of_an_iterator(memory: SessionManager) -> None:
    """The first call used it up, and the second was refused."""

    @persist_session("shop/x", manager=memory, allowed_domains=iter(["shop.example"]))
    async def domains(*, session: BrowserSession = injected()) -> object:
        return session.allowed_domains

    assert [await domains(), await domains()] == [("shop.example",)] * 2


async def test_a_partial_may_have_bound_the_session(memory: SessionManager) -> None:
    """To None, as a caller may: it is passed all the same."""

    async def visit(account: str, session: BrowserSession | None = None) -> str:
        assert session is not None
        return session.fingerprint

    visits = persist_session("shop/{account}", manager=memory)(functools.partial(visit, session=None))
    assert await visits("alice") == "shop/alice"


async def test_a_session_that_was_left_is_not_used_again(memory: SessionManager) -> None:
    """What is opened or saved after the `with` was captured and dropped in silence. `export` still works."""
    from session_reuse.browsers import playwright, playwright_sync
    from session_reuse.browsers.http_clients import open_httpx
    from session_reuse.browsers.selenium import open_driver

    nobody: Any = None
    async with reusable_session("shop/alice", manager=memory) as session:
        session.data["n"] = 1
    with pytest.raises(LifecycleError, match="'shop/alice' was left before"):
        await session.checkpoint()
    with pytest.raises(LifecycleError, match="was left before"):
        async with playwright.open_context(session, nobody):
            pass
    for opened in (playwright_sync.open_context(session, nobody), open_httpx(session), open_driver(session)):
        with pytest.raises(LifecycleError, match="was left before"), opened:
            pass
    with pytest.raises(LifecycleError, match="was left before"):
        session.bind_capture(lambda: session.storage_state)
    assert BrowserSession.import_(session.export()).data == {"n": 1}


async def test_a_check_at_the_end_may_open_a_client_of_the_session(memory: SessionManager) -> None:
    """The session counts as left when its last save is over."""
    from session_reuse.browsers.http_clients import open_httpx

    def verify(session: BrowserSession) -> bool:
        with open_httpx(session) as client:
            return not client.is_closed

    async with reusable_session("shop/alice", manager=memory, verify=verify) as session:
        session.data["n"] = 1
    assert session.save_outcome == "saved"


async def test_a_forgotten_async_is_named() -> None:
    """`with` and `await` in asynchronous code, `async with` in synchronous code: each error says what to write."""
    with (
        pytest.raises(LifecycleError, match=r"write `async with reusable_session\(.*blocking\.reusable_session"),
        reusable_session("x"),
    ):
        pass
    with pytest.raises(LifecycleError, match=r"`async with reusable_session\(...\)`, not `await"):
        await reusable_session("x")
    with pytest.raises(LifecycleError, match=r"write `async with SessionManager\("), SessionManager():
        pass
    with pytest.raises(LifecycleError, match=r"write `with reusable_session\(.*session_reuse\.reusable_session"):
        async with blocking.reusable_session("x"):
            pass


async def test_a_forgotten_async_is_named_by_adapters() -> None:
    """The same for what opens a client of a session."""
    from session_reuse.browsers import playwright, playwright_sync
    from session_reuse.browsers.http_clients import open_httpx_async

    session: Any = BrowserSession("x")
    with (
        pytest.raises(LifecycleError, match=r"write `async with open_context\(.*playwright_sync\.open_context"),
        playwright.open_context(session, session),
    ):
        pass
    with pytest.raises(LifecycleError, match=r"`async with open_context\(...\)`, not `await"):
        await playwright.open_context(session, session)
    with pytest.raises(LifecycleError, match=r"write `with open_context\("):
        async with playwright_sync.open_context(session, session):
            pass
    with pytest.raises(LifecycleError, match=r"write `async with open_httpx_async\("), open_httpx_async(session):
        pass


async def test_arguments_of_adapters_in_the_wrong_place_are_told() -> None:
    """A context or a browser type in the place of a browser, swapped arguments: the error says what belongs there."""
    from session_reuse.browsers import playwright, playwright_sync
    from session_reuse.browsers.http_clients import open_httpx

    class Browser:
        new_context = None

    class Context:
        add_cookies = None

    session, browser, context = BrowserSession("x"), Browser(), Context()
    wrong: Any
    for wrong in (context, session, "x", None):
        with pytest.raises(ConfigurationError, match=r"open_context takes a browser, such as `await playwright\."):
            async with playwright.open_context(session, wrong):
                pass
    with (
        pytest.raises(ConfigurationError, match=r"attach_context takes a context of a browser, not .*Browser"),
        playwright_sync.attach_context(session, browser),  # type: ignore[arg-type]
    ):
        pass

    class Asynchronous:
        async def new_context(self) -> None: ...
        async def add_cookies(self) -> None: ...

    other: Any = Asynchronous()
    for bound in (playwright_sync.open_context(session, other), playwright_sync.attach_context(session, other)):
        with (
            pytest.raises(ConfigurationError, match=r"asynchronous one: use session_reuse\.browsers\.playwright$"),
            bound,
        ):
            pass
    swapped: Any = browser
    for opened in (playwright_sync.open_context(swapped, session), open_httpx(swapped)):  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=r"must be the session of reusable_session, not .*Browser"), opened:
            pass

"""The package from outside: names, import cost, errors, types."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import session_reuse
from session_reuse import errors

HEAVY = ("redis", "prometheus_client", "structlog", "tenacity", "orjson", "asyncio", "playwright", "typer")


def loaded_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after the statement."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    root = Path(session_reuse.__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    return set(run.stdout.split())


def test_importing_the_package_costs_nothing() -> None:
    """`import session_reuse` loads no Redis client, no metrics, no logging, no event loop."""
    assert loaded_after("import session_reuse").isdisjoint(HEAVY)


def test_the_errors_cost_nothing() -> None:
    """Catching our errors needs none of our dependencies."""
    assert loaded_after("from session_reuse import SessionReuseError").isdisjoint(HEAVY)


@pytest.mark.parametrize("module", ["session_reuse", "session_reuse.blocking", "session_reuse.errors"])
def test_every_name_promised_is_there(module: str) -> None:
    """`__all__` is sorted, complete, and every name in it can be had."""
    found = sys.modules.get(module) or __import__(module, fromlist=["x"])
    assert list(found.__all__) == sorted(found.__all__)
    for name in found.__all__:
        assert getattr(found, name) is not None
    assert set(found.__all__) <= set(dir(found))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A typing mistake is told as such."""
    with pytest.raises(AttributeError, match="reusable_sesion"):
        _ = session_reuse.reusable_sesion  # type: ignore[attr-defined]


def test_the_version_is_the_packages() -> None:
    """`__version__` comes from the metadata."""
    assert session_reuse.__version__.count(".") == 2


def test_the_drawn_tree_of_errors_is_the_real_one() -> None:
    """The module docstring shows every error, and every error is exported."""
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert classes == set(errors.__all__)
    assert errors.__doc__ is not None
    for name in classes:
        assert name in errors.__doc__
        assert issubclass(getattr(errors, name), errors.SessionReuseError)
        assert name in session_reuse.__all__


@pytest.mark.parametrize("name", errors.__all__)
def test_an_error_comes_out_of_another_process(name: str) -> None:
    """Pools of processes and job queues pickle what a job raises. One that cannot be read there breaks the pool."""
    kind = getattr(errors, name)
    error = kind("totp", "one-time codes") if kind is errors.MissingExtraError else kind("what happened")
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied), vars(copied)) == (kind, str(error), vars(error))


FACES = [
    f"session_reuse.browsers.{name}"
    for name in ("browser_use", "cdp", "http_clients", "playwright", "playwright_sync", "probes", "selenium")
]


@pytest.mark.parametrize(
    "module", ["session_reuse", "session_reuse.blocking", "session_reuse.config", "session_reuse.testing", *FACES]
)
def test_public_signatures_are_typed(module: str) -> None:
    """`Any` stands for the agent's own notes, the default of a parameter, and what is passed on to another library only."""
    allowed = {
        "BrowserSession.__init__ data", "BrowserSession.data return", "injected return", "open_context options",
        "open_browser_session options", "state_with_cookie fields", "Store.__init__ client",
        *(f"open_{name} client_options" for name in ("httpx", "httpx2", "httpx2_async", "httpx_async")),
    }  # fmt: skip
    found = __import__(module, fromlist=["x"])
    untyped = {
        f"{name} {parameter}"
        for name, function in public_functions(found)
        for parameter, annotation in inspect.get_annotations(inspect.unwrap(function)).items()
        if "Any" in str(annotation) and "Coroutine[Any, Any" not in str(annotation)
    }
    assert untyped <= allowed


def public_functions(module: ModuleType) -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield the functions and the public methods of the classes that a module offers."""
    for name in getattr(module, "__all__", ["Config", "ConfigOptions", "configured_keys", "redacted_url"]):
        value = getattr(module, name)
        for method, each in vars(value).items() if inspect.isclass(value) else [("", value)]:
            function = getattr(each, "fget", each)
            if inspect.isfunction(function) and (method == "__init__" or not method.startswith("_")):
                yield f"{name}.{method}".rstrip("."), function


def test_the_package_is_marked_as_typed() -> None:
    """Type checkers read our annotations."""
    assert Path(session_reuse.__file__).with_name("py.typed").exists()

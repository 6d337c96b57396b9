"""What every client test needs: the site, a way to its hosts, a session with a keeper that only remembers."""

from __future__ import annotations

import copy
import gc
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from session_reuse import BrowserSession
from tests.browsers.patience import be_patient, raise_test_limits
from tests.clients.agents import QUIET
from tests.clients.keeper import StubKeeper
from tests.clients.site import Site
from tests.clients.visits import submit_driver, visit_driver

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def running_site() -> Iterator[Site]:
    """Serve the site for all tests, so that a login can be made once."""
    with Site() as running:
        yield running


@pytest.fixture
def site(running_site: Site) -> Site:
    """Return the site without any account that is signed in."""
    running_site.reset()
    return running_site


@pytest.fixture(scope="session")
def login_state(running_site: Site) -> dict[str, Any]:
    """Return the state after a login in a browser. Made once, because it takes a second."""
    from session_reuse.browsers.selenium import open_driver

    session = StubKeeper().enter()
    with open_driver(session, checkpoint_after=None) as driver:
        visit_driver(driver, running_site.url())
        submit_driver(driver)
    return session.storage_state


@pytest.fixture
def logged_in(keeper: StubKeeper, site: Site, login_state: dict[str, Any]) -> StubKeeper:
    """Return the keeper with a stored login that the site knows."""
    keeper.stored = copy.deepcopy(login_state)
    site.sessions[login_state["cookies"][0]["value"]] = "alice"
    return keeper


@pytest.fixture
def keeper() -> StubKeeper:
    """Return a keeper that has stored nothing yet."""
    return StubKeeper()


@pytest.fixture
def session(keeper: StubKeeper) -> BrowserSession:
    """Return a session that found nothing stored."""
    return keeper.enter()


@pytest.fixture(autouse=True)
def localhost_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve `*.localhost` to loopback, as browsers do by themselves and Python leaves to the system."""
    resolve = socket.getaddrinfo

    def loopback(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return resolve("127.0.0.1" if str(name).endswith(".localhost") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", loopback)


@pytest.fixture(scope="session")
def quiet_agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Keep browser-use from phoning home, before it is imported. The environment is for its processes too."""
    quiet = {**QUIET, "BROWSER_USE_CONFIG_DIR": str(tmp_path_factory.mktemp("browser-use"))}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quiet.items():
            patch.setenv(name, value)
        yield quiet


@pytest.fixture
def agent_leftovers(quiet_agents: dict[str, str]) -> Iterator[None]:
    """Ignore the pipes and processes that browser-use leaves to the garbage collector, whenever it comes, and let it come."""
    left = "unclosed transport|unclosed file <_io.FileIO|subprocess [0-9]+ is still running"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", left, ResourceWarning)
        yield
        gc.collect()


@pytest.fixture(autouse=True)
def patient_limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the browser more time than agents do."""
    be_patient(request, monkeypatch)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test of this folder more time than others have."""
    raise_test_limits(items, Path(__file__).parent)

"""What every client test needs: the site, a way to its hosts, a session with a keeper that only remembers."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from session_reuse.session import BrowserSession
from tests.clients.agents import QUIET
from tests.clients.keeper import StubKeeper
from tests.clients.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.fixture
def keeper() -> StubKeeper:
    return StubKeeper()


@pytest.fixture
def session(keeper: StubKeeper) -> BrowserSession:
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
    """Keep browser-use from phoning home, before it is imported; the environment is for its processes too."""
    quiet = {**QUIET, "BROWSER_USE_CONFIG_DIR": str(tmp_path_factory.mktemp("browser-use"))}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quiet.items():
            patch.setenv(name, value)
        yield quiet

"""The local sites and the browsers of these tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from tests.browsers.patience import be_impatient, be_patient, raise_test_limits
from tests.browsers.sites import Sites, serve_sites
from tests.browsers.visits import LAUNCH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from playwright.async_api import Browser, Playwright


@pytest.fixture(scope="session")
def sites() -> Iterator[Sites]:
    """The local sites, for all tests."""
    with serve_sites() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def playwright() -> AsyncIterator[Playwright]:
    """One driver for a module."""
    async with async_playwright() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(playwright: Playwright) -> AsyncIterator[Browser]:
    """One browser for a module, for tests to which it does not matter that others were there before."""
    launched = await playwright.chromium.launch(**LAUNCH)
    yield launched
    await launched.close()


@pytest_asyncio.fixture(loop_scope="module")
async def launch(playwright: Playwright) -> AsyncIterator[Callable[..., Awaitable[Browser]]]:
    """Launch its own browser process, closed at the end of the test."""
    launched: list[Browser] = []

    async def launch(**options: Any) -> Browser:
        launched.append(await playwright.chromium.launch(**{**LAUNCH, **options}))
        return launched[-1]

    yield launch
    for each in launched:
        await each.close()


@pytest.fixture(autouse=True)
def patient_limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the browser more time than agents do."""
    be_patient(request, monkeypatch)


@pytest.fixture
def default_limits(patient_limits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a page that never answers no more time than agents do."""
    be_impatient(monkeypatch)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test of this folder more time than others have."""
    raise_test_limits(items, Path(__file__).parent)

"""Fixtures for all tests: real servers for each test run, managers that are always closed, nothing of the machine's own settings."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings
from prometheus_client import CollectorRegistry

from session_reuse import SessionManager
from session_reuse._telemetry import store_health
from tests.harness.chromium import use_light_chromium
from tests.harness.servers import RedisServer

KEPT = frozenset(
    {
        "CI", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "PLAYWRIGHT_BROWSERS_PATH", "PWD",
        "SESSION_REUSE_CHROMIUM", "SESSION_REUSE_REDIS_SERVER", "SHELL", "TEMP", "TERM", "TMP", "TMPDIR", "TZ", "USER",
    }
)  # fmt: skip
PATIENT_BUDGETS = {
    "SESSION_REUSE_CONNECT_TIMEOUT": "5",
    "SESSION_REUSE_ATTEMPT_TIMEOUT": "5",
    "SESSION_REUSE_RESTORE_TIMEOUT": "15",
    "SESSION_REUSE_SAVE_TIMEOUT": "15",
}
"""A busy machine may stop a test or its server for longer than the default budgets, which are 0.15 to 2 s.

Tests marked `alone` run with the default ones.
"""
SLOW_FOLDERS = {"agents", "browsers", "clients", "examples", "exits", "logins", "sharing", "simulation"}
"""Their files take 10 to 60 s each, those of other folders up to 10 s."""
KEPT_PREFIXES = ("CHAOS_", "COV", "HYPOTHESIS_", "PYTEST_", "SIMULATION_")


def forget_the_machine() -> None:
    """Leave only those environment variables that the tests count on.

    A variable of a machine changes what Python, pip, a terminal or a client does (PYTHONDONTWRITEBYTECODE, PIP_*,
    FORCE_COLOR, HTTPS_PROXY): a test that passes with it would fail for someone else.
    """
    for name in set(os.environ) - KEPT:
        if not name.startswith(KEPT_PREFIXES):
            del os.environ[name]


def listen_to_interrupts() -> None:
    """Undo `SIG_IGN` for SIGINT: a shell sets it for what it runs in the background, and child processes inherit it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


forget_the_machine()
use_light_chromium()
os.environ.update(PATIENT_BUDGETS)
listen_to_interrupts()
# A busy machine takes longer than 0.2 s for an example now and then, which Hypothesis takes for a failure that comes and goes.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with slow tests first, and the short ones last: then all workers end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, item.path.parent.name not in SLOW_FOLDERS))


@pytest.fixture(autouse=True)
def clean_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings of the machine, and the patient budgets from tests that are about the default ones."""
    kept = {"SESSION_REUSE_CHROMIUM", "SESSION_REUSE_REDIS_SERVER"}
    if request.node.get_closest_marker("alone") is None:
        kept |= PATIENT_BUDGETS.keys()
    for name in list(os.environ):
        if name.startswith("SESSION_REUSE_") and name not in kept:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_known_outages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test hears of its outages, also where an earlier one had the same store away, or has silenced a logger."""
    monkeypatch.setattr(store_health, "_stores", {})
    for name in ("session_reuse", "asyncio"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One real server for all tests that leave it in good health."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """The shared real server, empty."""
    with shared_redis.client() as client:
        client.execute_command("CLIENT", "UNPAUSE")  # a test that has failed may have paused writes for minutes
        client.flushall()
    return shared_redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A real server with an append-only file for this test alone: to be killed, frozen and restarted."""
    with RedisServer(appendonly=True) as server:
        yield server


@pytest.fixture
def registry() -> CollectorRegistry:
    """A metrics registry of this test alone."""
    return CollectorRegistry()


@pytest.fixture
async def manager(redis_server: RedisServer, registry: CollectorRegistry) -> AsyncIterator[SessionManager]:
    """A manager over the shared real server."""
    async with SessionManager(redis_server.url, registry=registry) as manager:
        yield manager

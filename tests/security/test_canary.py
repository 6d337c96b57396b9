"""A canary secret put wherever a secret may be, and looked for wherever people look."""

from __future__ import annotations

import base64
import io
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest

from session_reuse import BrowserSession, SessionManager, reusable_session
from session_reuse.config import Config
from session_reuse.errors import SessionReuseError
from tests.harness.fault_proxy import Fault, FaultProxy
from tests.harness.probes import keeper_of, runtime, waiting_of
from tests.harness.servers import HOST, RedisServer

CANARY = "canary-51c0ffee-secret"
KEY = CANARY.encode().ljust(32, b"!")
STATE = {
    "cookies": [{"name": "sid", "value": CANARY, "domain": "shop.example", "path": "/"}],
    "origins": [
        {
            "origin": "https://shop.example",
            "localStorage": [{"name": "token", "value": CANARY}],
            "sessionStorage": [{"name": "token", "value": CANARY}],
        }
    ],
}


@pytest.fixture(scope="module")
def secret_redis() -> Iterator[RedisServer]:
    """A server whose password is the canary."""
    with RedisServer(password=CANARY, appendonly=True) as server:
        yield server


@pytest.fixture(params=["stdlib", "structlog"])
def logged(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """Everything that is logged at DEBUG, redis-py's and asyncio's words included."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Everything())
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    if request.param == "structlog":
        structlog.configure(
            processors=[structlog.processors.KeyValueRenderer()], logger_factory=lambda *_: _Printer(stream)
        )
    yield stream
    structlog.reset_defaults()
    root.removeHandler(handler)
    root.setLevel(level)


class _Everything(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{super().format(record)} {record.__dict__!r}"


class _Printer:
    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return lambda message, *_: self._stream.write(f"{message}\n")


def shows(text: object) -> bool:
    """Return whether the canary is in there, plain or in base64, hex or percent."""
    haystack = str(text)
    encoded = base64.b64encode(CANARY.encode()).decode().rstrip("=")[:-2]
    return any(form in haystack for form in (CANARY, encoded, CANARY.encode().hex(), KEY.hex()))


def all_of(error: BaseException) -> str:
    """Return an exception as a traceback prints it, causes included, and its attributes."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


async def test_no_secret_is_shown_while_all_goes_wrong(
    secret_redis: RedisServer, registry: CollectorRegistry, logged: io.StringIO, tmp_path: Path
) -> None:
    """Logs at DEBUG, repr, metrics, stats and spool of a life with every kind of trouble hold no canary."""
    shown: list[object] = []
    async with FaultProxy((HOST, secret_redis.port)) as proxy:
        url = f"redis://:{CANARY}@{HOST}:{proxy.port}/0?client_name=agent"
        config = {"registry": registry, "encryption_keys": [KEY], "spool_dir": tmp_path, "close_timeout": 0.1}
        async with SessionManager(url, **config) as manager:
            shown += [manager, manager.config, runtime(manager), runtime(manager).connection]
            for fault in (Fault.OK, Fault.RESET, Fault.OK):
                await proxy.switch(fault)
                shown += await _visits(manager)
            for reply in (b"-NOPERM this user may not " + CANARY.encode(), b"-ERR value " + CANARY.encode()):
                proxy.inject(reply + b"\r\n")
                shown += await _visits(manager)
            await proxy.heal()
            secret_redis.kill()
            shown += await _visits(manager)
            shown += [manager.stats(), waiting_of(manager)]
    secret_redis.start()
    shown += [generate_latest(registry).decode(), logged.getvalue()]
    shown += files_of(tmp_path)
    found = [text for text in map(str, shown) if shows(text)]
    assert logged.getvalue()
    assert not [text[max(0, text.find(CANARY) - 200) : text.find(CANARY) + 60] for text in found]


def files_of(folder: Path) -> list[str]:
    """Return names and contents of all files."""
    return [f"{path} {path.read_bytes()!r}" for path in folder.rglob("*") if path.is_file()]


async def _visits(manager: SessionManager) -> list[object]:
    shown: list[object] = []
    session = None
    try:
        async with reusable_session("shop.example/alice", "agent", manager=manager) as session:
            session.storage_state = {**STATE}
            session.data["note"] = CANARY
            shown += [session, session.problems, keeper_of(session)]
            session.mark_good()
            await session.checkpoint()
    except BaseException as error:  # noqa: BLE001
        shown.append(all_of(error))
    shown.append(session)
    try:
        async with reusable_session("shop.example/bob", manager=manager, strict=True) as session:
            session.data["note"] = CANARY
    except SessionReuseError as error:
        shown.append(all_of(error))
    return shown


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{CANARY}@localhost:port/0", f"redis+sentinel://:{CANARY}@localhost/", f"http://:{CANARY}@localhost",
        f"redis://:{CANARY}@/0", f"redis+cluster://:{CANARY}@localhost:x", f"unix://:{CANARY}@",
    ],
)  # fmt: skip
async def test_an_error_about_a_url_masks_its_password(url: str) -> None:
    """The error about a URL masks what is secret in it."""
    with pytest.raises(SessionReuseError) as caught:
        async with SessionManager(url, registry=None) as manager:
            await manager.restore("shop.example/alice")
            raise SessionReuseError("nothing was wrong with it")
    assert not shows(all_of(caught.value))


@pytest.mark.parametrize("keys", [[CANARY], [CANARY.encode()], CANARY, [KEY, CANARY], lambda: [CANARY]])
async def test_an_error_about_a_key_does_not_hold_it(keys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error about a key does not hold it."""
    with pytest.raises(SessionReuseError) as caught:
        async with SessionManager("redis://localhost", registry=None, encryption_keys=keys):
            pass
    assert not shows(all_of(caught.value))
    monkeypatch.setenv("SESSION_REUSE_ENCRYPTION_KEYS", CANARY)
    with pytest.raises(SessionReuseError) as caught:
        Config.from_env()
    assert not shows(all_of(caught.value))


@pytest.mark.parametrize(
    "broken",
    [
        {"storage_state": {"cookies": [{"name": CANARY}]}}, {"storage_state": {"cookies": CANARY}},
        {"data": {"x": {CANARY}}}, {"data": {"x": {1: CANARY}}}, {"data": {"x": float("nan"), "y": CANARY}},
    ],
)  # fmt: skip
def test_an_error_about_a_state_names_the_place_only(broken: dict[str, Any]) -> None:
    """The error about a state names the place, not the value."""
    with pytest.raises(SessionReuseError) as caught:
        BrowserSession("shop.example/alice", **broken)
    assert not shows(all_of(caught.value))


async def test_a_wrong_password_is_logged_once_as_an_error(
    secret_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong password is one ERROR line, no loop of attempts, and never in the line."""
    url = f"redis://:{CANARY}-wrong@{HOST}:{secret_redis.port}/0"
    with caplog.at_level(logging.DEBUG):
        async with SessionManager(url, registry=None, close_timeout=0.1) as manager:
            for _ in range(20):
                async with reusable_session("shop.example/alice", manager=manager) as session:
                    assert session.degraded
                    session.discard()
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert not shows(caplog.text)
    with secret_redis.client() as client:
        failed = client.info("commandstats").get("cmdstat_auth", {}).get("failed_calls", 0)
    assert failed <= 4

"""Fixtures for the command line: a runner with one store, sessions full of canaries. Must never reach beyond loopback."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from session_reuse import SessionManager, reusable_session
from session_reuse.cli.app import app
from tests.harness.servers import RedisServer

ALICE = "shop.example/alice"
CANARIES = ("canary-cookie", "canary-local", "canary-tab", "canary-data")
STATE = {
    "cookies": [
        {
            "name": "sid", "value": CANARIES[0], "domain": "shop.example", "path": "/", "expires": 4_000_000_000,
            "httpOnly": True, "secure": True, "sameSite": "Lax",
        },
    ],
    "origins": [
        {
            "origin": "https://shop.example",
            "localStorage": [{"name": "token", "value": CANARIES[1]}],
            "sessionStorage": [{"name": "tab", "value": CANARIES[2]}],
        },
    ],
}  # fmt: skip


class Answer:
    """What a command said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        """The one JSON object on standard output."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON objects on standard output, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class CommandLine:
    """Runs commands against one store."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(
        self, *words: str, url: str | None = None, given: str | None = None, **environment: str
    ) -> Answer:  # fmt: skip
        """Run a command to its end. An exception that comes out of it is a bug."""
        settings = {"SESSION_REUSE_URL": url or self.url, "COLUMNS": "200"} | environment
        result = CliRunner().invoke(app, list(words), given, env=settings)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def cli(redis_server: RedisServer) -> CommandLine:
    """The command line on the shared real server, empty."""
    return CommandLine(redis_server.url)


def store(url: str, *fingerprints: str, **config: Any) -> None:
    """Store sessions full of canaries."""

    async def save() -> None:
        async with SessionManager(url, registry=None, **config) as manager:
            for fingerprint in fingerprints:
                async with reusable_session(fingerprint, "agent-1", manager=manager) as session:
                    session.storage_state = json.loads(json.dumps(STATE))
                    session.data = {"note": CANARIES[3]}

    asyncio.run(save())


@pytest.fixture
def alice(redis_server: RedisServer) -> str:
    """A stored session."""
    store(redis_server.url, ALICE)
    return ALICE

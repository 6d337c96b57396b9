"""One-time codes from a secret that is stored sealed, and a login that is made again with one."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
from fakeredis import FakeRedis

from session_reuse import (
    BrowserSession,
    ConfigurationError,
    CorruptStateError,
    Liveness,
    SessionManager,
    blocking,
    reusable_session,
)
from session_reuse.browsers.http_clients import open_httpx_async
from session_reuse.browsers.probes import http_probe
from session_reuse.testing import MemoryStore, memory_manager, state_with_cookie
from tests.cli.conftest import ALICE, CommandLine
from tests.harness.pages import PageHandler, serving
from tests.harness.probes import parts_of
from tests.harness.servers import RedisServer

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
KEYS = [base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2)]


def codes(server: RedisServer, secret: str = SECRET) -> set[str]:
    """Return the codes of this moment and of the next, by the clock of the server."""
    with server.client() as client:
        now, _ = client.time()
    return {pyotp.TOTP(secret).at(now), pyotp.TOTP(secret).at(now + 30)}


async def test_a_session_makes_codes(redis_server: RedisServer) -> None:
    """In both APIs, by the clock of the server, from any usual form of the secret."""
    async with SessionManager(redis_server.url, registry=None, encryption_keys=KEYS[0]) as manager:
        (await parts_of(manager)).clock.wall = lambda: 0.0
        spaced = " ".join(SECRET[at : at + 4].lower() for at in range(0, len(SECRET), 4))
        for secret in (SECRET, spaced, pyotp.TOTP(SECRET).provisioning_uri("alice", "shop")):
            assert await manager.set_totp_secret(ALICE, secret)
            async with reusable_session(ALICE, manager=manager) as session:
                expected = codes(redis_server)
                assert await session.one_time_code() in expected | codes(redis_server)


def test_blocking_code_makes_codes_too(redis_server: RedisServer) -> None:
    """With the same names."""
    with blocking.SessionManager(redis_server.url, registry=None, encryption_keys=KEYS[0]) as manager:
        assert manager.set_totp_secret(ALICE, SECRET)
        with blocking.reusable_session(ALICE, manager=manager) as session:
            expected = codes(redis_server)
            assert session.one_time_code() in expected | codes(redis_server)
        assert manager.set_totp_secret(ALICE, None)
        assert not manager.set_totp_secret(ALICE, None)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "not base32 !",
        "otpauth://hotp/a?secret=JBSWY3DPEHPK3PXP&counter=1",
        "otpauth://totp/a",
        "otpauth://totp/a?secret=JBSWY3DPEHPK3PXP&period=-30",
    ],
)
async def test_a_wrong_secret_is_refused_and_not_shown(wrong: str) -> None:
    """Neither in the message nor in what led to it."""
    async with memory_manager(encryption_keys=KEYS[0]) as manager:
        with pytest.raises(ConfigurationError) as caught:
            await manager.set_totp_secret(ALICE, wrong)
    shown = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__ if not caught.value.__suppress_context__ else ''!r}"
    assert not wrong or wrong not in shown


def test_a_secret_that_is_not_text_is_refused(cli: CommandLine) -> None:
    """Bytes of another encoding get the message for a wrong secret, and no traceback."""
    command = [sys.executable, "-m", "session_reuse", "totp", "set", ALICE, "--url", cli.url]
    environment = os.environ | {"SESSION_REUSE_ENCRYPTION_KEYS": KEYS[0], "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, input=b"\xff\xfe\n", capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr.count(b"\n"), b"must be base32 text" in done.stderr) == (2, 1, True)


async def test_without_keys_no_secret_is_stored() -> None:
    """Nor is a code made, nor for a login that is lent."""
    store = MemoryStore()
    async with memory_manager(store) as manager:
        with pytest.raises(ConfigurationError, match="encryption_keys"):
            await manager.set_totp_secret(ALICE, SECRET)
        async with reusable_session(ALICE, manager=manager) as session:
            with pytest.raises(ConfigurationError, match="encryption_keys"):
                await session.one_time_code()
    assert not FakeRedis(server=store.server).keys("*totp*")
    async with memory_manager(store, encryption_keys=KEYS[0]) as manager:
        async with reusable_session(ALICE, manager=manager) as session:
            with pytest.raises(ConfigurationError, match="no one-time secret"):
                await session.one_time_code()
        async with reusable_session(ALICE, manager=manager, save="never") as session:
            with pytest.raises(ConfigurationError, match="never"):
                await session.one_time_code()


async def test_a_secret_opens_for_its_session_and_its_keys_only() -> None:
    """One that was moved, damaged or sealed with a foreign key is not used."""
    store = MemoryStore()
    client = FakeRedis(server=store.server)
    key = "browser:totp:{{browser:session:{}}}".format
    async with memory_manager(store, encryption_keys=KEYS[0]) as manager:
        await manager.set_totp_secret(ALICE, SECRET)
        sealed = client.get(key(ALICE)) or b""
        client.set(key("other"), sealed)
        client.set(key("damaged"), sealed[:-1] + bytes([sealed[-1] ^ 1]))
        for name in ("other", "damaged"):
            async with reusable_session(name, manager=manager) as session:
                with pytest.raises(CorruptStateError, match=name):
                    await session.one_time_code()
    async with (
        memory_manager(store, encryption_keys=KEYS[1]) as manager,
        reusable_session(ALICE, manager=manager) as session,
    ):
        with pytest.raises(CorruptStateError, match=ALICE):
            await session.one_time_code()


def test_the_secret_stays_inside(
    cli: CommandLine, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No command prints it, no log names it, no value holds it in plain, and the end of the session leaves it."""
    monkeypatch.setenv("SESSION_REUSE_ENCRYPTION_KEYS", KEYS[0])
    caplog.set_level(logging.DEBUG)
    asyncio.run(log_in(redis_server.url))
    answers = [
        cli("totp", "set", ALICE, given=f"{SECRET}\n"),
        cli("totp", "code", ALICE, "--json"),
        cli("totp", "code", ALICE),
    ]
    assert answers[1].json["code"] in codes(redis_server) | {answers[2].out.strip()}
    words = [("ls",), ("status",), ("show", ALICE, "--reveal"), ("export", ALICE, "-o", "-"), ("totp", "set", ALICE)]
    answers += [cli(*each) for each in words]
    assert cli("evict", ALICE).code == 0
    assert cli("totp", "code", ALICE).code == 0
    with redis_server.client() as client:
        values = b"".join(client.dump(key) or b"" for key in client.scan_iter())
    assert SECRET.encode() not in values
    assert not any(SECRET in each.out + each.err for each in answers)
    assert SECRET not in caplog.text
    assert [cli("totp", "rm", ALICE).code for _ in range(2)] == [0, 1]
    assert [cli("totp", action, ALICE).code for action in ("code", "rm")] == [1, 1]  # "not there", for all commands


async def log_in(url: str) -> None:
    """Store a session."""
    async with SessionManager(url, registry=None) as manager, reusable_session(ALICE, manager=manager) as session:
        session.storage_state = state_with_cookie()


def test_a_rotation_seals_the_secrets_too(cli: CommandLine, redis_server: RedisServer) -> None:
    """Afterwards the old key may go. A secret without a session is not forgotten."""
    old, both, new = KEYS[0], f"{KEYS[1]},{KEYS[0]}", KEYS[1]
    assert cli("totp", "set", ALICE, given=SECRET, SESSION_REUSE_ENCRYPTION_KEYS=old).code == 0
    assert cli("totp", "code", ALICE, SESSION_REUSE_ENCRYPTION_KEYS=new).code == 4
    assert cli("rotate", "--json", SESSION_REUSE_ENCRYPTION_KEYS=new).json["unreadable"] == 1
    assert cli("rotate", "--dry-run", "--json", SESSION_REUSE_ENCRYPTION_KEYS=both).json["rotated"] == 1
    shown = cli("rotate", "--dry-run", SESSION_REUSE_ENCRYPTION_KEYS=both).out
    assert shown == "0 sessions and 1 secret of one-time codes: 1 rotated (dry run)\n"
    assert cli("rotate", "--json", SESSION_REUSE_ENCRYPTION_KEYS=both).json["rotated"] == 1
    assert cli("rotate", "--json", SESSION_REUSE_ENCRYPTION_KEYS=both).json["current"] == 1
    assert cli("totp", "code", ALICE, SESSION_REUSE_ENCRYPTION_KEYS=new).code == 0


class Site(PageHandler):
    """An account behind a one-time code. Each code is taken once."""

    used: set[str]
    logins: list[str]

    def respond(self) -> None:
        """Answer."""
        path, asked = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        code = "".join(asked.get("code", []))
        if path == "/login" and pyotp.TOTP(SECRET).verify(code, valid_window=1) and code not in self.used:
            self.used.add(code)
            self.logins.append(f"login-{len(self.logins) + 1}")
            self.answer("<p>welcome</p>", headers={"Set-Cookie": f"sid={self.logins[-1]}; HttpOnly; Path=/"})
        elif self.logins and f"sid={self.logins[-1]}" in self.headers.get("Cookie", ""):
            self.answer("<p>Hello Alice</p>")
        else:
            self.answer("<p>Log in</p>")


@pytest.fixture
def site() -> Iterator[str]:
    """The site."""
    Site.used, Site.logins = set(), []
    with serving(Site) as port:
        yield f"http://127.0.0.1:{port}"


async def test_a_dead_login_is_made_again_with_a_code(site: str, redis_server: RedisServer) -> None:
    """The site logs the agent out. The next probe logs in with a code, and the next agent is logged in."""

    async def relogin(session: BrowserSession) -> bool:
        code = await session.one_time_code()
        async with open_httpx_async(session) as client:
            return "welcome" in (await client.get(f"{site}/login", params={"code": code})).text

    async with SessionManager(redis_server.url, registry=None, encryption_keys=KEYS[0]) as manager:
        await manager.set_totp_secret(ALICE, SECRET)
        async with reusable_session(ALICE, manager=manager) as session:
            session.storage_state = state_with_cookie(domain="127.0.0.1", value="ended by the site")
        probe = http_probe(site, text="Hello")
        assert await manager.keep_alive(probe, relogin=relogin, once=True) == {Liveness.LIVE: 1}
        assert await manager.keep_alive(probe, relogin=relogin, every=1e-6, once=True) == {Liveness.LIVE: 1}
        async with reusable_session(ALICE, manager=manager) as session, open_httpx_async(session) as client:
            assert "Hello Alice" in (await client.get(site)).text
    assert Site.logins == ["login-1"]

"""What a command tells people: the remedy in their words, and no text of a library's programmers."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from session_reuse.browsers import _chromium_process
from tests.cli.conftest import ALICE, CommandLine, store
from tests.harness.pages import PageHandler, serving
from tests.harness.servers import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.servers import RedisServer

KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2)]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("export", ALICE, "-o", "x", "--format", "foo"), "'foo' is none of session-reuse, playwright, "),
        (("mcp-config", ALICE, "--for", "foo"), "'foo' is none of playwright, chrome-devtools, agent-browser"),
        (("pool", "list"), "'list' is none of add, rm, ls"),
        (("totp", "foo", ALICE), "'foo' is none of set, rm, code"),
        (("top", "--limit", "x"), "'x' is not a whole number"),
        (("stats", "--soon", "x"), "'x' is not a number"),
        (("run", ALICE, "--wait", "5", "--", "true"), "--wait needs --exclusive or --pool"),
        (("mcp-config",), "give a FINGERPRINT, or a --pool"),
        (("copy", ALICE, ALICE), "name another target"),
        (("cleanup", "--once", "--configure-notifications"), "leave --once or --configure-notifications out"),
        (("login", "127.0.0.1:8000", ALICE), "page '127.0.0.1:8000': must begin with http:// or https://"),
        (("keep", "--url", "redis://me:secret@h", "--expect-text", "x"), "write --store redis://... for the store"),
        (("keep", "--url", "https://a.b/{account}", "--expect-text", "x", "--once"), "name its logins with --pattern"),
        (("sshow", ALICE), "No such command 'sshow'. Did you mean 'show'?"),
    ],
)
def test_a_wrong_argument_is_told_in_plain_words(cli: CommandLine, words: tuple[str, ...], told: str) -> None:
    """The value, and what it may be."""
    answer = cli(*words)
    assert answer.code == 2
    text = " ".join(answer.err.split())
    assert told in text
    assert "Value error" not in text
    assert "Input should" not in text
    assert "secret@" not in text


def test_a_variable_that_is_not_known_is_told_without_a_line_of_our_code(redis_server: RedisServer) -> None:
    """One line, with the name that was meant."""
    environment = {**os.environ, "SESSION_REUSE_URL": redis_server.url, "SESSION_REUSE_TLL": "3"}
    command = [sys.executable, "-m", "session_reuse.cli", "ls"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True)
    (line,) = [line for line in done.stderr.splitlines() if "TLL" in line]
    assert line.startswith("warning: ")
    assert "SESSION_REUSE_TTL" in line
    assert ".py" not in done.stderr


def test_a_browser_that_cannot_be_shown_is_told_as_by_login(monkeypatch: pytest.MonkeyPatch, cli: CommandLine) -> None:
    """Before a browser starts, with the way over another machine."""
    monkeypatch.setattr(_chromium_process, "has_display", lambda: False)
    answer = cli("run", ALICE, "--headed", "--", sys.executable)
    assert (answer.code, "--cdp-url" in json.loads(answer.err)["message"]) == (2, True)


def test_an_empty_answer_says_why(cli: CommandLine, alice: str) -> None:
    """Nothing at all would look like a fault."""
    assert "no pool has a member: add some with session-reuse pool add" in cli("pool", "ls").err
    assert "pool 'a' has no members" in cli("pool", "ls", "a").err
    assert "no use of 'nope' is noted\n" in cli("history", "nope", SESSION_REUSE_AUDIT="1").err
    unused = f"http://127.0.0.1:{free_port()}"
    answer = cli("keep", "--url", unused, "--expect-text", "x", "--once", "--pattern", "nothing*")
    assert "nothing was due" in answer.err
    assert alice


@pytest.mark.parametrize("status", [None, 503])
def test_a_probe_that_found_nothing_out_names_the_page_and_the_reason(
    cli: CommandLine, alice: str, status: int | None
) -> None:
    """Else nobody knows whether the site, the page or the name was wrong. The query is left out: it may hold a secret."""

    class Away(PageHandler):
        def respond(self) -> None:
            self.answer(status=status or 200)

    with serving(Away) as port:
        site = f"http://127.0.0.1:{free_port() if status is None else port}"
        told = cli("keep", "--url", f"{site}/{{account}}?token=1", "--expect-text", "x", "--once", "--pattern", "*").err
    reason = "cannot be reached: ConnectError" if status is None else "answered 503"
    assert f"{site}/alice {reason}" in told
    assert "token" not in told
    assert alice


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"cookies": [\n', "the file is JSON that is cut off or damaged at line 2"),
        ("shop\tTRUE\n", "line 1 does not have 7 fields"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(cli: CommandLine, tmp_path: Path, content: str, told: str) -> None:
    """With the place."""
    file = tmp_path / "session.json"
    file.write_text(content)
    answer = cli("import", str(file), ALICE)
    assert answer.code == 4
    assert str(file) in answer.err
    assert told in answer.err


def test_an_array_of_cookies_is_called_one(cli: CommandLine, tmp_path: Path) -> None:
    """It is no storage_state of Playwright."""
    file = tmp_path / "cookies.json"
    file.write_text(json.dumps([{"name": "sid", "value": "1", "domain": "shop.example", "path": "/"}]))
    assert cli("import", str(file), ALICE, "--json").json["format"] == "cookies"


def test_a_session_that_cannot_be_opened_says_what_to_do(cli: CommandLine, redis_server: RedisServer) -> None:
    """Plain ones can be sealed, and a key that is missing has a name."""
    store(redis_server.url, ALICE)
    plain = cli("show", ALICE, SESSION_REUSE_ENCRYPTION_KEYS=KEYS[0])
    assert (plain.code, "session-reuse rotate --from-plain" in plain.err) == (4, True)
    store(redis_server.url, "b", encryption_keys=KEYS[1])
    sealed = cli("show", "b", SESSION_REUSE_ENCRYPTION_KEYS=KEYS[0])
    assert "which SESSION_REUSE_ENCRYPTION_KEYS lacks" in sealed.err
    rotated = cli("rotate", SESSION_REUSE_ENCRYPTION_KEYS=KEYS[0]).err
    assert "unreadable: b, sealed with key " in rotated


def test_a_secret_is_deleted_without_keys(cli: CommandLine, alice: str) -> None:
    """Who has lost the keys may want just that."""
    assert cli("totp", "set", alice, given="JBSWY3DPEHPK3PXP\n", SESSION_REUSE_ENCRYPTION_KEYS=KEYS[0]).code == 0
    assert cli("totp", "code", alice).code == 2
    assert cli("totp", "rm", alice).code == 0


def test_the_options_of_a_use_are_handed_to_run() -> None:
    """What an MCP client starts is limited as the operator wanted it."""
    cli = CommandLine("redis://127.0.0.1:6379/0")
    options = ("--save", "never", "--exclusive", "--allow", "shop.example", "--allow", "*.pay.example")
    (block,) = cli("mcp-config", ALICE, *options).json["mcpServers"].values()
    words = block["args"][: block["args"].index("--")]
    assert words[-8:] == [
        ALICE,
        "--save",
        "never",
        "--exclusive",
        "--allow",
        "shop.example",
        "--allow",
        "*.pay.example",
    ]
    (block,) = cli("mcp-config", "--pool", "shop.example").json["mcpServers"].values()
    assert block["args"][block["args"].index("run") :][:5] == ["run", "--pool", "shop.example", "--", "npx"]
    for wrong in (("--save", "x"), ("--allow", "com")):
        assert cli("mcp-config", ALICE, *wrong).code == 2

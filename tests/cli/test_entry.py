"""The command line as a whole: exit codes, machine-readable errors, the missing extra, terminals."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from session_reuse.cli import entry
from session_reuse.cli.exit_codes import MEANINGS, ExitCode
from session_reuse.cli.output import Output, Table
from tests.cli.conftest import ALICE, CANARIES, CommandLine, store
from tests.harness.servers import RedisServer, free_port

COMMANDS = (
    "doctor", "status", "history", "ls", "show", "stats", "top", "evict", "copy", "export", "import", "pool", "totp", "rotate",
    "cleanup",
)  # fmt: skip
ON_A_STORE = (
    ["ls"], ["show", "x"], ["stats"], ["top", "--once"], ["evict", "x"], ["export", "x", "-o", "-"], ["cleanup", "--once"],
)  # fmt: skip


def test_without_the_extra_one_line_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user without typer reads what to install instead of a traceback."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "typer" else find_spec(name))
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "pip install 'session-reuse[cli]'" in err


def test_arguments_are_taken_without_pydantic() -> None:
    """Typer would import it to convert texts. That takes as long as a third of the rest of the start of `run`."""
    words = ["run", "x", "--allow", "shop.example", "--report", "/dev/stderr", "--", "nothing-there", "--option"]
    program = [sys.executable, "-X", "importtime", "-m", "session_reuse", *words]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 127
    assert "pydantic" not in done.stderr


def test_the_way_to_the_cause_leads_to_the_store_that_failed() -> None:
    """Without its URL, the doctor would check the store of the environment."""
    url = "redis://user:canary-password@127.0.0.1:1/0"
    told = CommandLine("redis://127.0.0.1:2")("ls", "--url", url, "--key-prefix", "prod", "--json")
    assert told.json["message"].endswith("session-reuse doctor --url 'redis://***@127.0.0.1:1/0' --key-prefix prod")
    assert CommandLine(url)("ls", "--json").json["message"].endswith("run: session-reuse doctor")


@pytest.mark.parametrize(("words", "code"), [(("ls", "--limit", "0"), 2), (("ls", "--limit", "x"), 2), (("show",), 2)])
def test_arguments_that_are_no_texts_are_checked(cli: CommandLine, words: tuple[str, ...], code: int) -> None:
    """A number out of its range, a word in place of a number, and a name that is missing."""
    answer = cli(*words)
    assert (answer.code, answer.out) == (code, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_exit_codes(cli: CommandLine, command: str) -> None:
    """Every command documents its options and exit codes."""
    answer = cli(command, "--help")
    assert answer.code == 0
    for option in ("--url", "--key-prefix", "--json", "130"):
        assert option in answer.out


def test_an_error_names_the_address_once(cli: CommandLine) -> None:
    """The eviction's own error names it already."""
    url = f"redis://127.0.0.1:{free_port()}"
    for words in (["evict", "x"], ["ls"]):
        assert cli(*words, url=url).err.count(url) == 1


@pytest.mark.parametrize("content", ["text", Table("table")])
def test_the_end_of_the_reader_is_an_error_of_ours(content: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command hears of it, in a callback too."""

    class Ended(io.StringIO):
        def write(self, text: str) -> int:
            if text:
                raise BrokenPipeError
            return 0

    monkeypatch.setattr("sys.stdout", Ended())
    output, calls = Output(), []
    output.on_broken_pipe = lambda: calls.append("told")
    with pytest.raises(BrokenPipeError):
        output.show(content)
    assert calls == ["told"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_keeps_its_brackets(cli: CommandLine, command: str) -> None:
    """A default in brackets is text, not markup. Arguments have no braces, and a description (not before typer 0.26)."""
    shown = " ".join(cli(command, "--help").out.split())
    assert "[default: SESSION_REUSE_URL, else embedded://]" in shown
    assert "[default: SESSION_REUSE_KEY_PREFIX, else browser]" in shown
    assert "{" not in shown.partition("Exit codes")[0]
    assert "[[" not in shown
    assert "<str>" not in shown
    assert not re.search(r"Arguments: [A-Z]+ (\[|Options)", shown)


def test_the_list_of_commands_is_whole(cli: CommandLine) -> None:
    """Each command has one line in the help, and is there."""
    shown = cli("--help").out
    for command in COMMANDS:
        assert re.search(rf"^  {command} +\S.*\.$", shown, re.MULTILINE), command
    assert cli("no-such-command").code == 2


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        ("--version", {"redis", "rich", "asyncio"}),
        ("--help", {"redis", "rich", "asyncio"}),
        (
            "run a --cdp-url ws://127.0.0.1:1 -- sh",
            {"opentelemetry.sdk", "prometheus_client", "pydantic", "rich", "structlog"},
        ),
    ],
    ids=["version", "help", "run"],
)
def test_what_is_not_needed_is_not_imported(words: str, absent: set[str]) -> None:
    """`--version` and `--help` answer at once. `run` imports while its browser starts, on the same processors."""
    code = (
        "import sys\nfrom session_reuse.cli.entry import main\n"
        f"sys.argv = ['session-reuse', *{words.split()!r}]\ntry: main()\nexcept SystemExit: pass\n"
        f"print('loaded:', sorted({absent!r} & sys.modules.keys()))"
    )
    environment = {**os.environ, "SESSION_REUSE_URL": f"redis://127.0.0.1:{free_port()}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_every_exit_code_has_a_meaning_in_the_help() -> None:
    """The line under each help names all of them."""
    assert set(MEANINGS) == set(ExitCode)


@pytest.mark.parametrize("words", ON_A_STORE, ids=lambda words: words[0])
def test_dead_store_is_exit_code_3_for_people_and_programs(cli: CommandLine, words: list[str]) -> None:
    """No command hangs or shows a traceback when the store is away."""
    url = f"redis://user:canary-password@127.0.0.1:{free_port()}"
    told = cli(*words, url=url)
    assert (told.code, told.out) == (3, "")
    assert "cannot be reached" in told.err
    answer = cli(*words, "--json", url=url)
    assert (answer.code, answer.err) == (3, "")
    assert answer.json["exit_code"] == 3
    assert "canary-password" not in told.err + answer.out


def test_refused_credentials_are_exit_code_3() -> None:
    """A wrong password is said as such."""
    with RedisServer(password="right") as server:
        answer = CommandLine(server.url.replace(":right@", ":wrong@"))("ls", "--json")
    assert (answer.code, answer.json["error"]) == (3, "StoreAuthError")


def test_refused_credentials_end_a_command_over_many_names() -> None:
    """They are no matter of one name: the others are not tried, and the error leads to the cause."""
    with RedisServer(password="right") as server:
        answer = CommandLine(server.url.replace(":right@", ":wrong@"))("evict", "a", "b", "c", "--json")
    assert (answer.code, answer.json["error"]) == (3, "StoreAuthError")
    assert "session-reuse doctor" in answer.json["message"]
    assert "and 2 more" not in answer.json["message"]


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["show"],
        ["ls", "--limit", "0"],
        ["ls", "--url", "nonsense"],
        ["top", "--interval", "0"],
        ["stats", "--soon", "inf"],
        ["stats", "--soon", "nan"],
        ["top", "--once", "--interval", "inf"],
    ],
)
def test_wrong_usage_is_exit_code_2(cli: CommandLine, words: list[str]) -> None:
    """Scripts can tell their own mistakes from the store's trouble."""
    assert cli(*words).code == 2


@pytest.mark.parametrize(
    "words",
    [["nonsense", "--json"], ["show", "--json"], ["ls", "--json", "--limit", "0"], ["--json"], ["stats", "--soon", "inf", "--json"]],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_json_where_json_was_asked_for(cli: CommandLine, words: list[str]) -> None:
    """A program reads one object, whatever is wrong."""
    answer = cli(*words)
    assert (answer.code, answer.err) == (2, "")
    assert answer.json.keys() == {"error", "message", "exit_code"}
    assert (answer.json["exit_code"], bool(answer.json["message"])) == (2, True)


def test_the_end_of_what_is_typed_in_is_json_where_json_was_asked_for(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-D at the prompt for a secret."""

    def ended(_prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("session_reuse.cli.commands.totp.getpass", ended)
    monkeypatch.setattr("session_reuse.cli.commands.totp.sys", SimpleNamespace(stdin=_Terminal()))
    key = "k" * 43 + "="
    told, answer = (cli("totp", "set", ALICE, *json, SESSION_REUSE_ENCRYPTION_KEYS=key) for json in ([], ["--json"]))
    assert (answer.code, answer.json["exit_code"]) == (told.code, told.code) == (1, 1)
    assert answer.json == {"error": "Aborted", "message": "the input has ended", "exit_code": 1}


def test_the_words_of_another_program_do_not_ask_for_json(cli: CommandLine) -> None:
    """What follows `--` belongs to it."""
    answer = cli("run", "--nonsense", "name", "--", "program", "--json")
    assert (answer.code, answer.out) == (2, "")
    assert "No such option: --nonsense" in answer.err


class _Terminal(io.StringIO):
    """Takes what is written to a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.mark.parametrize(
    ("variables", "is_plain"),
    [({}, False), ({"NO_COLOR": "1"}, True), ({"NO_COLOR": ""}, False), ({"TERM": "dumb"}, True)],
)
def test_the_environment_decides_on_colours(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], is_plain: bool
) -> None:
    """A dumb terminal shows escapes as text, and an empty NO_COLOR counts as unset."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in ({"TERM": "xterm"} | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    Output().error("NotThere", "there is no session", 1)
    assert ("\x1b" not in terminal.getvalue()) is is_plain


@pytest.mark.slow
def test_piped_output_is_plain_and_names_are_whole(redis_server: RedisServer) -> None:
    """Without a terminal there are no colours, and a long name is not cut."""
    name = "shop.example/" + "x" * 120
    store(redis_server.url, name)
    command = [sys.executable, "-m", "session_reuse", "ls", "--url", redis_server.url]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"TERM": "xterm-256color"}
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert name in done.stdout


@pytest.mark.parametrize("words", [["ls"], ["show", ALICE], ["status"]])
def test_a_terminal_that_is_not_utf_8_is_written_to(redis_server: RedisServer, alice: str, words: list[str]) -> None:
    """What its encoding lacks, in a name or in our own signs, is escaped."""
    store(redis_server.url, "shop.example/łucja")
    done = subprocess.run(
        [sys.executable, "-m", "session_reuse", *words, "--url", redis_server.url], capture_output=True, check=False,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert alice.encode() in done.stdout


@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ("ls >&-", 0, b""), ("ls --json >&-", 0, b""), ("import - <&-", 4, b"error: "), ("show nobody 2>&-", 1, b""),
        ("ls >/dev/full", 2, b"error: "), ("ls --json >/dev/full", 2, b"error: "), ("--help >/dev/full", 2, b"error: "),
        ("--version >/dev/full", 2, b"error: "), ("mcp-config a >/dev/full", 2, b"error: "), ("ls 2>/dev/full", 0, b""),
        ("show nobody 2>/dev/full", 1, b""), ("run a -- nobody 2>/dev/full", 127, b""),
    ],
)  # fmt: skip
def test_streams_that_are_closed_or_full_cause_no_traceback(
    redis_server: RedisServer, line: str, code: int, error: bytes
) -> None:
    """The exit code is the one of the command, as under service managers that start it without streams."""
    store(redis_server.url, ALICE)
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m session_reuse {line}"], capture_output=True, check=False,
        env=os.environ | {"SESSION_REUSE_URL": redis_server.url, "PYTHONUNBUFFERED": ""},
    )  # fmt: skip
    assert (done.returncode, b"Traceback" in done.stderr) == (code, False), done.stderr
    assert error in done.stderr


def test_piped_export_is_the_session_and_nothing_else(cli: CommandLine, alice: str, tmp_path: Path) -> None:
    """`export -o -` can be piped into another program."""
    assert cli("export", alice, "--format", "playwright", "-o", str(tmp_path / "file")).code == 0
    piped = cli("export", alice, "--format", "playwright", "-o", "-", "--json")
    assert piped.out == (tmp_path / "file").read_text()
    assert CANARIES[0] in piped.out


def test_fingerprints_are_completed(redis_server: RedisServer) -> None:
    """The Tab key knows the stored names."""
    store(redis_server.url, "shop.example/alice", "shop.example/bob", "mail.example/alice")
    done = subprocess.run(
        [sys.executable, "-m", "session_reuse"], capture_output=True, text=True, check=False,
        env=os.environ
        | {
            "_SESSION_REUSE_COMPLETE": "complete_bash", "COMP_WORDS": "session-reuse show shop", "COMP_CWORD": "2",
            "SESSION_REUSE_URL": redis_server.url,
        },
    )  # fmt: skip
    assert done.stdout.split() == ["shop.example/alice", "shop.example/bob"], done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_name_that_a_shell_would_evaluate_is_not_completed(redis_server: RedisServer, shell: str) -> None:
    """Agents choose fingerprints, and zsh evaluates what it is offered: `$(...)` in a name would run at the Tab key."""
    names = ("alice", "$(touch x)", "`id`", "a b", "a;b", 'a"', "a'", "a\\")
    store(redis_server.url, *(f"shop/{name}" for name in names))
    done = subprocess.run(
        [sys.executable, "-m", "session_reuse"], capture_output=True, text=True, check=False,
        env=os.environ
        | {
            "_SESSION_REUSE_COMPLETE": f"complete_{shell}", "COMP_WORDS": "session-reuse show shop", "COMP_CWORD": "2",
            "_TYPER_COMPLETE_ARGS": "session-reuse show shop", "SESSION_REUSE_URL": redis_server.url,
        },
    )  # fmt: skip
    assert ("alice" in done.stdout, done.stdout.count("shop/")) == (True, 1), done


def test_completion_can_be_shown(cli: CommandLine) -> None:
    """Shells can complete our commands."""
    done = subprocess.run(
        [sys.executable, "-m", "session_reuse", "--show-completion", "bash"],
        capture_output=True, text=True, check=False, env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )  # fmt: skip
    assert "_SESSION_REUSE_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [(("",), "1 to 512 bytes"), (("a", "--url", "htp://x"), "htp"), (("a", "--key-prefix", "{"), "key_prefix")],
)
def test_what_no_session_can_have_gets_no_configuration(words: tuple[str, ...], why: str) -> None:
    """The server would never start."""
    answer = CommandLine("redis://127.0.0.1:6379/0")("mcp-config", *words)
    assert (answer.code, answer.out, why in answer.err) == (2, "", True)


def test_a_name_with_a_dash_in_front_is_no_option_of_the_configured_command(cli: CommandLine) -> None:
    """What is printed can be run."""
    (block,) = cli("mcp-config", "--agent-id", "a", "--", "-x").json["mcpServers"].values()
    words = block["args"][block["args"].index("run") :]
    words[words.index("npx") :] = ["nothing-there"]
    answer = cli(*words)
    assert (answer.code, json.loads(answer.err)["fingerprint"]) == (127, "-x")

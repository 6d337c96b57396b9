"""`session-reuse run`: the command has our streams, signals and exit code, and its session is saved however it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import shlex
import signal
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.agents.runs import AGENT, ALICE, LIMIT, ROOT, Runs, agent_of, finished, report_of, staying, stored
from tests.harness.polling import wait_until
from tests.harness.servers import RedisServer, free_port

if TYPE_CHECKING:
    from tests.clients.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.redis]


def test_a_login_is_reused_and_the_command_sees_its_own_streams(runs: Runs, site: Site) -> None:
    """The second run is logged in. Input, output and exit code pass through. The report is one line."""
    assert runs.run("--agent-id", "one", "--", *AGENT, "login", site.url())[0] == 0
    script = f"{shlex.join([*AGENT, 'look', site.url()])}; cat; echo {{port}} {{cdp}} {{ws}}; echo $CDP_URL; exit 5"
    check = ("--check-url", site.url(), "--check-text", "Signed in", "--check-timeout", "30")
    code, out, report = runs.run("--report", "/dev/stderr", *check, "--", "sh", "-c", script, given="typed\n")
    assert code == 5
    seen, typed, filled, variable = out.splitlines()
    assert (seen, typed) == (site.EVERYWHERE, "typed")
    port, http, websocket = filled.split()
    assert (http, websocket.partition("/devtools")[0]) == (f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}")
    assert variable == http
    assert report | {"problems": [], "save_outcome": ""} == {
        "fingerprint": ALICE, "outcome": "reused", "stale": False, "save_outcome": "", "problems": [], "exit_code": 5,
    }  # fmt: skip
    assert site.logins == 1


@pytest.mark.parametrize(("words", "code"), [(("nothing-there",), 127), ((str(ROOT / "README.md"),), 126)])
def test_a_command_that_is_none_ends_as_in_a_shell(runs: Runs, words: tuple[str, ...], code: int) -> None:
    """127 for a command that does not exist, 126 for a file that is no program. The report says so."""
    found, out, report = runs.run("--", *words)
    assert (found, out, report["exit_code"]) == (code, "", code)
    assert words[0] in report["message"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--cdp-url", f"http://127.0.0.1:{free_port()}"), 2, "no browser answers"),
        (("--cdp-url", "ws://127.0.0.1:1/devtools/page/1"), 2, "one page"),
        (("--url", "nonsense://"), 2, "nonsense"),
        (("--allow", "https://shop.example"), 2, "allowed_domains"),
    ],
)
def test_a_wrong_setting_ends_with_2(
    runs: Runs, redis_server: RedisServer, words: tuple[str, ...], code: int, message: str
) -> None:
    """The command is not run, the report names the remedy, and nothing is stored."""
    found, out, report = runs.run(*words, "--", "echo", "ran")
    assert (found, out) == (code, "")
    assert message in report["message"]
    assert not redis_server_has(redis_server)


def test_arguments_that_are_refused_leave_no_browser(runs: Runs) -> None:
    """The browser starts before they are parsed, and ends with the program."""
    with runs.start("--nonsense", "--", "echo", "ran") as process:
        out, err = finished(process)
    assert (process.returncode, out) == (2, "")
    assert "--nonsense" in err


def test_a_full_disk_ends_with_2_and_leaves_nothing(runs: Runs, small_disk: Path) -> None:
    """The command is not run, and the report names what to set."""
    runs.environment["TMPDIR"] = str(small_disk)
    code, out, report = runs.run("--", "echo", "ran")
    assert (code, out) == (2, "")
    assert "is full: set TMPDIR" in report["message"]
    assert list(small_disk.iterdir()) == []


def test_the_command_runs_though_the_store_is_away(runs: Runs) -> None:
    """An outage of Redis is no outage of the agent. The report says what became of the session."""
    code, out, report = runs.run("--url", f"redis://127.0.0.1:{free_port()}/0", "--", "echo", "ran")
    assert (code, out.strip()) == (0, "ran")
    assert (report["outcome"], report["save_outcome"]) == ("unavailable", "lost")


def test_a_save_that_raises_leaves_the_exit_code_to_the_command(runs: Runs, site: Site) -> None:
    """The command has ended, so the report names the error beside what became of the session."""
    runs.environment["SESSION_REUSE_MAX_STATE_BYTES"] = "10"
    code, _, report = runs.run("--", *AGENT, "login", site.url())
    assert (code, report["exit_code"], report["error"]) == (0, 0, "StateTooLargeError")
    assert {"outcome", "save_outcome", "problems"} < report.keys()


def test_a_store_that_dies_during_a_strict_run_leaves_the_exit_code_to_the_command(runs: Runs) -> None:
    """With SESSION_REUSE_STRICT the save raises at the exit, when the command has succeeded."""
    runs.environment["SESSION_REUSE_STRICT"] = "1"
    command = ("sh", "-c", "echo here; read line; exit 5")
    with RedisServer() as server, runs.start("--url", server.url, "--", *command) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        server.kill()
        report = report_of(finished(process, "on\n")[1])
    assert (process.returncode, report["exit_code"]) == (5, 5)
    assert "error" in report


def test_a_strict_run_without_a_store_ends_with_3(runs: Runs) -> None:
    """3 is a store that cannot be used, in `run` as in every command. The command is not run."""
    runs.environment["SESSION_REUSE_STRICT"] = "1"
    code, out, report = runs.run("--url", f"redis://127.0.0.1:{free_port()}/0", "--", "echo", "ran")
    assert (code, out, report["exit_code"]) == (3, "", 3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_handed_on_and_the_session_saved(runs: Runs, site: Site, number: signal.Signals) -> None:
    """The command ends by it, the exit code is that of a shell, and what was done is stored. Twice changes nothing."""
    with staying(runs, site, start_new_session=True) as process:
        process.send_signal(number)
        process.send_signal(number)
        _, err = finished(process)
    assert process.returncode in {128 + number, 1}  # Python's own exit code after SIGINT, handled by asyncio
    assert report_of(err)["save_outcome"] in {"saved", "unchanged"}


def test_ctrl_c_twice_in_a_terminal_reaches_the_command_and_saves(
    runs: Runs, site: Site, redis_server: RedisServer
) -> None:
    """The terminal interrupts the command itself. The second time comes while the session is being saved."""
    ours, theirs = pty.openpty()
    try:
        with runs.start(
            "--", *AGENT, "stay", site.url(), stdin=theirs, start_new_session=True, preexec_fn=_take_terminal
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "done welcome"
            os.write(ours, b"\x03")
            os.write(ours, b"\x03")
            _, err = finished(process)
    finally:
        os.close(ours)
        os.close(theirs)
    assert report_of(err)["save_outcome"] in {"saved", "unchanged"}
    assert stored(redis_server.url)["cookies"]


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_kill_9_of_run_leaves_nothing_and_loses_no_checkpoint(
    runs: Runs, site: Site, redis_server: RedisServer
) -> None:
    """Browser, folder and command go. What was stored by then is reused."""
    with staying(runs, site, start_new_session=True) as process:
        agent = agent_of(runs)
        wait_until(lambda: redis_server_has(redis_server), message="no checkpoint")
        process.kill()
        process.wait(LIMIT)
        wait_until(lambda: not Path(f"/proc/{agent}").exists(), message="the command lives on")
    assert runs.run("--", "true")[2]["outcome"] == "reused"


def redis_server_has(server: RedisServer) -> bool:
    """Return whether anything is stored of the session."""
    with server.client() as client:
        return bool(client.exists(f"browser:session:{ALICE}"))


def test_kill_9_of_the_command_saves_its_session(runs: Runs, site: Site) -> None:
    """137, as in a shell, and a state that is stored."""
    with staying(runs, site, start_new_session=True) as process:
        os.kill(agent_of(runs), signal.SIGKILL)
        _, err = finished(process)
    assert process.returncode == 137
    assert report_of(err)["save_outcome"] in {"saved", "unchanged"}


@pytest.mark.parametrize(("action", "last"), [("close", "done welcome"), ("kill", "went on")])
def test_a_command_that_ends_the_browser_keeps_its_login(runs: Runs, site: Site, action: str, last: str) -> None:
    """What was seen is saved, the report says that the browser was gone, and a command that goes on comes to its end."""
    code, out, report = runs.run("--", *AGENT, action, site.url())
    assert (code, out.splitlines()[-1], report["save_outcome"] in {"saved", "unchanged"}) == (0, last, True)
    assert "browser_gone" in {each["kind"] for each in report["problems"]}


def test_a_command_that_forks_and_leaves_ends_the_run(runs: Runs) -> None:
    """The run ends with the command, not with what it has left in the background, which lives on."""
    code, out, _ = runs.run("--", "sh", "-c", "sleep 60 >/dev/null 2>&1 </dev/null & echo $!")
    assert code == 0
    os.kill(int(out), signal.SIGKILL)  # raises if it is gone


def test_two_runs_at_once_lose_no_change(logged_in_runs: Runs, site: Site, redis_server: RedisServer) -> None:
    """Both began with the same state. Both changes are stored."""
    both = [logged_in_runs.start("--", *AGENT, "set", site.url(), name) for name in ("first", "second")]
    for process in both:
        with process:
            _, err = finished(process)
        assert report_of(err)["outcome"] == "reused"
    (origin,) = stored(redis_server.url)["origins"]
    assert {"first", "second", "token"} <= {item["name"] for item in origin["localStorage"]}


def test_an_exclusive_run_waits_or_ends_with_1(runs: Runs, site: Site) -> None:
    """While one holds the session, another does not run its command."""
    with staying(runs, site, "--exclusive", start_new_session=True):
        code, out, report = runs.run("--exclusive", "--", "echo", "ran")
    assert (code, out, report["error"]) == (1, "", "SessionBusyError")


def test_a_check_that_fails_starts_fresh(logged_in_runs: Runs, site: Site) -> None:
    """A login that the site has ended is not given to the command."""
    site.sessions.clear()
    check = ("--check-url", site.url(), "--check-text", "Signed in", "--check-timeout", "1")
    _, out, report = logged_in_runs.run(*check, "--", *AGENT, "look", site.url())
    assert (out.strip(), report["outcome"]) == (site.LOGGED_OUT, "unverified")

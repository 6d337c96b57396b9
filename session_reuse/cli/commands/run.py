"""`session-reuse run`: any program that takes a DevTools address, in a Chromium with a session in it.

The command has our standard streams, so that it can be the `command` of an MCP client. Its exit code is ours.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from session_reuse.browsers._chromium_process import ChromiumProcess, ProcessGuard
from session_reuse.browsers.chromium import confinement_arguments
from session_reuse.cli.exit_codes import code_of
from session_reuse.cli.options import AgentId, CdpUrl, KeyPrefix, Url, argument, option, require_display, stored_name
from session_reuse.errors import SessionReuseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from session_reuse._browser_session import BrowserSession
    from session_reuse.browsers.cdp import Chromium

_NOT_EXECUTABLE: Final = 126
_NOT_FOUND: Final = 127
_SIGNALLED: Final = 128
_FORWARDED: Final = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
_ADDRESS_VARIABLES: Final = (
    "AGENT_BROWSER_CDP", "BROWSER_REMOTE_DEBUGGING_URL", "BU_CDP_URL", "CDP_ENDPOINT", "CDP_URL", "PLAYWRIGHT_MCP_CDP_ENDPOINT",
    "SESSION_REUSE_CDP_URL",
)  # fmt: skip
_WEBSOCKET_VARIABLES: Final = ("BU_CDP_WS", "SESSION_REUSE_CDP_WS")
_OF_A_TERMINAL: Final = frozenset({signal.SIGINT, signal.SIGQUIT})
"""Signals that a terminal sends to the command itself, when it is in our process group."""


Name = Annotated[str | None, stored_name()]
_COMMAND: Final = "The program. {cdp}, {ws} and {port} in its arguments become the address of the browser."
Command = Annotated[list[str] | None, argument("-- COMMAND", _COMMAND)]
Exclusive = Annotated[
    bool, typer.Option("--exclusive", help="End with 1 while another exclusive agent has the session.")
]
Pool = Annotated[str | None, option("--pool", "NAME", "Use a free member of this pool, in place of FINGERPRINT.")]
Wait = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", help="Wait for a busy exclusive session, or a free member.")
]
Save = Annotated[str, typer.Option("--save", metavar="merge|never", help="never: use the login, and write nothing.")]
Allow = Annotated[
    list[str] | None,
    option("--allow", "DOMAIN", "Lend this host only, and reach no other; may be repeated. *. adds subdomains."),
]
CheckUrl = Annotated[
    str | None, option("--check-url", "PAGE", "Open this page first; start fresh if it does not stay there.")
]
CheckText = Annotated[str | None, option("--check-text", "TEXT", "Start fresh if the page does not show this.")]
CheckTimeout = Annotated[
    float,
    typer.Option("--check-timeout", metavar="SECONDS", min=0.1, max=30, help="Wait so long for the page, 30 at most."),
]
ChromiumArg = Annotated[
    list[str] | None, option("--chromium-arg", "FLAG", "One more flag for Chromium; may be repeated.")
]
Headed = Annotated[bool, typer.Option("--headed", help="Show the browser.")]
Report = Annotated[
    str | None, option("--report", "FILE", "Write the JSON line about the session there, not to standard error.")
]


def run(
    context: typer.Context,
    fingerprint: Name = None,
    command: Command = None,
    agent_id: AgentId = None,
    pool: Pool = None,
    exclusive: Exclusive = False,
    wait: Wait = 0.0,
    save: Save = "merge",
    allow: Allow = None,
    check_url: CheckUrl = None,
    check_text: CheckText = None,
    check_timeout: CheckTimeout = 10.0,
    cdp_url: CdpUrl = None,
    headed: Headed = False,
    chromium_arg: ChromiumArg = None,
    report: Report = None,
    url: Url = None,
    key_prefix: KeyPrefix = None,
) -> None:
    """Run a command with a Chromium that has the session, and save it afterwards.

    The address of the browser is in the variables that the common programs read (PLAYWRIGHT_MCP_CDP_ENDPOINT, AGENT_BROWSER_CDP,
    BU_CDP_URL, CDP_URL, SESSION_REUSE_CDP_URL and more). The exit code is that of the command, 127 if there is none.
    With --pool, leave FINGERPRINT out.
    """
    name, words = _name_and_words(fingerprint, command or [], pool)
    if wait and not exclusive and pool is None:
        raise typer.BadParameter("--wait needs --exclusive or --pool")
    check = _check(check_url, check_text, check_timeout, cdp_url)
    options = {
        "agent_id": agent_id, "pool": pool, "exclusive": exclusive, "wait": wait, "save": save, "allowed_domains": allow,
        "on_busy": "raise" if exclusive or pool is not None else "fresh",
    }  # fmt: skip
    about: dict[str, Any] = {"fingerprint": name} if pool is None else {"pool": pool}
    try:
        _require(words[0])
        if headed and cdp_url is None:
            require_display()
        flags = [*(chromium_arg or []), *confinement_arguments(allow)]
        browser = _launcher(context.obj, flags, headless=not headed) if cdp_url is None else cdp_url
        code = asyncio.run(_run(name, options, (url, key_prefix), browser, check, words, about))
    except NoCommandError as error:
        code = _noted(error, about, error.code)
    except SessionReuseError as error:
        code = _noted(error, about, code_of(error))
    _write({**about, "exit_code": int(code)}, report)
    raise typer.Exit(code)


def _name_and_words(fingerprint: str | None, command: list[str], pool: str | None) -> tuple[str | None, list[str]]:
    if pool is not None:  # the first word of the command stands in the place of the FINGERPRINT
        fingerprint, command = None, [*([fingerprint] if fingerprint is not None else []), *command]
    elif fingerprint is None:
        raise typer.BadParameter("give a FINGERPRINT, or a --pool")
    if not command:
        raise typer.BadParameter("give a command to run: -- COMMAND [ARG]...")
    return fingerprint, command


def _check(url: str | None, text: str | None, timeout: float, cdp_url: str | None) -> dict[str, Any] | None:
    """Return the arguments of `page_shows`, or None without a check."""
    if url is None and text is not None:
        raise typer.BadParameter("--check-text needs --check-url")
    if url is not None and cdp_url is not None:
        raise typer.BadParameter("--check-url needs a browser of its own: leave --cdp-url out")
    return None if url is None else {"url": url, "text": text, "timeout": timeout}


def _launcher(first: ChromiumProcess | None, flags: list[str], *, headless: bool) -> Callable[[], ChromiumProcess]:
    """Return what launches a browser. The first one starts here at the latest: the imports that follow take as long.

    If it is not used, its guard removes it when this process ends.
    """
    launch = partial(ChromiumProcess, arguments=flags, headless=headless)
    started = [first or launch()]
    return lambda: started.pop() if started else launch()


async def _run(
    fingerprint: str | None,
    options: dict[str, Any],
    place: tuple[str | None, str | None],
    browser: str | Callable[[], ChromiumProcess],
    check: dict[str, Any] | None,
    words: list[str],
    about: dict[str, Any],
) -> int:
    """Run the command in the session, and note what became of both."""
    child = _Child()
    from session_reuse._api import reusable_session
    from session_reuse._browser.options import Settings
    from session_reuse._manager import SessionManager
    from session_reuse.browsers.cdp import BoundChromium, attach_cdp, page_shows
    from session_reuse.cli.connection import Place

    verify = None if check is None else page_shows(**check)
    session: BrowserSession | None = None
    code: int | None = None
    try:
        async with (
            SessionManager(**Place(*place).settings) as manager,
            # While the command was not started, nothing was seen. A wrong --cdp-url would store an empty session.
            reusable_session(fingerprint, manager=manager, save_on_error=False, **options) as session,
            attach_cdp(session, browser)
            if isinstance(browser, str)
            else BoundChromium(session, Settings(), browser, verify=verify) as chromium,
        ):
            gc.freeze()  # all modules are imported: none of them is looked at again
            gc.enable()  # see `early_browser`
            code = await child.run([_filled_in(word, chromium) for word in words], _environment(chromium))
    except asyncio.CancelledError:
        code = _SIGNALLED + child.ended_by
    except SessionReuseError as error:
        if code is None:
            raise
        _noted(error, about, code)  # the command has ended, so its exit code counts
    if session is not None:
        saved = await session.settled()  # the manager is closed: what was pending is stored, on disk, or lost by now
        about |= {
            "fingerprint": session.fingerprint,
            "outcome": session.outcome.value,
            "stale": session.stale,
            "save_outcome": saved.value if saved is not None else None,
        }
        about["problems"] = [{"kind": p.kind.value, "where": p.where, "reason": p.reason} for p in session.problems]
    return code


class NoCommandError(Exception):
    """The command cannot be started.

    Attributes:
        code: that a shell would give.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def _noted(error: Exception, about: dict[str, object], code: int) -> int:
    """Note what went wrong, and return the exit code."""
    about |= {"error": type(error).__name__, "message": str(error)}
    return code


def _require(program: str) -> None:
    """Refuse a command that cannot be started, before a browser is started and a session entered."""
    if shutil.which(program) is not None:
        return
    if os.path.exists(program):
        raise NoCommandError(f"{program} is not a program", _NOT_EXECUTABLE)
    raise NoCommandError(f"{program}: there is no such command", _NOT_FOUND)


def _filled_in(word: str, chromium: Chromium) -> str:
    word = word.replace("{cdp}", chromium.cdp_url).replace("{ws}", chromium.websocket_url)
    return word.replace("{port}", str(chromium.port))


def _environment(chromium: Chromium) -> dict[str, str]:
    """Return the environment of the command: the address under every name that common programs read."""
    addresses = dict.fromkeys(_ADDRESS_VARIABLES, chromium.cdp_url)
    websockets = dict.fromkeys(_WEBSOCKET_VARIABLES, chromium.websocket_url)
    return {**os.environ, **addresses, **websockets, "BROWSER_TYPE": "cdp-connect"}


class _Child:
    """The command, and the signals that reach us until the event loop is closed.

    Before it runs, a signal ends us. While it runs, a signal is handed on. After that, the state is being saved, which is
    bounded, and a signal changes nothing.

    Attributes:
        ended_by: the signal that came before the command ran.
    """

    def __init__(self) -> None:
        self.ended_by = 0
        self._process: asyncio.subprocess.Process | None = None
        self._task = asyncio.current_task()
        self._shares_terminal = _is_in_foreground()
        for each in _FORWARDED:
            if signal.getsignal(each) is not signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(each, self._receive, each)

    def _receive(self, number: signal.Signals) -> None:
        if self._process is not None:
            is_told = self._shares_terminal and number in _OF_A_TERMINAL
            if self._process.returncode is None and not is_told:
                with suppress(ProcessLookupError):
                    # asyncio's own method would take the exit code of a command that has just ended, and lose it.
                    os.kill(self._process.pid, number)
        elif self._task is not None:
            self.ended_by = number
            self._task.cancel()

    async def run(self, words: list[str], environment: dict[str, str]) -> int:
        """Run the command to its end and return its exit code, 128 and the signal if one has ended it.

        Raises:
            NoCommandError: it cannot be started.
        """
        guard = ProcessGuard()
        try:
            # Away from a terminal, a group of its own lets the guard end all of it. At one, the terminal's keys are for both.
            group = None if self._shares_terminal else 0
            self._process = await asyncio.create_subprocess_exec(*words, env=environment, process_group=group)
            guard.watch(self._process.pid if self._shares_terminal else -self._process.pid)
            code = await self._process.wait()
        except OSError as error:
            raise NoCommandError(f"{words[0]} cannot be started: {error}", _NOT_EXECUTABLE) from None
        finally:
            guard.dismiss()
        return code if code >= 0 else _SIGNALLED - code


def _is_in_foreground() -> bool:
    """Return whether we are the foreground job of a terminal."""
    try:
        with open("/dev/tty", "rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def _write(about: dict[str, object], report: str | None) -> None:
    line = json.dumps(about, separators=(",", ":")) + "\n"
    try:
        if report is not None:
            Path(report).write_text(line, encoding="utf-8")
        else:
            sys.stderr.write(line)
            sys.stderr.flush()
    except OSError as error:  # the exit code stays the command's
        if report is not None:
            sys.stderr.write(f"{report}: {error.strerror}\n{line}")
        else:  # nobody reads standard error any more
            from session_reuse.cli.output import abandon

            abandon(sys.stderr)

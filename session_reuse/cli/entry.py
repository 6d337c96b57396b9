"""Where `session-reuse` starts. Imports typer only after it has checked that it is installed."""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import NoReturn

from session_reuse.cli.exit_codes import ExitCode


def main() -> NoReturn:
    """Run the command line. Without the extra `cli`, print one line that names it."""
    try:
        _main()
    except KeyboardInterrupt:  # while modules are imported: a command handles its own
        sys.exit(ExitCode.INTERRUPTED)
    except OSError as error:  # the output of what uses no store, as `--help`, on a full disk: a command handles its own
        from session_reuse.cli.output import abandon

        print(f"error: {error}", file=sys.stderr)  # noqa: T201  (no command to print it)
        abandon(sys.stdout)
        sys.exit(ExitCode.USAGE)


def _main() -> NoReturn:
    browser = None
    # Python leaves None in place of a stream that was closed before its start, as by `>&-` or by some service managers.
    sys.stdin, sys.stdout, sys.stderr = (
        open(os.devnull, "r+") if stream is None else stream  # noqa: SIM115  (for the whole process)
        for stream in (sys.stdin, sys.stdout, sys.stderr)
    )
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal or a pipe that is not UTF-8, as with LANG=de_DE
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.argv[1:2] == ["run"] and "--" in sys.argv:
        from session_reuse.cli._early_browser import early_browser

        browser = early_browser(sys.argv[2:])
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # Python's own shows a line of our code
    from importlib.util import find_spec

    from session_reuse.errors import MissingExtraError

    if find_spec("typer") is None:
        print(MissingExtraError("cli", "the command session-reuse"), file=sys.stderr)  # noqa: T201  (no command to print it)
        sys.exit(ExitCode.USAGE)
    from session_reuse.cli.app import app

    app(prog_name="session-reuse", obj=browser)
    raise AssertionError("typer ends the process")

"""The browser of `session-reuse run`, started before typer and the Redis client are imported: both take as long."""

from __future__ import annotations

import gc
import shutil
import sys

from session_reuse.browsers._chromium_process import ChromiumProcess
from session_reuse.errors import AdapterError

_DECIDING = ("--allow", "--cdp-url", "--chromium-arg", "--headed")
"""Options that decide which browser is started. With one of them, it starts once the command line is parsed."""


def early_browser(words: list[str]) -> ChromiumProcess | None:
    """Return the browser of a run with these arguments; None where it has to wait for the parser.

    Its guard removes it if the parser refuses the arguments.
    """
    _hasten_imports()
    options, command = words[: words.index("--")], words[words.index("--") + 1 :]
    if any(word.startswith(_DECIDING) for word in options) or not command or shutil.which(command[0]) is None:
        return None
    try:
        return ChromiumProcess(headless=True)
    except AdapterError:
        return None  # the run raises it again


def _hasten_imports() -> None:
    """Leave out what costs processor time while Chromium starts, and serves nobody: shares of `run`, measured 2026-11-26."""
    gc.disable()  # modules are no garbage: 13 %. `run` enables it before the command starts
    # redis-py imports the SDK of OpenTelemetry where it is installed: 23 %. A process that has not imported it by now has no
    # provider, and the command is a process of its own.
    sys.modules.setdefault("opentelemetry", None)  # type: ignore[arg-type]

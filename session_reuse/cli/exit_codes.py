"""The exit codes of every command: one closed set, with the same meaning in every command.

====  ===========  ==========================================================================================
code  name         meaning
====  ===========  ==========================================================================================
0     OK           done. For `doctor`: nothing has failed (warnings count with `--strict` only)
1     WRONG        something is wrong, or what was asked for is not there
2     USAGE        wrong arguments or settings, a file that cannot be used, an extra that is not installed
3     STORE        the store is down, does not answer in time, or rejects the credentials
4     UNREADABLE   a stored value or a file is damaged, foreign, or sealed with keys that are not configured
130   INTERRUPTED  ended by Ctrl-C, or by the end of its reader, before it was done (`cleanup`, `keep`, `top` end so, and give 0)
====  ===========  ==========================================================================================
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """The result of a command for the shell."""

    OK = 0
    WRONG = 1
    USAGE = 2
    STORE = 3
    UNREADABLE = 4
    INTERRUPTED = 130


MEANINGS: Final = {
    ExitCode.OK: "done",
    ExitCode.WRONG: "something is wrong or not there",
    ExitCode.USAGE: "wrong arguments, settings or files",
    ExitCode.STORE: "the store is down or rejects the credentials",
    ExitCode.UNREADABLE: "a value or file cannot be read",
    ExitCode.INTERRUPTED: "interrupted",
}
EPILOG: Final = "Exit codes: " + ", ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items()) + "."

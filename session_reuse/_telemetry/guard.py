"""Report a failure of instrumentation once, on standard error.

Metrics registries, log processors, filters, handlers and tracers are the application's code. The guard is an
`except Exception` around each call into them, and this report. `KeyboardInterrupt` and other `BaseException`s pass on.
"""

from __future__ import annotations

import sys
from typing import Final

_reported: Final[dict[str, object]] = {}
_LONGEST_DETAIL: Final = 200


def report_once(kind: str, error: Exception, detail: str = "") -> None:
    """Write one line about the first failure of a kind. Later ones are not reported."""
    this = object()
    if _reported.setdefault(kind, this) is not this:  # one step, so that two threads report once
        return
    try:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_DETAIL]
        sys.stderr.write(f"session_reuse: {kind} failed, the agent goes on without: {text}{detail}\n")
    except Exception:  # noqa: BLE001, S110  (standard error is closed, None, or the application's own: nowhere to report)
        pass

"""Lines of the audit in a capped stream: which agent used which session, when, and with which result."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from session_reuse._store.interface import SessionUse
from session_reuse._store.redis.redis_py import Command
from session_reuse._store.redis.scripts import text
from session_reuse.outcome import Outcome, SaveOutcome

LENGTH: Final = 100_000
"""Lines that are kept at least. Redis drops the oldest ones in blocks of about a hundred."""
PAGE: Final = 500


def line_of(key: str, use: SessionUse, age: float) -> Command:
    """Return the command that appends a line about a use that ended `age` seconds ago."""
    fields: dict[str, str | int] = {
        "session": use.fingerprint, "agent": use.agent_id, "outcome": use.outcome.value,
        "save": use.save_outcome.value if use.save_outcome is not None else "",
        "domains": " ".join(use.allowed_domains or ()), "read_only": int(use.read_only), "use": use.use_id,
        "age_ms": round(age * 1000) if age >= 1 else 0,
    }  # fmt: skip
    return ("XADD", key, "MAXLEN", "~", LENGTH, "*", *(part for pair in fields.items() for part in pair))


def page_of(key: str, before: str) -> Command:
    """Return the command that reads a page, the newest line first."""
    return ("XREVRANGE", key, f"({before}" if before else "+", "-", "COUNT", PAGE)


def uses_of(lines: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[SessionUse]:
    """Return the uses in a page. Lines that are not ours are left out."""
    found = []
    for name, parts in lines:
        words = list(map(text, parts))
        fields = dict(zip(words[::2], words[1::2], strict=False))
        with suppress(KeyError, ValueError):
            use = SessionUse(
                fingerprint=fields["session"], agent_id=fields["agent"], outcome=Outcome(fields["outcome"]),
                save_outcome=SaveOutcome(fields["save"]) if fields["save"] else None,
                allowed_domains=tuple(fields["domains"].split()) or None, read_only=fields["read_only"] == "1",
                used_at=(int(text(name).partition("-")[0]) - int(fields["age_ms"])) / 1000, use_id=fields["use"],
            )  # fmt: skip
            found.append(use)
    return found

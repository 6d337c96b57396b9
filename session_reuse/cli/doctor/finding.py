"""The result of one check, and the overall status."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from session_reuse._settings.url import WAY_TO_CAUSE, store_options
from session_reuse.config import Config


class Status(StrEnum):
    """How a check ended, from good to bad."""

    OK = "ok"
    WARN = "warn"
    """It works, with a drawback that the remedy removes."""
    FAIL = "fail"
    """Something does not work until the remedy is applied."""


class OverallStatus(StrEnum):
    """All findings in one word."""

    HEALTHY = "healthy"
    ATTENTION = "attention"
    """It works, with warnings."""
    MISCONFIGURED = "misconfigured"
    """A server answers, but something does not work."""
    DEAD = "dead"
    """No server answers."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what to do about it, in one line each."""

    check: str
    status: Status
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """Return a finding that needs no remedy."""
    return Finding(check, Status.OK, found)


def warn(check: str, found: str, remedy: str) -> Finding:
    """Return a finding about a drawback."""
    return Finding(check, Status.WARN, found, remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    """Return a finding about something that does not work."""
    return Finding(check, Status.FAIL, found, remedy)


def reason_in(error: Exception) -> str:
    """Return the text of an error without the way to the doctor, who is here."""
    return str(error).partition(f". {WAY_TO_CAUSE}")[0]


def own_command(words: str, config: Config) -> str:
    """Return a command of ours that uses the store that was checked: `words` begin with its name."""
    name, _, rest = words.partition(" ")
    return f"session-reuse {name}{store_options(config.url, config.key_prefix)}{rest and ' '}{rest}"


def worst_of_each(findings: Iterable[Finding]) -> list[Finding]:
    """Return one finding per check, the worst: each server of a Cluster is checked."""
    worst: dict[str, Finding] = {}
    for finding in findings:
        known = worst.get(finding.check, finding)
        worst[finding.check] = max(known, finding, key=lambda each: list(Status).index(each.status))
    return list(worst.values())


def has_failed(findings: Iterable[Finding]) -> bool:
    """Return whether something does not work."""
    return any(finding.status is Status.FAIL for finding in findings)


def overall_status(findings: list[Finding], *, is_reachable: bool) -> OverallStatus:
    """Return the status of all findings together."""
    if not is_reachable:
        return OverallStatus.DEAD
    if has_failed(findings):
        return OverallStatus.MISCONFIGURED
    is_warned = any(finding.status is Status.WARN for finding in findings)
    return OverallStatus.ATTENTION if is_warned else OverallStatus.HEALTHY

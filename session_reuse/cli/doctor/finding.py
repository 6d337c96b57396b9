"""What a check has found, and the overall status."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    """It works, with a drawback that the remedy takes away."""
    FAIL = "fail"
    """Something does not work until the remedy is applied."""


class OverallStatus(StrEnum):
    """All findings in one word."""

    HEALTHY = "healthy"
    ATTENTION = "attention"
    """It works; there are warnings."""
    MISCONFIGURED = "misconfigured"
    """The server is there, and something does not work."""
    DEAD = "dead"
    """The server is not there, or does not answer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what to do about it; both in one line."""

    check: str
    status: Status
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """Return a finding that needs nothing done."""
    return Finding(check, Status.OK, found)


def warn(check: str, found: str, remedy: str) -> Finding:
    """Return a finding that something could be better."""
    return Finding(check, Status.WARN, found, remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    """Return a finding that something does not work."""
    return Finding(check, Status.FAIL, found, remedy)


def worst_of_each(findings: Iterable[Finding]) -> list[Finding]:
    """Return one finding per check, the worst: the servers of a Cluster are checked one by one."""
    order = list(Status)
    worst: dict[str, Finding] = {}
    for finding in findings:
        before = worst.get(finding.check)
        if before is None or order.index(finding.status) > order.index(before.status):
            worst[finding.check] = finding
    return list(worst.values())


def overall_status(findings: Iterable[Finding], *, is_reachable: bool) -> OverallStatus:
    """Return what the findings come to."""
    if not is_reachable:
        return OverallStatus.DEAD
    statuses = {finding.status for finding in findings}
    if Status.FAIL in statuses:
        return OverallStatus.MISCONFIGURED
    return OverallStatus.ATTENTION if Status.WARN in statuses else OverallStatus.HEALTHY

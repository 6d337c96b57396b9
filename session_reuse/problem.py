"""What a browser could not restore or capture in full: a closed set of kinds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ProblemKind(StrEnum):
    """Why a state is not restored or captured in full. `docs/reference/problems.md` says what to do about each."""

    COOKIE_EXPIRED = "cookie_expired"
    COOKIE_REJECTED = "cookie_rejected"
    COOKIE_ADJUSTED = "cookie_adjusted"
    COOKIE_SKIPPED = "cookie_skipped"
    COOKIE_NOT_CAPTURED = "cookie_not_captured"
    ORIGIN_UNUSABLE = "origin_unusable"
    ORIGIN_OPEN = "origin_open"
    RESTORED_EARLY = "restored_early"
    RESTORE_FAILED = "restore_failed"
    VERIFY_FAILED = "verify_failed"
    ENVIRONMENT_CHANGED = "environment_changed"
    LOST = "lost"
    TOO_LARGE = "too_large"
    CAPTURE_LIMITED = "capture_limited"
    CAPTURE_FAILED = "capture_failed"
    CHECKPOINT_FAILED = "checkpoint_failed"
    BROWSER_GONE = "browser_gone"
    CONTEXT_LEFT_OPEN = "context_left_open"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be restored or captured in full.

    Attributes:
        kind: what kind of trouble.
        where: a cookie's name and domain, an origin, a setting. Never a value.
        reason: why, for people. Empty where the kind says it all.
    """

    kind: ProblemKind
    where: str
    reason: str = ""

    @property
    def detail(self) -> str:
        """Where and why, in one text."""
        return f"{self.where}: {self.reason}" if self.reason else self.where

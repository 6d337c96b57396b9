"""What a browser could not restore or capture in full: a closed set of kinds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ProblemKind(StrEnum):
    """Why a state is not restored or captured in full."""

    COOKIE_EXPIRED = "cookie_expired"
    """A stored cookie had expired and was not restored. Nothing to do: the site asks for a login if it needs one."""
    COOKIE_REJECTED = "cookie_rejected"
    """The browser, or a rule for cookies, refused a stored cookie. The others are restored. The save leaves the refused one out."""
    COOKIE_ADJUSTED = "cookie_adjusted"
    """A stored cookie was restored with a changed attribute: `SameSite=None` without `Secure` is refused by browsers."""
    COOKIE_SKIPPED = "cookie_skipped"
    """An HTTP client cannot hold a stored cookie. It stays stored."""
    COOKIE_NOT_CAPTURED = "cookie_not_captured"
    """A cookie of an HTTP client cannot be stored: it has no domain, is partitioned, or is one that browsers refuse."""
    ORIGIN_UNUSABLE = "origin_unusable"
    """A stored origin is none of the web, such as an extension's. It stays stored."""
    ORIGIN_OPEN = "origin_open"
    """An origin was open in the attached browser and held something: it was left as it is, and what else is stored stays stored."""
    RESTORED_EARLY = "restored_early"
    """An origin is too large for the init script, so it was filled before the agent started. Raise `preload_limit` to change that."""
    RESTORE_FAILED = "restore_failed"
    """Something that is stored could not be restored, or was not seen in the browser. It stays stored."""
    VERIFY_FAILED = "verify_failed"
    """The `verify` hook raised, which counts as not verified. With an `AdapterError` it could not tell, and the login stays."""
    ENVIRONMENT_CHANGED = "environment_changed"
    """User agent, locale, time zone or viewport differ from those of the recorded browser. See `restore_environment`."""
    LOST = "lost"
    """A value cannot be copied: a key that may not leave the browser, a database over `database_limit`, a cookie that is not UTF-8. What is stored of a database over the limit stays stored."""
    TOO_LARGE = "too_large"
    """A site stores more than fits: the largest values were left out."""
    CAPTURE_LIMITED = "capture_limited"
    """The browser did not answer in time, or something could not be read. What was last seen of it is saved."""
    CAPTURE_FAILED = "capture_failed"
    """Nothing could be read from the browser. The stored state is kept."""
    CHECKPOINT_FAILED = "checkpoint_failed"
    """A save while the agent works has failed. It is tried again, at exit at the latest."""
    BROWSER_GONE = "browser_gone"
    """The browser ended before the last capture. What was last seen is saved."""
    CONTEXT_LEFT_OPEN = "context_left_open"
    """The browser did not close the context in time."""
    OTHER_CONTEXT = "other_context"
    """A client opened a tab in a context of its own, which has nothing of the session. Start it without `--isolated` or `new_context`, so that it uses the browser's default context."""
    NOT_TAKEN = "not_taken"
    """The agent never saw the stored login, and logged in anew: its notes are saved, its login is not. See `mark_good` and `verify`."""


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

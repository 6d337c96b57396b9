"""What the users of all clients may choose."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Self, TypedDict

from session_reuse._browser.plan import PRELOAD_LIMIT
from session_reuse._browser.storage.databases import DATABASE_LIMIT
from session_reuse._settings.values import Seconds, seconds, switch, verify_hook, whole
from session_reuse.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STATE_OF_SESSION: Final = (
    "storage_state comes from the session: store a file once with session-reuse import FILE FINGERPRINT, or assign "
    "session.storage_state"
)


class EngineOptions(TypedDict, total=False):
    """For all clients."""

    checkpoint_after: Seconds | None
    indexed_db: bool
    preload_limit: int
    database_limit: int


class AttachOptions(EngineOptions, total=False):
    """For contexts of Playwright's."""

    opfs: bool
    credentials: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options with their defaults. `session_reuse.browsers.playwright.open_context` explains them."""

    checkpoint_after: float | None = 2.0
    indexed_db: bool = True
    preload_limit: int = PRELOAD_LIMIT
    database_limit: int = DATABASE_LIMIT
    opfs: bool = False
    credentials: bool = False
    restore_environment: bool = False
    verify: Callable[[Any], object] | None = None

    def __post_init__(self) -> None:
        """Check every value: a wrong one would end the checkpoints in the midst of a run, without a word."""
        if self.checkpoint_after is not None:
            object.__setattr__(self, "checkpoint_after", seconds("checkpoint_after", self.checkpoint_after))
        for name in ("preload_limit", "database_limit"):
            whole(name, getattr(self, name), least=0)
        for name in ("indexed_db", "opfs", "credentials", "restore_environment"):
            switch(name, getattr(self, name))
        verify_hook(self.verify, "page")

    @classmethod
    def build(cls, options: Mapping[str, Any]) -> Self:
        """Return the settings for `EngineOptions` or `AttachOptions`."""
        return cls(**options)

    @classmethod
    def taken_from(cls, options: dict[str, Any], verify: Callable[[Any], object] | None) -> Self:
        """Return those that are among the options of a new context, and remove them there.

        Raises:
            ConfigurationError: `storage_state` is among the options. The session brings it.
        """
        if "storage_state" in options:
            raise ConfigurationError(STATE_OF_SESSION)
        ours = {each.name: options.pop(each.name) for each in fields(cls) if each.name in options}
        return cls(**ours, verify=verify)

"""What a caller asks of one `with`, completed by the configuration."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Literal

from session_reuse._browser_session import Verdict
from session_reuse._state.domains import AllowedDomains
from session_reuse._state.record import record
from session_reuse.config import Config
from session_reuse.errors import ConfigurationError

Seconds = float | timedelta
OnBusy = Literal["fresh", "raise"]
Save = Literal["merge", "never"]


@record(kw_only=True)
class SessionOptions:
    """Options of one `with`.

    Attributes:
        exclusive: hold a lease, so that no other exclusive agent uses the session meanwhile.
        wait: seconds to wait for a busy lease.
        on_busy: what to do when it stays busy: start fresh without saving, or raise `SessionBusyError`.
        verify: looks at the restored session, and at the final one before it is saved.
        save_on_error: whether to save when the body raised or was cancelled.
        max_age: retire a session this many seconds after its first save.
        max_uses: retire a session after so many reuses.
        strict: raise trouble of the store.
        allowed_domains: the hosts whose cookies and storage the agent gets and may change; None for all.
        save: whether the agent's changes are merged into what is stored, or nothing is written.
    """

    exclusive: bool = False
    wait: float = 0.0
    on_busy: OnBusy = "fresh"
    verify: Verdict | None = None
    save_on_error: bool = True
    max_age: float | None = None
    max_uses: int | None = None
    strict: bool = False
    allowed_domains: AllowedDomains | None = None
    save: Save = "merge"

    def __post_init__(self) -> None:
        """Check what a type checker cannot."""
        if self.on_busy not in {"fresh", "raise"}:
            raise ConfigurationError(f'on_busy must be "fresh" or "raise", not {self.on_busy!r}')
        if self.save not in {"merge", "never"}:
            raise ConfigurationError(f'save must be "merge" or "never", not {self.save!r}')
        if self.wait < 0:
            raise ConfigurationError("wait must not be negative")
        if not self.exclusive and (self.wait or self.on_busy != "fresh"):
            raise ConfigurationError(f"{'wait' if self.wait else 'on_busy'} means nothing without exclusive=True")
        if self.max_age is not None and self.max_age <= 0:
            raise ConfigurationError("max_age must be a positive number of seconds")
        if self.max_uses is not None and self.max_uses < 1:
            raise ConfigurationError("max_uses must be at least 1")
        if self.verify is not None and not callable(self.verify):
            raise ConfigurationError("verify must be a function of the session")

    @classmethod
    def build(
        cls,
        config: Config,
        *,
        exclusive: bool = False,
        wait: Seconds = 0.0,
        on_busy: OnBusy = "fresh",
        verify: Verdict | None = None,
        save_on_error: bool = True,
        max_age: Seconds | None = None,
        max_uses: int | None = None,
        strict: bool = False,
        allowed_domains: Iterable[str] | None = None,
        save: Save = "merge",
    ) -> SessionOptions:
        """Return the options of a call, completed by the configuration."""
        return cls(
            exclusive=exclusive,
            wait=_seconds(wait),
            on_busy=on_busy,
            verify=verify,
            save_on_error=save_on_error,
            max_age=config.max_age if max_age is None else _seconds(max_age),
            max_uses=config.max_uses if max_uses is None else max_uses,
            strict=strict or config.strict,
            allowed_domains=AllowedDomains(allowed_domains) if allowed_domains is not None else None,
            save=save,
        )


def _seconds(value: Seconds) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)

"""The options of one `with`: what a caller may give, and what they come to with the configuration."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, TypedDict

from session_reuse._browser_session import Verdict
from session_reuse._settings.values import Seconds, seconds, switch, verify_hook, whole
from session_reuse._state.domains import AllowedDomains
from session_reuse._state.record import record
from session_reuse.config import ENVIRONMENT_PREFIX, ENVIRONMENT_SETTINGS, Config, ConfigOptions
from session_reuse.errors import ConfigurationError

OnBusy = Literal["fresh", "raise"]
Save = Literal["merge", "never"]


class SessionOptions(TypedDict, total=False):
    """The options of `reusable_session`, which explains them."""

    exclusive: bool
    wait: Seconds
    on_busy: OnBusy
    verify: Verdict | None
    save_on_error: bool
    max_age: Seconds | None
    max_uses: int | None
    strict: bool
    allowed_domains: Iterable[str] | None
    save: Save
    pool: str | None


def check_options(options: Iterable[str]) -> None:
    """Raise TypeError for an option that does not exist, as Python does for an argument.

    Raises:
        ConfigurationError: it is a setting of the manager.
    """
    for name in options:
        if name in ConfigOptions.__annotations__.keys() - SessionOptions.__annotations__.keys():
            variable = f", or set {ENVIRONMENT_PREFIX}{name.upper()}" if name in ENVIRONMENT_SETTINGS else ""
            raise ConfigurationError(
                f"{name} is a setting of the manager: write manager=SessionManager({name}=...){variable}"
            )
        if name not in SessionOptions.__annotations__:
            raise TypeError(f"reusable_session() got an unexpected keyword argument {name!r}")


@record(kw_only=True)
class ResolvedOptions:
    """`SessionOptions` with their defaults, durations in seconds.

    Attributes:
        used_by: who uses the session, where no agent does.
        counted_later: whether the caller counts the enter, which is not decided before.
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
    pool: str | None = None
    used_by: str = ""
    counted_later: bool = False

    def __post_init__(self) -> None:
        """Check what a type checker cannot."""
        if self.on_busy not in {"fresh", "raise"}:
            raise ConfigurationError(f'on_busy must be "fresh" or "raise", not {self.on_busy!r}')
        if self.save not in {"merge", "never"}:
            raise ConfigurationError(f'save must be "merge" or "never", not {self.save!r}')
        for name in ("exclusive", "save_on_error", "strict"):
            switch(name, getattr(self, name))
        if not self.exclusive and (self.wait or self.on_busy != "fresh"):
            raise ConfigurationError(
                f"{'wait' if self.wait else 'on_busy'} means nothing without exclusive=True or a pool"
            )
        if self.max_uses is not None:
            whole("max_uses", self.max_uses)
        verify_hook(self.verify, "session")

    @classmethod
    def build(cls, config: Config, options: SessionOptions | None = None) -> ResolvedOptions:
        """Return the options of a call. What it leaves open comes from the configuration."""
        given: dict[str, Any] = {**(options or {})}
        for name in ("max_age", "max_uses"):
            if given.get(name) is None:
                given[name] = getattr(config, name)
        if given["max_age"] is not None:
            given["max_age"] = seconds("max_age", given["max_age"])
        given["wait"] = seconds("wait", given.get("wait", 0.0), may_be_zero=True, most=math.inf)
        given.setdefault("strict", config.strict)
        if given.get("allowed_domains") is not None:
            given["allowed_domains"] = AllowedDomains(given["allowed_domains"])
        if given.get("pool") is not None:
            given["exclusive"] = True
        return cls(**given)

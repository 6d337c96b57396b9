"""Settings of one run of the demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_NAMES: Final = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory", "niaj")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Settings of one run.

    Attributes:
        agents: how many work at once, each with its own account.
        cycles: how often each agent starts, works and ends.
        think: seconds that the site takes for each answer.
        outage: seconds that Redis is dead. 0 means no outage.
        fresh: whether to delete the sessions of earlier runs.
        http: whether to use an HTTP client even if there is a browser.
        output: folder for the chart, the site's accounts and the private Redis.
        url: a Redis to use instead of a private one. It is not killed.
        key_prefix: first part of every key.
    """

    agents: int = 4
    cycles: int = 8
    think: float = 0.3
    outage: float = 1.5
    fresh: bool = False
    http: bool = False
    output: Path = Path("demo-output")
    url: str | None = None
    key_prefix: str = "browser"

    @property
    def starts(self) -> int:
        """How many agent starts there will be."""
        return self.agents * self.cycles

    @property
    def accounts(self) -> list[str]:
        """One account name for each agent."""
        return [*_NAMES, *(f"agent{number}" for number in range(len(_NAMES), self.agents))][: self.agents]

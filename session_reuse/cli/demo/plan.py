"""What a demo is to do. Must never be changed while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_NAMES: Final = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory", "niaj")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Settings of one demo.

    Attributes:
        agents: how many work at once, each with an account of its own.
        cycles: how often each starts, works and ends.
        think: seconds the site takes for each answer.
        outage: seconds that Redis is gone; 0 leaves it alone.
        fresh: whether to forget what earlier runs have left.
        http: whether to use an HTTP client although there is a browser.
        output: folder for the chart, the site's accounts and the private Redis.
        url: a Redis to use instead of a private one; it is never killed.
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

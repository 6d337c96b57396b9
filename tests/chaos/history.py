"""What agents of a soak did and saw, and whether it can be true."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from session_reuse import Outcome, SaveOutcome

CONFIRMED = frozenset({SaveOutcome.SAVED, SaveOutcome.MERGED, SaveOutcome.UNCHANGED})


@dataclass
class Ledger:
    """What one agent knows of its own item in one session: only it writes there, one save after the other."""

    confirmed: int = 0
    written: int = 0


@dataclass
class History:
    """All visits of a soak.

    Attributes:
        enters, saves: by outcome.
        quiet: enters outside of faults and their aftermath, by outcome.
        wrong: what cannot be true.
        slowest_enter, slowest_exit: seconds.
    """

    enters: Counter[str] = field(default_factory=Counter)
    saves: Counter[str] = field(default_factory=Counter)
    quiet: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    from_waiting: int = 0
    slowest_enter: float = 0.0
    slowest_exit: float = 0.0
    ledgers: dict[tuple[str, str], Ledger] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)

    def ledger(self, name: str, agent: str) -> Ledger:
        """Return what an agent knows of a session."""
        return self.ledgers.setdefault((name, agent), Ledger())

    def entered(
        self, name: str, agent: str, outcome: Outcome, data: dict[str, Any], took: float, *, quiet: bool, known: bool,
        waiting: bool,
    ) -> None:  # fmt: skip
        """Note an enter and check what was found. `known` is whether a save was confirmed before it began.

        A state that waits for the store in this process (`waiting`) is a branch: it may lack what others have confirmed
        since it was begun, and gets that when it is merged into the store.
        """
        self.enters[outcome.value] += 1
        self.slowest_enter = max(self.slowest_enter, took)
        if quiet and known:
            self.quiet[outcome.value] += 1
        if outcome is Outcome.MISSING and known:
            self.wrong.append(f"{name} is missing, and was confirmed before")
        if outcome is not Outcome.REUSED:
            if data:
                self.wrong.append(f"{name}: a fresh session with data")
            return
        if data.get("owner") != name:
            self.wrong.append(f"{name} shows the state of {data.get('owner')}")
        if waiting:
            self.from_waiting += 1
        else:
            self.check(name, agent, data)

    def check(self, name: str, agent: str, data: dict[str, Any]) -> None:
        """Check an agent's item: never older than confirmed, never one that was not written."""
        ledger, found = self.ledger(name, agent), data.get(agent, 0)
        if not ledger.confirmed <= found <= ledger.written:
            self.wrong.append(f"{name}: {agent} finds {found}; confirmed {ledger.confirmed}, written {ledger.written}")

    def left(self, name: str, agent: str, outcome: SaveOutcome | None, number: int, took: float) -> None:
        """Note an exit."""
        self.saves[str(outcome)] += 1
        self.slowest_exit = max(self.slowest_exit, took)
        if outcome in CONFIRMED:
            self.ledger(name, agent).confirmed = number
            self.known.add(name)

    @property
    def reuse_rate(self) -> float:
        """Share of the quiet enters that reused a session. 1.0 when there were none."""
        total = self.quiet.total()
        return self.quiet[Outcome.REUSED.value] / total if total else 1.0

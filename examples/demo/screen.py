"""Show a run while it happens: a live screen on a terminal, lines elsewhere."""

from __future__ import annotations

from time import monotonic
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from examples.demo.agents import Phase
from examples.demo.plan import Plan
from examples.demo.record import Kind, Start
from examples.demo.scenario import Observer
from examples.demo.theme import COLOURS, FAINT, OUTAGE, WORDS

_BLOCK, _OPEN, _NOW = "■", "·", "◧"
_WIDEST: Final = 40
"""Starts per agent that are shown one by one."""


class Lines(Observer):
    """Prints one line for each event, for logs and pipes."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._began = monotonic()
        self._ended = 0

    def ended(self, start: Start) -> None:
        """Print how an agent start went."""
        self._ended += 1
        account, width = self._plan.accounts[start.agent], len(str(self._plan.starts))
        took = "" if start.seconds_to_ready is None else f" after {start.seconds_to_ready:.2f} s"
        self._print(f"{self._ended:{width}}/{self._plan.starts} {account:6} {WORDS[start.kind]}{took}")

    def redis_killed(self, pid: int) -> None:
        """Print that Redis was killed."""
        self._print(f"Redis (pid {pid}) killed with SIGKILL")

    def redis_back(self, pid: int, seconds: float) -> None:
        """Print that Redis is back."""
        self._print(f"Redis is back (pid {pid}) after {seconds:.1f} s")

    def _print(self, text: str) -> None:
        self._console.print(f"{monotonic() - self._began:6.1f} s  {text}")


class LiveScreen(Observer):
    """Shows every agent, Redis and the progress."""

    def __init__(self, plan: Plan, console: Console, redis_pid: int) -> None:
        self._plan = plan
        self._kinds: list[list[Kind]] = [[] for _ in range(plan.agents)]
        self._phases = [Phase.WAITING] * plan.agents
        self._redis = Text.assemble(("● up", COLOURS[Kind.REUSED]), f"  pid {redis_pid}" if redis_pid else "")
        self._killed_at: float | None = None
        self._killed_pid = 0
        self._progress = Progress(
            BarColumn(None, style=FAINT, complete_style=COLOURS[Kind.REUSED], finished_style=COLOURS[Kind.REUSED]),
            MofNCompleteColumn(), "starts", TimeElapsedColumn(), console=console, expand=True,
        )  # fmt: skip
        self._bar = self._progress.add_task("", total=plan.starts)
        self._live = Live(self, console=console, refresh_per_second=8)

    def __enter__(self) -> Self:
        """Start the live screen."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and keep the last picture on the terminal."""
        self._live.stop()

    def moved(self, start: Start, phase: Phase) -> None:
        """Show the activity of an agent."""
        self._phases[start.agent] = phase

    def ended(self, start: Start) -> None:
        """Show how an agent start went."""
        self._kinds[start.agent].append(start.kind)
        self._progress.advance(self._bar)

    def redis_killed(self, pid: int) -> None:
        """Show that Redis was killed."""
        self._killed_at, self._killed_pid = monotonic(), pid

    def redis_back(self, pid: int, seconds: float) -> None:
        """Show that Redis is back."""
        self._killed_at = None
        self._redis = Text.assemble(("● up again", COLOURS[Kind.REUSED]), f"  pid {pid}, dead for {seconds:.1f} s")

    def __rich__(self) -> RenderableType:
        """Return the current picture."""
        return Group(self._agents(), Text(), self._redis_state(), Text(), self._progress, _legend())

    def _agents(self) -> Table:
        made = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        for account, kinds, phase in zip(self._plan.accounts, self._kinds, self._phases, strict=True):
            made.add_row(
                Text(account, style="bold"), self._blocks(kinds, phase), Text(phase.value, style=_style(phase))
            )
        return made

    def _blocks(self, kinds: list[Kind], phase: Phase) -> Text:
        text = Text()
        for kind in kinds[-_WIDEST:]:
            text.append(f"{_BLOCK} ", style=COLOURS[kind])
        left = self._plan.cycles - len(kinds)
        if left > 0 and phase is not Phase.WAITING:
            text.append(f"{_NOW} ", style=_style(phase))
            left -= 1
        text.append(f"{_OPEN} " * min(left, max(0, _WIDEST - len(kinds))), style=FAINT)
        return text

    def _redis_state(self) -> Text:
        state = self._redis
        if self._killed_at is not None:
            dead_for = monotonic() - self._killed_at
            state = Text(f"✖ pid {self._killed_pid} killed with SIGKILL {dead_for:.1f} s ago", style=f"bold {OUTAGE}")
        return Text.assemble(("Redis  ", "bold"), state)


def _style(phase: Phase) -> str:
    if phase is Phase.LOGGING_IN:
        return COLOURS[Kind.LOGIN]
    return COLOURS[Kind.REUSED] if phase is Phase.WORKING else FAINT


def _legend() -> Text:
    text = Text()
    for kind in (Kind.REUSED, Kind.LOGIN, Kind.DEGRADED):
        text.append(f"{_BLOCK} ", style=COLOURS[kind]).append(f"{WORDS[kind]}   ", style=FAINT)
    return text

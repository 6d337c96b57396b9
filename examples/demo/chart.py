"""Draw a run as a chart: a timeline of the starts beside their durations."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from examples.demo.plan import Plan
from examples.demo.record import Kind, Run
from examples.demo.theme import COLOURS, FAINT, INK, OUTAGE, WORDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN: Final = (Kind.REUSED, Kind.LOGIN, Kind.DEGRADED, Kind.FAILED)
_BAR: Final = 0.62


def draw(run: Run, plan: Plan, path: Path) -> None:
    """Write the chart of a run as PNG."""
    figure = Figure(figsize=(12.5, max(4.6, 2.6 + 0.5 * plan.agents)), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    layout: dict[str, Any] = {"width_ratios": [3.1, 1], "left": 0.07, "right": 0.975, "top": 0.76, "bottom": 0.2}
    left, right = figure.subplots(1, 2, gridspec_kw={**layout, "wspace": 0.16})
    _timeline(left, run, plan)
    _bars(right, run)
    figure.text(0.07, 0.925, _headline(run), fontsize=16, fontweight="bold", color=INK)
    figure.text(0.07, 0.855, _subtitle(run, plan), fontsize=10.5, color=FAINT)
    figure.savefig(path)


def _headline(run: Run) -> str:
    text = f"{run.count(Kind.REUSED)} of {len(run.starts)} agent starts came back logged in"
    return f"{text}, though Redis was killed" if run.killed_at is not None else text


def _subtitle(run: Run, plan: Plan) -> str:
    parts = [f"{plan.agents} agents, {plan.cycles} starts each, {run.agent_name}"]
    if run.kept:
        parts.append(f"{run.recovered} of {run.kept} saves of the outage recovered")
    parts.append(f"slowest enter {run.slowest_enter * 1000:.0f} ms")
    return "  ·  ".join(parts)


def _timeline(axes: Axes, run: Run, plan: Plan) -> None:
    if run.killed_at is not None:
        end = run.back_at if run.back_at is not None else max(start.ended for start in run.starts)
        axes.axvspan(run.killed_at, end, color=OUTAGE, alpha=0.13, linewidth=0)
        axes.text((run.killed_at + end) / 2, -0.62, "Redis dead", color=OUTAGE, ha="center", va="bottom", fontsize=9.5)
    for start in run.starts:
        colour, ready = COLOURS[start.kind], start.ready if start.ready is not None else start.ended
        row: dict[str, Any] = {"y": start.agent, "height": _BAR, "linewidth": 0}
        axes.barh(left=start.began, width=start.ended - start.began, color=colour, alpha=0.32, **row)
        axes.barh(left=start.began, width=ready - start.began, color=colour, **row)
    axes.set_ylim(plan.agents - 0.4, -0.68)
    axes.set_xlim(0, max((start.ended for start in run.starts), default=1.0) * 1.01)
    axes.set_yticks(range(plan.agents), plan.accounts)
    axes.set_xlabel("seconds since the demo began", color=FAINT, fontsize=9.5)
    _plain(axes, "left")
    axes.tick_params(axis="y", length=0, labelsize=10.5, labelcolor=INK)
    _legend(axes, run)


def _legend(axes: Axes, run: Run) -> None:
    from matplotlib.patches import Patch

    marks: list[Any] = [Patch(color=COLOURS[kind], label=WORDS[kind]) for kind in _SHOWN if run.count(kind)]
    marks.append(Patch(color=FAINT, alpha=0.4, label="pale: at work, logged in"))
    style: dict[str, Any] = {
        "frameon": False,
        "fontsize": 9.5,
        "handlelength": 1,
        "handleheight": 1,
        "columnspacing": 1.6,
    }
    axes.legend(handles=marks, loc="upper left", bbox_to_anchor=(-0.01, -0.16), ncols=len(marks), **style)


def _bars(axes: Axes, run: Run) -> None:
    groups = (("logging in", Kind.LOGIN, run.login_median), ("reused", Kind.REUSED, run.reuse_median))
    jitter = random.Random(1)
    for position, (_, kind, middle) in enumerate(groups):
        values = run.seconds(Kind.LOGIN, Kind.DEGRADED) if kind is Kind.LOGIN else run.seconds(kind)
        axes.bar(position, middle or 0.0, width=_BAR, color=COLOURS[kind], alpha=0.85, linewidth=0)
        places = [position + jitter.uniform(-0.2, 0.2) for _ in values]
        axes.scatter(places, values, s=13, color="white", edgecolor=INK, linewidth=0.6, zorder=3)
        if middle is not None:
            axes.text(position, 0.02, f"{middle:.2f} s", ha="center", va="bottom", color="white", fontweight="bold")
    axes.set_xticks([0, 1], [name for name, _, _ in groups])
    axes.tick_params(axis="x", length=0, labelsize=10.5, labelcolor=INK)
    ratio = f": {run.ratio:.1f}x faster" if run.ratio is not None else ""
    axes.set_title(f"seconds to the page{ratio}", fontsize=10.5, color=INK, loc="left")
    axes.set_ylim(bottom=0)
    _plain(axes, "bottom")


def _plain(axes: Axes, gone: str) -> None:
    for side in ("top", "right", gone):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#d5dbe1")
    axes.tick_params(colors=FAINT, labelsize=9.5)

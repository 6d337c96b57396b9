"""Leaves out what a failing history does not need: steps, then parts of bodies, then pauses."""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.history import History, Step
from tests.simulation.world import Result, World


def shrunk(history: History, ignored: frozenset[str] = frozenset()) -> Result:
    """Return the shortest history found that breaks the same promise."""
    best = World(history, ignored).run()
    if best.violation is None:
        return best
    kind = best.violation.kind

    def fails(candidate: History) -> bool:
        nonlocal best
        result = World(candidate, ignored).run()
        if result.violation is None or result.violation.kind != kind:
            return False
        best = result
        return True

    smaller = True
    while smaller:
        smaller = _fewer_steps(best.history, fails) or _smaller_steps(best.history, fails)
    return best


def _fewer_steps(history: History, fails) -> bool:  # type: ignore[no-untyped-def]
    numbers = [step.number for step in history.steps]
    size = max(1, len(numbers) // 2)
    while size:
        for at in range(0, len(numbers), size):
            if fails(history.without(set(numbers[at : at + size]))):
                return True
        size //= 2
    return False


def _smaller_steps(history: History, fails) -> bool:  # type: ignore[no-untyped-def]
    for position, step in enumerate(history.steps):
        for smaller in _variants(step):
            steps = (*history.steps[:position], smaller, *history.steps[position + 1 :])
            if fails(replace(history, steps=steps)):
                return True
    for name in list(history.config):
        if name not in {"ttl", "lease_ttl"}:
            config = {key: value for key, value in history.config.items() if key != name}
            if fails(replace(history, config=config)):
                return True
    for position, plan in enumerate(history.processes):
        for change in ({"skew": 0.0}, {"far": 0.0}, {"spool": False}):
            simpler = replace(plan, **change)  # type: ignore[arg-type]
            processes = (*history.processes[:position], simpler, *history.processes[position + 1 :])
            if simpler != plan and fails(replace(history, processes=processes)):
                return True
    return False


_GOES_WITH = {"exclusive": {"exclusive", "wait", "on_busy"}}


def _variants(step: Step) -> list[Step]:
    arguments, body = step.arguments, step.arguments.get("body", ())
    found = [replace(step, arguments={**arguments, "body": (*body[:at], *body[at + 1 :])}) for at in range(len(body))]
    found += [
        replace(
            step, arguments={key: value for key, value in arguments.items() if key not in _GOES_WITH.get(name, {name})}
        )
        for name in (
            "strike",
            "strict",
            "max_uses",
            "verify",
            "wait",
            "on_busy",
            "save_on_error",
            "exclusive",
            "allowed_domains",
            "save",
        )
        if name in arguments
    ]
    if step.after > 0.001:
        found += (
            [replace(step, after=0.0), replace(step, after=round(step.after, 1))]
            if step.after != round(step.after, 1)
            else [replace(step, after=0.0)]
        )
    return found

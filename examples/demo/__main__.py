"""Run the demo: `scripts/demo`, or `python -m examples.demo` from a clone."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from rich.console import Console

from examples.demo.agents import Agent, open_agent
from examples.demo.chart import draw
from examples.demo.plan import Plan
from examples.demo.private_redis import PrivateRedis
from examples.demo.record import Run
from examples.demo.record import as_json as run_as_json
from examples.demo.report import report
from examples.demo.scenario import Observer, Scenario
from examples.demo.screen import Lines, LiveScreen
from examples.demo.site import Site
from session_reuse import SessionManager
from session_reuse.config import redacted_url
from session_reuse.errors import SessionReuseError

_CHART: Final = "demo.png"
_INTERRUPTED: Final = 130
_DESCRIPTION: Final = "Agents log in once and come back logged in, also after their Redis was killed."


def plan_from(arguments: list[str] | None = None) -> tuple[Plan, bool]:
    """Return the plan in the command line, and whether the result is printed as JSON."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=_DESCRIPTION)
    defaults = Plan()
    add = parser.add_argument
    add("--agents", type=int, default=defaults.agents, help="agents that work at once, each with its own account")
    add("--cycles", type=int, default=defaults.cycles, help="how often each agent starts, works and ends")
    add("--think", type=float, default=defaults.think, help="seconds that the site takes for each answer")
    add("--outage", type=float, default=None, help="seconds that Redis is dead in the middle, 0 for no outage")
    add("--fresh", action="store_true", help="delete the sessions of earlier runs first")
    add("--http", action="store_true", help="use an HTTP client even if there is a browser")
    add("--output", type=Path, default=defaults.output, help="folder for the chart, the site and the private Redis")
    add("--url", help="use this Redis, and do not kill it")
    add("--key-prefix", help="first part of every key")
    add("--json", action="store_true", help="print JSON and nothing else")
    given = parser.parse_args(arguments)
    if not (1 <= given.agents <= 50 and given.cycles >= 1 and given.think >= 0 and (given.outage or 0) >= 0):
        parser.error("--agents takes 1 to 50, --cycles 1 or more, --think and --outage 0 or more")
    outage = 0.0 if given.url else defaults.outage if given.outage is None else given.outage
    plan = Plan(
        agents=given.agents, cycles=given.cycles, think=given.think, outage=outage, fresh=given.fresh,
        http=given.http, output=given.output.absolute(), url=given.url,
        key_prefix=given.key_prefix or ("session-reuse-demo" if given.url else defaults.key_prefix),
    )  # fmt: skip
    return plan, given.json


def main() -> int:
    """Run the demo and return the exit code."""
    plan, as_json = plan_from()
    logging.getLogger("session_reuse").addHandler(logging.NullHandler())  # the screen shows the outage already
    errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        result, chart = asyncio.run(_demo(plan, as_json=as_json, note=lambda text: errors.print(text, style="dim")))
    except (KeyboardInterrupt, asyncio.CancelledError):
        errors.print("interrupted: everything that the demo started has ended")
        return _INTERRUPTED
    except (SessionReuseError, OSError) as error:
        errors.print(f"error: {error}", style="red")
        return 1
    if as_json:
        print(json.dumps(run_as_json(result) | {"chart": chart}))
    return 0 if result.is_good else 1


async def _demo(plan: Plan, *, as_json: bool, note: Callable[[str], None]) -> tuple[Run, str]:
    plan.output.mkdir(parents=True, exist_ok=True)
    console = Console(quiet=as_json, highlight=False, markup=False, soft_wrap=True)
    is_cancelled = _handle_cancellation()
    try:
        result = await _performed(plan, console, note)
    except BaseException:
        if is_cancelled():
            raise asyncio.CancelledError from None
        raise
    console.print()
    console.print(report(result))
    chart = plan.output / _CHART
    draw(result, plan, chart)
    console.print(f"\nchart: {chart}")
    if result.is_good and not result.found:
        console.print("Run it again: the agents will come back logged in from the start.")
    return result, str(chart)


async def _performed(plan: Plan, console: Console, note: Callable[[str], None]) -> Run:
    """Start everything, run the scenario, and end everything in the reverse order."""
    async with AsyncExitStack() as stack:
        redis = None if plan.url else stack.enter_context(PrivateRedis(plan.output / "redis"))
        site = stack.enter_context(Site(plan.think, plan.output / "site.json"))
        agent = await stack.enter_async_context(open_agent(site.url, http=plan.http, note=note))
        url = redis.url if redis else plan.url
        manager = await stack.enter_async_context(SessionManager(url, key_prefix=plan.key_prefix, registry=None))
        found = await _found(manager, plan, agent)
        _introduce(console, plan, agent, redis, found)
        observer = stack.enter_context(_observer(plan, console, redis))
        return await Scenario(plan, manager, agent, redis, observer).run(found)


def _handle_cancellation() -> Callable[[], bool]:
    """Cancel this task at SIGTERM as at Ctrl-C; return a function that returns whether that has happened.

    Ctrl-C reaches the driver of Playwright as well, which ends at once. So errors that follow it are not logged.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def is_cancelled() -> bool:
        return task.cancelling() > 0

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        if not is_cancelled():
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    return is_cancelled


async def _found(manager: SessionManager, plan: Plan, agent: Agent) -> int:
    """Return how many of the accounts have a session. With `--fresh`, delete these sessions and return 0."""
    accounts = {agent.fingerprint(account) for account in plan.accounts}
    there = {summary.fingerprint async for summary in manager.sessions() if summary.fingerprint in accounts}
    if not plan.fresh:
        return len(there)
    for fingerprint in there:
        await manager.evict(fingerprint, "demo --fresh")
    return 0


def _introduce(console: Console, plan: Plan, agent: Agent, redis: PrivateRedis | None, found: int) -> None:
    store = f"a private Redis (pid {redis.pid})" if redis else redacted_url(plan.url or "")
    console.print(f"{plan.agents} agents, {plan.cycles} starts each, {agent.name}, {store}", style="bold")
    if found:
        console.print(f"{found} sessions from an earlier run: those agents should come back logged in at once")
    console.print()


def _observer(plan: Plan, console: Console, redis: PrivateRedis | None) -> Observer:
    if console.quiet:
        return Observer()
    return LiveScreen(plan, console, redis.pid if redis else 0) if console.is_terminal else Lines(plan, console)


if __name__ == "__main__":
    sys.exit(main())

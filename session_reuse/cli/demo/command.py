"""The command `demo`: sets the stage, runs, reports, and leaves nothing behind but its folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from session_reuse._manager import SessionManager
from session_reuse.cli.connection import Place
from session_reuse.cli.demo.agents import Agent, open_agent
from session_reuse.cli.demo.chart import draw
from session_reuse.cli.demo.choreography import Choreography, Watcher
from session_reuse.cli.demo.plan import Plan
from session_reuse.cli.demo.private_redis import PrivateRedis
from session_reuse.cli.demo.record import Run
from session_reuse.cli.demo.record import as_json as run_as_json
from session_reuse.cli.demo.report import report
from session_reuse.cli.demo.screen import Lines, LiveScreen
from session_reuse.cli.demo.site import Site
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import plural
from session_reuse.cli.options import AsJson, KeyPrefix, Url
from session_reuse.cli.output import Output
from session_reuse.cli.running import run
from session_reuse.config import redacted_url
from session_reuse.errors import MissingExtraError

_CHART: Final = "demo.png"

Agents = Annotated[
    int,
    typer.Option(min=1, max=50, metavar="NUMBER", help="Agents that work at once, each with an account of its own."),
]
Cycles = Annotated[int, typer.Option(min=1, metavar="NUMBER", help="How often each agent starts, works and ends.")]
Think = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Time the site takes for each answer.")]
Outage = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="How long Redis is dead in the middle; 0 leaves it alone.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget what earlier runs have left.")]
Http = Annotated[bool, typer.Option("--http", help="Use an HTTP client although there is a browser.")]
Folder = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the chart, the site and the private Redis.")
]


def demo(
    agents: Agents = 4,
    cycles: Cycles = 8,
    think: Think = 0.3,
    outage: Outage = 1.5,
    fresh: Fresh = False,
    http: Http = False,
    output: Folder = Path("demo-output"),
    url: Url = None,
    key_prefix: KeyPrefix = None,
    as_json: AsJson = False,
) -> None:
    """Watch agents log in once and come back logged in, also after their Redis was killed.

    Starts a private Redis and a small login site on this machine, and kills that Redis in the middle. A second run
    reuses what the first has left. With --url it uses that Redis instead, and does not kill it.
    """
    plan = Plan(
        agents=agents, cycles=cycles, think=think, outage=0.0 if url else outage, fresh=fresh, http=http,
        output=output, url=url, key_prefix=key_prefix or ("session-reuse-demo" if url else "browser"),
    )  # fmt: skip
    run(partial(_demo, plan), as_json=as_json)


async def _demo(plan: Plan, output: Output) -> ExitCode:
    plan.output.mkdir(parents=True, exist_ok=True)
    is_interrupted = _quiet_once_cancelled()
    try:
        result = await _performed(plan, output)
    except BaseException:
        if is_interrupted():
            output.note("interrupted; everything it started has ended")
            raise asyncio.CancelledError from None
        raise
    chart = _chart(result, plan, output)
    output.emit(run_as_json(result) | {"chart": chart})
    output.show("")
    output.show(report(result))
    if chart is not None:
        output.show(f"\nchart: {chart}")
    if result.is_good and not result.found:
        output.show("Run it again: the agents will come back logged in from the start.")
    return ExitCode.OK if result.is_good else ExitCode.WRONG


async def _performed(plan: Plan, output: Output) -> Run:
    """Set the stage, run, and clear it away, in the reverse order and whatever happens."""
    async with AsyncExitStack() as stack:
        redis = None
        if plan.url is None:
            redis = await asyncio.to_thread(PrivateRedis, plan.output / "redis")
            stack.push_async_callback(asyncio.to_thread, redis.release)
        site = stack.enter_context(Site(plan.think, plan.output / "site.json"))
        agent = await stack.enter_async_context(open_agent(site.url, http=plan.http, say=output.note))
        place = Place(redis.url if redis else plan.url, plan.key_prefix)
        manager = await stack.enter_async_context(SessionManager(registry=None, **_named(place)))
        found = await _found(manager, plan, agent)
        _introduce(output, plan, agent, redis, found)
        screen = stack.enter_context(_screen(plan, output, redis))
        return await Choreography(plan, manager, agent, redis, screen).run(found)


def _quiet_once_cancelled() -> Callable[[], bool]:
    """Say nothing of what breaks because of a Ctrl-C: it reaches Playwright's driver too, which ends at once.

    Returns:
        Whether there was one.
    """
    task = asyncio.current_task()

    def is_cancelled() -> bool:
        return task is not None and task.cancelling() > 0

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not is_cancelled():
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(handle)
    return is_cancelled


def _named(place: Place) -> dict[str, str]:
    config = place.config()
    return {"url": config.url, "key_prefix": config.key_prefix}


async def _found(manager: SessionManager, plan: Plan, agent: Agent) -> int:
    """Return how many of the accounts have a session; with `--fresh`, delete them."""
    accounts = {agent.fingerprint(account) for account in plan.accounts}
    there = [summary.fingerprint async for summary in manager.sessions() if summary.fingerprint in accounts]
    if not plan.fresh:
        return len(set(there))
    for fingerprint in there:
        await manager.evict(fingerprint, "demo --fresh")
    return 0


def _introduce(output: Output, plan: Plan, agent: Agent, redis: PrivateRedis | None, found: int) -> None:
    store = f"a private Redis {redis.version}" if redis else redacted_url(plan.url or "")
    output.show(
        f"{plural(plan.agents, 'agent')}, {plural(plan.cycles, 'start')} each, {agent.name}, {store}", style="bold"
    )
    if found:
        output.show(f"{plural(found, 'session')} from an earlier run: those agents should come back logged in at once")
    output.show("")


def _screen(plan: Plan, output: Output, redis: PrivateRedis | None) -> Watcher:
    if output.as_json:
        return Watcher()
    if output.console.is_terminal:
        return LiveScreen(plan, output, redis.pid if redis else 0)
    return Lines(plan, output)


def _chart(result: Run, plan: Plan, output: Output) -> str | None:
    path = plan.output / _CHART
    try:
        draw(result, plan, path)
    except MissingExtraError as error:
        output.note(str(error))
        return None
    return str(path.resolve())

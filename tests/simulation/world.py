"""Runs one history: processes with the real managers and agents, on the simulated network and server."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import types
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from session_reuse import BrowserSession, Outcome, ProblemKind, SaveOutcome, SessionManager, reusable_session
from session_reuse._browser_session import wiring_of
from session_reuse.errors import CorruptStateError, LifecycleError, ManagerClosedError, SessionBusyError, StoreError
from tests.simulation import seams
from tests.simulation.history import FINGERPRINTS, OUTSIDE, POOL, History, ProcessPlan, Step
from tests.simulation.loop import HOST, NOBODY, Host, SimLoop, Stuck
from tests.simulation.network import Link, Mishap, Network, SimClient, SimPool
from tests.simulation.oracle import LEASE_GRACE, Change, Items, Oracle, Violation, Visit, items_of, shown
from tests.simulation.redis_server import RedisServer

BUDGETS: Final = {"restore_timeout": 0.5, "save_timeout": 2.0, "close_timeout": 2.0, "connect_timeout": 0.25}
TOLERANCE: Final = 0.15
"""Seconds by which a budget may be exceeded: for work in threads and timers."""
LEFT_ALONE: Final = 10.0
"""Seconds for which a server that has rejected the password is left alone."""
PATIENCE: Final = 600.0
"""Seconds after which an agent hangs."""
CROWD: Final = 1_000_000
"""Numbers of the visits of crowds begin here."""
PROBE: Final = 100_000
"""Numbers of the visits that look at the end begin here."""


class Interrupt(BaseException):
    """Stands for KeyboardInterrupt and SystemExit, which asyncio would let out of the loop."""


class BodyError(Exception):
    """An agent's own error."""


class Manager:
    """One `SessionManager`, and what the model knows of it."""

    def __init__(self, process: Process, number: int) -> None:
        world, plan = process.world, process.plan
        self.process = process
        self.number = number
        self.crashed = False
        self.closed = False
        self.closed_at = float("inf")
        self.known: dict[str, Any] = {}
        self.heard: dict[str, float] = {}
        self.tried: dict[str, float] = {}
        """When it has last tried to invalidate a session."""
        self.evicted: dict[str, float] = {}
        self.under_way: dict[str, int] = {}
        self.config: dict[str, Any] = {**BUDGETS, **world.history.config}
        if plan.key:
            self.config["encryption_keys"] = (seams.ENCRYPTION_KEYS[plan.key - 1],)
        if plan.spool:
            self.config["spool_dir"] = process.folder()
        self.readable = frozenset({plan.key})
        """Which keys open what this process can read: with keys configured, plain values are not trusted."""
        pool = SimPool(world.network, process.link, BUDGETS["connect_timeout"], owner=self)
        pool.direct = self.config.pop("_direct", True) and pool.direct
        self.client = SimClient(pool)
        self.real = SessionManager(self.client, registry=None, on_lost=process.note_lost, **self.config)

    def told_of_eviction(self, fingerprint: str) -> float | None:
        """Return when it has invalidated a session itself."""
        return self.evicted.get(fingerprint)

    def evicting(self, fingerprint: str) -> bool:
        """Return whether it is at it."""
        return self.under_way.get(fingerprint, 0) > 0

    def __str__(self) -> str:
        return f"{self.process.name}.{self.number}"


class Process:
    """One process: a clock, a link, managers. Crashes and comes back."""

    def __init__(self, world: World, number: int, plan: ProcessPlan) -> None:
        self.world = world
        self.number = number
        self.plan = plan
        self.name = f"p{number}"
        self.skew = plan.skew
        self.host = Host(self.name, self.skew)
        self.link = Link(self.host, plan.far)
        world.network.links.append(self.link)
        self.troubled_at = -1e9
        self.came_back = False
        self.lost_at: dict[str, float] = {}
        """When a manager of it, also before a crash, has last reported a save of a session lost."""
        self.managers = [Manager(self, at) for at in range(plan.managers)]

    def note_lost(self, fingerprint: str, _why: str) -> None:
        """Note that one of its managers reports a save of a session lost."""
        self.lost_at[fingerprint] = self.world.loop.time()

    def folder(self) -> str:
        """Return the folder for its spool."""
        if self.number not in self.world.folders:
            self.world.folders[self.number] = tempfile.mkdtemp(prefix="session-reuse-sim-", dir=self.world.room)
        return self.world.folders[self.number]

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run something in this process."""
        context = NOBODY.copy()
        context.run(HOST.set, self.host)
        return self.world.loop.create_task(work, name=name, context=context)


@dataclass(slots=True)
class Result:
    """What came of a history."""

    history: History
    violations: list[Violation]
    lines: list[tuple[Any, ...]]

    @property
    def violation(self) -> Violation | None:
        """The first broken promise."""
        return self.violations[0] if self.violations else None

    def text(self) -> str:
        """Return the history for people."""
        found = [f"seed {self.history.seed}  config {self.history.config}"]
        found += [f"  process {number}: {plan}" for number, plan in enumerate(self.history.processes)]
        if self.history.server_skew:
            found.append(f"  server clock {self.history.server_skew:+.1f} s")
        found += [f"{line[0]:9.3f}  {' '.join(map(str, line[1:]))}" for line in self.lines]
        return "\n".join(found)


class World:
    """One history, run."""

    room: str | None = None
    """Folder for spools."""

    def __init__(self, history: History, ignored: frozenset[str] = frozenset(), *, count_all: bool = False) -> None:
        self.history = history
        self.count_all = count_all
        self.chance = Random(f"run/{history.seed}")
        self.loop = SimLoop(lambda: self.chance.uniform(0.0001, 0.003))
        self.folders: dict[int, str] = {}
        self.server_skew = history.server_skew
        self.server = RedisServer(lambda: seams.EPOCH + self.loop.time() + self.server_skew)
        self.network = Network(self.loop, self.server, self.chance, _SCRIPT_NAMES or _script_names())
        skews = [plan.skew for plan in history.processes] + [history.server_skew, 0.0]
        jumps = sum(abs(step.arguments["by"]) for step in history.steps if step.kind == "clock")
        jumps += sum(abs(step.arguments["skew"]) for step in history.steps if step.kind == "failover")
        self.oracle = Oracle(self.network, [*FINGERPRINTS, POOL], max(skews) - min(skews) + jumps, ignored)
        self.serial = 0
        self.agents: list[tuple[asyncio.Task[Any], Host, str]] = []
        self.processes: list[Process] = []
        self.ends: list[tuple[float, Callable[[], None]]] = []

    # Running -----------------------------------------------------------------------------------------------------------

    def run(self) -> Result:
        """Run the history and judge it."""
        seams.begin(self.loop, self.history.seed)
        try:
            self.processes = [Process(self, number, plan) for number, plan in enumerate(self.history.processes)]
            try:
                self.loop.run(self._main())
            except Stuck as stuck:
                self.oracle.violations["hung"] = Violation("hung", f"{stuck}: {', '.join(self._busy()) or 'no agent'}")
            except Violation:
                pass
        finally:
            seams.end()
            for folder in self.folders.values():
                shutil.rmtree(folder, ignore_errors=True)
        oracle = self.oracle
        return Result(self.history, list(oracle.violations.values()), oracle.lines)

    async def _main(self) -> None:
        for step in self.history.steps:
            await self._pass(step.after)
            self.oracle.say(step.kind, _told(step))
            getattr(self, f"_{step.kind}")(step)
        await self._heal()
        await self._settle()
        await self._probe()
        await self._close()
        self.oracle.finish()
        self._judge()

    def _judge(self) -> None:
        if self.loop.complaints:
            self.oracle.break_("raised", f"in the background: {self.loop.complaints[0]}")
        if self.oracle.violation is not None and not self.count_all:
            raise self.oracle.violation

    async def _pass(self, seconds: float) -> None:
        if seconds > 0:
            await asyncio.sleep(seconds)
        self.oracle.look_around()
        self._judge()

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Have something end later, at the latest when all is healed."""
        done = False

        def once() -> None:
            nonlocal done
            if not done:
                done = True
                act()

        self.ends.append((self.loop.time() + seconds, once))
        self.loop.call_at(self.loop.time() + seconds, once, context=NOBODY)

    def _busy(self) -> list[str]:
        return [name for task, host, name in self.agents if not task.done() and not host.dead]

    def _start(self, process: Process, work: Coroutine[Any, Any, Any], name: str) -> None:
        self.agents.append((process.spawn(work, name), process.host, name))

    async def _heal(self) -> None:
        for _, act in sorted(self.ends, key=lambda end: end[0]):
            act()
        for process in self.processes:
            process.link.mishaps.clear()
        self.oracle.say("all is well from here on")
        waited = 0.0
        while self._busy():
            await self._pass(0.5)
            waited += 0.5
            if waited > PATIENCE:
                self.oracle.break_("hung", f"{', '.join(self._busy())} did not end")
                raise self.oracle.violations["hung"]

    async def _settle(self) -> None:
        """Let what waits be written, and what was left behind show."""
        await self._pass(0.3)
        for _ in range(60):
            if not any(manager.real.stats().pending for manager in self._living()):
                break
            await self._pass(1.0)
        await self._pass(0.5)

    def _living(self) -> Iterator[Manager]:
        for process in self.processes:
            if not process.host.dead:
                yield from process.managers

    async def _probe(self) -> None:
        """Have a new agent look at each session from each process that is left, and leave at once."""
        for number, fingerprint in enumerate(FINGERPRINTS):
            if len(self.oracle.sessions[fingerprint].versions) == 1 and not self.oracle.sessions[fingerprint].changes:
                continue
            for process in self.processes:
                if not process.host.dead:
                    step = Step(
                        PROBE + 10 * number + process.number,
                        0.0,
                        "visit",
                        {"process": process.number, "fingerprint": fingerprint, "body": (("discard",),)},
                    )
                    self._visit(step)
        while self._busy():
            await self._pass(0.2)
        held = [session for session in self.oracle.sessions.values() if session.holder is not None]
        lease_ttl = self.history.config["lease_ttl"]
        await self._pass(LEASE_GRACE + lease_ttl / 3 + 0.5 if held and lease_ttl > 8.0 else 0.1)

    async def _close(self) -> None:
        for process in self.processes:
            if not process.host.dead:
                for manager in process.managers:
                    if not manager.closed:
                        self._start(process, self._closed(manager), f"close {manager}")
        waited = 0.0
        while self._busy():
            await self._pass(0.2)
            waited += 0.2
            if waited > PATIENCE:
                self.oracle.break_("hung", f"{', '.join(self._busy())} did not end")
                raise self.oracle.violations["hung"]

    async def _closed(self, manager: Manager) -> None:
        manager.closed = True
        manager.closed_at = began = self.loop.time()
        await self.guarded("close", manager.real.aclose())
        took = self.loop.time() - began
        if took > 2 * BUDGETS["close_timeout"] + BUDGETS["save_timeout"] + 1.0 and manager.process.troubled_at < began:
            self.oracle.break_("late", f"the close of {manager} took {took:.3f} s")
        lost = manager.process.lost_at
        self.oracle.say("  closed", manager, f"lost {', '.join(lost)}" if lost else "")

    async def guarded(self, what: str, work: Coroutine[Any, Any, Any], *allowed: type[BaseException]) -> Any:
        """Await something of ours that may raise what the contract names only."""
        try:
            return await work
        except (asyncio.CancelledError, Interrupt):
            raise
        except BaseException as error:
            if not isinstance(error, allowed):
                self.oracle.break_("raised", f"{what} raised {type(error).__name__}: {error}")
            raise

    # Agents ------------------------------------------------------------------------------------------------------------------

    def _manager(self, step: Step) -> Manager | None:
        process = self.processes[step.arguments["process"]]
        if process.host.dead:
            return None
        manager = process.managers[step.arguments.get("manager", 0)]
        return None if manager.closed else manager

    def _visit(self, step: Step) -> None:
        manager = self._manager(step)
        if manager is not None:
            agent = _Agent(self, manager, step)
            self._start(manager.process, agent.run(), f"a{step.number}")

    def _by_hand(self, step: Step) -> None:
        manager = self._manager(step)
        if manager is not None:
            agent = _Agent(self, manager, step)
            self._start(manager.process, agent.run_by_hand(), f"a{step.number}")

    def _crowd(self, step: Step) -> None:
        manager = self._manager(step)
        if manager is None:
            return
        for place in range(step.arguments["size"]):
            one = Step(CROWD + 1000 * step.number + place, 0.0, "visit", step.arguments)
            self._start(manager.process, _Agent(self, manager, one).run(), f"a{one.number}")

    def _evict(self, step: Step) -> None:
        manager = self._manager(step)
        if manager is not None:
            work = self.evict(manager, step.arguments["fingerprint"], manager.real.evict)
            self._start(manager.process, work, f"evict {step.number}")

    async def evict(
        self,
        manager: Manager,
        fingerprint: str,
        how: Callable[[str], Coroutine[Any, Any, Any]],
        visit: Visit | None = None,
    ) -> None:
        """Invalidate a session."""
        attempt = self.oracle.evicting(fingerprint, visit)
        manager.under_way[fingerprint] = manager.under_way.get(fingerprint, 0) + 1
        manager.tried[fingerprint] = self.loop.time()
        try:
            await self.guarded("invalidate", how(fingerprint), StoreError, ManagerClosedError)
        except (StoreError, ManagerClosedError) as error:
            manager.tried[fingerprint] = self.loop.time()  # it forgets what it has heard up to now
            self.oracle.say("  invalidate failed", fingerprint, type(error).__name__)
        else:
            self.oracle.say("  invalidated", fingerprint, f"by {manager}")
            manager.known.pop(fingerprint, None)
            manager.evicted[fingerprint] = self.loop.time()
            self.oracle.evicted(fingerprint, attempt)
        finally:
            manager.under_way[fingerprint] -= 1

    def _pool_edit(self, step: Step) -> None:
        manager = self._manager(step)
        if manager is not None:
            work = self._edited(manager, step.arguments.get("add", ()), step.arguments.get("remove", ()))
            self._start(manager.process, work, f"pool {step.number}")

    async def _edited(self, manager: Manager, add: tuple[str, ...], remove: tuple[str, ...]) -> None:
        self.oracle.pool.editing(*add, *remove)
        pool = manager.real.pool(POOL)
        work = pool.add(*add) if add else pool.remove(*remove)
        with contextlib.suppress(StoreError, ManagerClosedError):
            await self.guarded("an edit of the pool", work, StoreError, ManagerClosedError)
            self.oracle.pool.edited(add, remove)

    def _reopen(self, step: Step) -> None:
        manager = self._manager(step)
        if manager is None or any(host is manager.process.host and not task.done() for task, host, _ in self.agents):
            return
        process = manager.process

        async def reopen() -> None:
            await self._closed(manager)
            process.managers[manager.number] = Manager(process, manager.number)

        self._start(process, reopen(), f"reopen {manager}")

    def _cleanup(self, step: Step) -> None:
        manager = self._manager(step)
        if manager is not None:
            work = self._quietly(manager.real.cleanup_once())
            self._start(manager.process, work, f"cleanup {manager}")

    async def _quietly(self, work: Coroutine[Any, Any, Any]) -> None:
        with contextlib.suppress(StoreError, ManagerClosedError):
            await self.guarded("cleanup", work, StoreError, ManagerClosedError)

    # Processes -----------------------------------------------------------------------------------------------------------------

    def _crash(self, step: Step) -> None:
        process = self.processes[step.arguments["process"]]
        if process.host.dead:
            return
        process.host.dead = True
        self.network.cut(process.link)
        for manager in process.managers:
            manager.crashed = True
            seams.crashed(manager.real)

        def back() -> None:
            process.host = Host(process.name, process.skew)
            process.link.host = process.host
            process.came_back = True
            process.troubled_at = self.loop.time()
            process.managers = [Manager(process, at) for at in range(process.plan.managers)]
            self.oracle.say(f"p{process.number} is back")
            for manager in process.managers:
                process.spawn(manager.real.__aenter__(), "wake")

        self.later(step.arguments["back_after"], back)

    def _pause(self, step: Step) -> None:
        process = self.processes[step.arguments["process"]]
        host = process.host
        if host.dead or host.stalled is not None:
            return
        process.troubled_at = self.loop.time()
        host.stalled = deque()

        def resume() -> None:
            process.troubled_at = self.loop.time()
            if not host.dead:
                self.oracle.say(f"p{process.number} goes on")
                self.loop.resume(host)

        self.later(step.arguments["seconds"], resume)

    def _clock(self, step: Step) -> None:
        process = self.processes[step.arguments["process"]]
        process.skew += step.arguments["by"]
        process.host.skew = process.skew

    # Network -------------------------------------------------------------------------------------------------------------------

    def _cut(self, step: Step) -> None:
        self.network.cut(self.processes[step.arguments["process"]].link)

    def _partition(self, step: Step) -> None:
        link = self.processes[step.arguments["process"]].link
        if link.held is not None:
            return
        self.network.hold(link)

        def heal() -> None:
            self.oracle.say("the network is back")
            if step.arguments["reset"]:
                link.held = []
                self.network.cut(link)
            self.network.let_through(link)

        self.later(step.arguments["seconds"], heal)

    def _mishap(self, step: Step) -> None:
        arguments = step.arguments
        link = self.processes[arguments["process"]].link
        for _ in range(arguments["times"]):
            self.network.plan(link, Mishap(arguments["what"], arguments["seconds"], arguments["part"]))

    # Server --------------------------------------------------------------------------------------------------------------------

    def _freeze(self, step: Step) -> None:
        if self.network.frozen is None:
            self.network.freeze()
            self.later(step.arguments["seconds"], self._thaw)

    def _thaw(self) -> None:
        self.oracle.say("the server goes on")
        self.network.thaw()

    def _down(self, step: Step) -> None:
        if self.network.down:
            return
        self.network.down = True
        self.network.cut_all()

        def up() -> None:
            self.oracle.say("the server is up")
            self.network.down = False
            self.network.trouble()
            self.server.forget_scripts()
            if step.arguments["empty"]:
                self.server.forget_all()
                self.oracle.leases_lost()
                self.oracle.data_lost(tombstones=True)

        self.later(step.arguments["seconds"], up)

    def _failover(self, step: Step) -> None:
        self.network.cut_all()
        self.oracle.undone_since = self.loop.time() - step.arguments["loses"]
        self.oracle.server_jumps += abs(step.arguments["skew"])
        self.server.lose(step.arguments["loses"])
        self.oracle.leases_lost()
        self.server_skew += step.arguments["skew"]
        self.oracle.data_lost(tombstones=True)

    def _evict_key(self, step: Step) -> None:
        fingerprint, what = step.arguments["fingerprint"], step.arguments["what"]
        key = seams.session_key(fingerprint) if what == "session" else seams.side_key(what, fingerprint)
        self.network.trouble()
        removed = self.server.remove(key, "evicted")
        if what == "lease":
            self.oracle.leases_lost()
        if removed:
            self.oracle.undone_since = float("inf")
            self.oracle.data_lost(tombstones=what == "tombstone")

    def _refuse_writes(self, step: Step) -> None:
        how = step.arguments["how"]
        self.network.trouble()
        setattr(self.server, how, True)

        def end() -> None:
            self.oracle.say(f"the server is not {how} any more")
            setattr(self.server, how, False)
            self.network.trouble()

        self.later(step.arguments["seconds"], end)

    def _wrong_password(self, step: Step) -> None:
        self.network.wrong_password = True
        self.network.cut_all()

        def end() -> None:
            self.oracle.say("the password is right again")
            self.network.wrong_password = False
            self.network.last_trouble = self.loop.time() + LEFT_ALONE

        self.later(step.arguments["seconds"], end)

    def _damage(self, step: Step) -> None:
        key = seams.session_key(step.arguments["fingerprint"])
        value = self.server.live(key)
        if isinstance(value, bytes):
            self.network.trouble()
            self.server.put(
                key,
                value[: len(value) // 2] if step.arguments["how"] == "half" else b"garbage",
                self.server.expires.get(key),
            )
            self.oracle.undone_since = float("inf")
            self.oracle.data_lost(tombstones=False)

    def _flush_scripts(self, step: Step) -> None:
        self.server.forget_scripts()


class _Agent:
    """One agent's visit: enters, does what its body says, leaves."""

    def __init__(self, world: World, manager: Manager, step: Step) -> None:
        self.world = world
        self.oracle = world.oracle
        self.loop = world.loop
        self.manager = manager
        self.process = manager.process
        self.step = step
        self.strike = step.arguments.get("strike")
        self.struck: str | None = None
        self.aside: list[asyncio.Task[Any]] = []
        names = ("exclusive", "wait", "on_busy", "strict", "max_uses", "save_on_error", "allowed_domains", "save")
        self.options = {name: step.arguments[name] for name in names if name in step.arguments}
        pooled = bool(step.arguments.get("pool"))
        known = {"verify": step.arguments.get("verify"), "pool": pooled}
        self.visit = Visit(
            step.number,
            step.arguments.get("fingerprint", POOL),
            self.process,
            manager,
            {**self.options, **known, **({"exclusive": True} if pooled else {})},
            self.loop.time(),
            discarded=self.options.get("save") == "never",
        )
        self.verified = 0

    def verify(self, session: BrowserSession) -> bool:
        self.verified += 1
        how = self.step.arguments["verify"]
        passes = bool(how == "passes" or (how == "fails first" and self.verified > 1))
        self.visit.doubted = not passes
        return passes

    async def run(self) -> None:  # noqa: C901
        """Visit."""
        visit = self.visit
        self.oracle.begin(visit)
        options: dict[str, Any] = dict(self.options)
        if visit.options["verify"]:
            options["verify"] = self.verify
        if visit.pooled:
            options["pool"] = POOL
        name = None if visit.pooled else visit.fingerprint
        scope = reusable_session(name, f"a{visit.number}", manager=self.manager.real, **options)
        failure: BaseException | None = None
        try:
            session = await self._entered(scope)
        except BaseException as error:
            visit.left = self.loop.time()
            if visit.left - visit.begun > self._budget("restore_timeout", wait=True) and not self._was_paused(
                visit.begun
            ):
                self.oracle.break_(
                    "late",
                    f"the enter of {visit} took {visit.left - visit.begun:.3f} s and raised {type(error).__name__}",
                )
            if not isinstance(
                error,
                (
                    asyncio.CancelledError,
                    Interrupt,
                    StoreError,
                    CorruptStateError,
                    SessionBusyError,
                    ManagerClosedError,
                ),
            ):
                raise
            self.oracle.say(f"  a{visit.number} did not enter:", type(error).__name__)
            if visit.pooled and isinstance(error, SessionBusyError):
                self.oracle.nobody(visit, Outcome.BUSY)
            if self.struck == "cancel" and not isinstance(error, asyncio.CancelledError):
                self.oracle.break_("raised", f"{visit} was cancelled at its enter, and {type(error).__name__} came out")
            return
        try:
            await self._strikable("body", self._body(session))
        except BaseException as error:
            failure = error
            if self.loop.over:  # the history is at its end, and this coroutine is being dropped
                raise
        visit.failed = failure is not None
        await self._leave(scope, session, failure)
        for task in self.aside:
            if not task.done():
                await asyncio.wait({task})

    async def _entered(self, scope: reusable_session) -> BrowserSession:
        visit = self.visit
        options = visit.options
        allowed: list[type[BaseException]] = []
        if options.get("strict"):
            allowed += [StoreError, CorruptStateError]
        if options.get("on_busy") == "raise":
            allowed.append(SessionBusyError)
        if self.manager.closed:
            allowed.append(ManagerClosedError)
        work = self.world.guarded(f"the enter of {visit}", scope.__aenter__(), *allowed)
        session: BrowserSession = await self._strikable("enter", work)
        took = self.loop.time() - visit.begun
        visit.outcome, visit.stale = session.outcome, session.stale
        visit.fingerprint = session.fingerprint
        items = self._items(session)
        self.oracle.say(
            f"  a{visit.number} entered{f' {visit.fingerprint}' if visit.pooled else ''}:",
            session.outcome.value,
            "stale" if visit.stale else "",
            shown(items),
            f"after {took:.3f}",
        )
        if visit.fingerprint == POOL:
            visit.entered, visit.discarded = self.loop.time(), True
            self.oracle.nobody(visit, session.outcome)
        else:
            self.oracle.entered(visit, items)
        if took > self._budget("restore_timeout", wait=True) and not self._was_paused(visit.begun):
            self.oracle.break_("late", f"the enter of {visit} took {took:.3f} s")
        return session

    def _items(self, session: BrowserSession) -> Items:
        try:
            document = {"storage_state": session.storage_state, "data": session.data}
            return items_of(document, session.fingerprint)
        except ValueError as error:
            self.oracle.break_("foreign", f"{self.visit} was given {error}")
            return {}

    def _budget(self, name: str, *, wait: bool = False) -> float:
        budget = float(self.manager.config[name]) + TOLERANCE
        return budget + float(self.options.get("wait", 0.0)) if wait else budget

    def _was_paused(self, since: float) -> bool:
        return self.process.troubled_at >= since or self.process.host.stalled is not None

    async def _leave(self, scope: reusable_session, session: BrowserSession, failure: BaseException | None) -> None:
        visit, began = self.visit, self.loop.time()
        visit.leaving = began
        if failure is not None and self.options.get("save_on_error") is False:
            visit.discarded = True
        changes = self.oracle.saving(visit)
        kind = type(failure) if failure is not None else None
        trace = failure.__traceback__ if failure is not None else None
        raised: BaseException | None = None
        try:
            allowed = (StoreError,) if self.options.get("strict") and failure is None else ()
            closed = (ManagerClosedError,) if self.manager.closed else ()
            work = self.world.guarded(f"the exit of {visit}", scope.__aexit__(kind, failure, trace), *allowed, *closed)
            swallowed = await self._strikable("exit", work)
            if swallowed:
                self.oracle.break_("raised", f"the exit of {visit} swallowed {kind}")
        except BaseException as error:  # noqa: BLE001
            raised = error
        if self.loop.over:
            return
        visit.left = self.loop.time()
        self.oracle.pool.left(visit)
        outcome = session.save_outcome if raised is None or isinstance(raised, StoreError) else None
        visit.saved = outcome
        visit.ending = str(outcome.value if outcome else "told nothing") + (
            f", {type(raised or failure).__name__}" if raised or failure else ""
        )
        self.oracle.say(
            f"  a{visit.number} left:", outcome.value if outcome else session.save_outcome, *((type(raised or failure).__name__,) if raised or failure else ()),
            f"after {visit.left - began:.3f}",
        )  # fmt: skip
        if outcome in {SaveOutcome.PENDING, SaveOutcome.SPOOLED, None} or visit.failed:
            outcome = (
                outcome
                if outcome
                in {SaveOutcome.PENDING, SaveOutcome.SPOOLED, SaveOutcome.SKIPPED, SaveOutcome.STALE, SaveOutcome.LOST}
                else None
                if raised is not None
                else outcome
            )
        self.oracle.saved(visit, changes, began, outcome)
        if outcome in {SaveOutcome.PENDING, SaveOutcome.SPOOLED, None}:
            self._follow(session, changes, was_interrupted=outcome is None)
        # The lease and the member of the pool are given back after the save, each within an attempt.
        given_back = self.manager.config["attempt_timeout"] * (
            2 if visit.pooled else bool(visit.options.get("exclusive"))
        )
        if visit.left - began > self._budget("save_timeout") + 0.2 + given_back and not self._was_paused(began):
            self.oracle.break_("late", f"the exit of {visit} took {visit.left - began:.3f} s")
        if self.struck == "cancel" and failure is None and not isinstance(raised, asyncio.CancelledError):
            self.oracle.break_("raised", f"{visit} was cancelled, and nothing came out")
        if raised is not None and not isinstance(
            raised, (asyncio.CancelledError, Interrupt, StoreError, ManagerClosedError)
        ):
            raise raised

    def _follow(self, session: BrowserSession, changes: dict[str, Change], *, was_interrupted: bool) -> None:
        """Wait for what becomes of the last save, also of one whose exit was interrupted."""
        self.visit.followed = True

        async def follow() -> None:
            self.visit.final = await session.settled()
            self.visit.not_taken = any(problem.kind is ProblemKind.NOT_TAKEN for problem in session.problems)
            self.oracle.say(f"  a{self.visit.number} settled:", self.visit.final)
            if self.visit.final is SaveOutcome.STALE or (was_interrupted and self.visit.final is not None):
                self.oracle.refused(self.visit, changes, self.visit.final)

        self.process.spawn(follow(), "follow")

    # The body

    async def _body(self, session: BrowserSession) -> None:
        visit = self.visit
        if not session.reused and not PROBE <= self.step.number < CROWD and visit.outcome is not Outcome.BUSY:
            self._login(session)
        for deed, *details in self.step.arguments["body"]:
            await getattr(self, f"_do_{deed}")(session, *details)

    async def _do_sleep(self, session: BrowserSession, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _do_set(self, session: BrowserSession, item: str) -> None:
        self._set(session, item)

    async def _do_pair(self, session: BrowserSession) -> None:
        self._set(session, "c:pa")
        self._set(session, "c:pb")

    async def _do_delete(self, session: BrowserSession, item: str) -> None:
        self._delete(session, item)

    async def _do_logout(self, session: BrowserSession, how: str = "") -> None:
        for item in list(self._items(session)):
            if how == "all" or not item.startswith("d:"):
                self._delete(session, item)
        session.storage_state = {"cookies": [], "origins": []}

    async def _do_login(self, session: BrowserSession) -> None:
        self._login(session)

    async def _do_assign(self, session: BrowserSession) -> None:
        state = session.storage_state
        session.storage_state = {**state, "cookies": [dict(cookie) for cookie in reversed(state["cookies"])]}

    async def _do_checkpoint(self, session: BrowserSession, how: str = "") -> None:
        if how == "aside":
            self.aside.append(self.process.spawn(self._checkpoint(session), "checkpoint"))
            await asyncio.sleep(0)
        else:
            await self._strikable("checkpoint", self._checkpoint(session))

    async def _checkpoint(self, session: BrowserSession) -> None:
        visit, began = self.visit, self.loop.time()
        changes = self.oracle.saving(visit)
        allowed = (StoreError,) if self.options.get("strict") else ()
        closed: tuple[type[BaseException], ...] = (ManagerClosedError,) if self.manager.closed else ()
        if visit.leaving < float("inf"):
            closed = (*closed, LifecycleError)
        outcome: SaveOutcome | None = None
        refused = False
        try:
            outcome = await self.world.guarded(f"the checkpoint of {visit}", session.checkpoint(), *allowed, *closed)
        except StoreError:
            refused = True
        except LifecycleError:
            pass
        finally:
            self.oracle.say(f"  a{visit.number} checkpoint:", outcome.value if outcome else outcome)
            self.oracle.saved(visit, changes, began, outcome)
            visit.waits = visit.waits or refused  # with `strict`, it raises, and waits all the same
        if self.loop.time() - began > self._budget("save_timeout") + 0.2 and not self._was_paused(began):
            self.oracle.break_("late", f"the checkpoint of {visit} took {self.loop.time() - began:.3f} s")

    async def _do_mark_good(self, session: BrowserSession) -> None:
        self.visit.vouched, self.visit.marked_bad, self.visit.cooldown = True, False, 0.0
        self.oracle.sessions[self.visit.fingerprint].good_issued += 1
        session.mark_good()

    async def _do_mark_bad(self, session: BrowserSession) -> None:
        await self._do_cool(session, 0.0)

    async def _do_cool(self, session: BrowserSession, seconds: float) -> None:
        self.visit.cooldown = seconds
        self.visit.vouched, self.visit.marked_bad, self.visit.doubtful = False, True, True
        self.oracle.sessions[self.visit.fingerprint].bad_issued += 1
        session.mark_bad("a doubt", cooldown=seconds)

    async def _do_raise(self, session: BrowserSession) -> None:
        raise BodyError

    async def _do_discard(self, session: BrowserSession) -> None:
        self.visit.discarded = True
        session.discard()

    async def _do_invalidate(self, session: BrowserSession) -> None:
        await self.world.evict(self.manager, self.visit.fingerprint, lambda _: session.invalidate("leaked"), self.visit)
        if wiring_of(session).discarded:
            self.visit.discarded = True

    # Items

    def _login(self, session: BrowserSession) -> None:
        self._set(session, "c:sid")
        if self.step.number % 2:
            self._set(session, "l:k")

    def _set(self, session: BrowserSession, item: str) -> None:
        world, (kind, _, name) = self.world, item.partition(":")
        saw = self._items(session).get(item)
        world.serial += 1
        value = f"{session.fingerprint}#{world.serial}"
        if kind == "d":
            session.data[name] = value
        elif kind == "c":
            cookies = session.storage_state["cookies"]
            cookie = next((one for one in cookies if one["name"] == name), None)
            if cookie is None:
                cookie = {
                    "name": name,
                    "value": "",
                    "domain": "pay.example" if item in OUTSIDE else "shop.example",
                    "path": "/",
                    "expires": -1,
                    "httpOnly": True,
                    "secure": True,
                    "sameSite": "Lax",
                }
                cookies.append(cookie)
            cookie["value"] = value
            if name == "sid" and world.history.config.get("ttl_from_cookies"):
                cookie["expires"] = int(seams.wall() + (15, 60, 4000)[world.serial % 3])
        else:
            entries = self._local_storage(session, item)
            entry = next((one for one in entries if one["name"] == name), None)
            if entry is None:
                entries.append({"name": name, "value": value})
            else:
                entry["value"] = value
        self.oracle.changed(self.visit, item, world.serial, saw)

    def _delete(self, session: BrowserSession, item: str) -> None:
        saw = self._items(session).get(item)
        if saw is None:
            return
        kind, _, name = item.partition(":")
        if kind == "d":
            del session.data[name]
        elif kind == "c":
            cookies = session.storage_state["cookies"]
            cookies[:] = [one for one in cookies if one["name"] != name]
        else:
            entries = self._local_storage(session, item)
            entries[:] = [one for one in entries if one["name"] != name]
        self.oracle.changed(self.visit, item, 0, saw)

    @staticmethod
    def _local_storage(session: BrowserSession, item: str) -> list[dict[str, Any]]:
        origins: Any = session.storage_state["origins"]
        name = "https://pay.example" if item in OUTSIDE else "https://shop.example"
        origin = next((one for one in origins if one["origin"] == name), None)
        if origin is None:
            origin = {"origin": name, "localStorage": []}
            origins.append(origin)
        found: list[dict[str, Any]] = origin.setdefault("localStorage", [])
        return found

    # By hand

    async def run_by_hand(self) -> None:
        """Restore and save through the manager, or save a session made by hand."""
        visit, manager = self.visit, self.manager.real
        visit.begun = self.loop.time()
        self.oracle.begin(visit)
        session: BrowserSession | None = None
        allowed = (ManagerClosedError,) if self.manager.closed else ()
        if not self.step.arguments["made"]:
            session = await self.world.guarded(
                "restore", manager.restore(visit.fingerprint, f"a{visit.number}"), *allowed
            )
        if session is None:
            session = BrowserSession(visit.fingerprint, f"a{visit.number}")
            visit.by_hand, visit.outcome = True, Outcome.MISSING
            visit.entered = self.loop.time()
            self._login(session)
        else:
            visit.outcome, visit.stale = session.outcome, session.stale
            self.oracle.say(f"  a{visit.number} restored:", shown(self._items(session)))
            self.oracle.entered(visit, self._items(session))
        for deed, *details in self.step.arguments["body"]:
            await getattr(self, f"_do_{deed}")(session, *details)
        began = visit.leaving = self.loop.time()
        changes = self.oracle.saving(visit)
        allowed = (ManagerClosedError,) if self.manager.closed else ()
        outcome = await self.world.guarded("save", manager.save(session), *allowed)
        visit.left = self.loop.time()
        visit.not_taken = any(problem.kind is ProblemKind.NOT_TAKEN for problem in session.problems)
        self.oracle.say(f"  a{visit.number} saved:", outcome.value)
        self.oracle.saved(visit, changes, began, outcome)
        took, budget = visit.left - began, self._budget("save_timeout") + self._budget("restore_timeout")
        if took > budget and not self._was_paused(began):
            self.oracle.break_("late", f"the save of {visit} took {took:.3f} s")

    # Strikes

    def _strikable(self, phase: str, work: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        if self.strike is None or self.strike[0] != phase:
            return work
        return self._struck(work, self.strike[1], self.strike[2])

    async def _struck(self, work: Coroutine[Any, Any, Any], at: int, how: str) -> Any:
        return await _drive(work, at, lambda: self._hit(how))

    def _hit(self, how: str) -> BaseException | None:
        self.struck = how
        self.oracle.say(f"  a{self.visit.number} is struck: {how}")
        if how == "interrupt":
            return Interrupt()
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return None


@types.coroutine
def _drive(work: Coroutine[Any, Any, Any], at: int, hit: Callable[[], BaseException | None]) -> Any:
    """Run a coroutine, and strike at its `at`th wait: with what `hit` returns, or by a cancellation that it has made."""
    step: Callable[[Any], Any] = work.send
    value: Any = None
    count = 0
    while True:
        try:
            waits_for = step(value)
        except StopIteration as stop:
            return stop.value
        error: BaseException | None = None
        if count == at:
            error = hit()
        count += 1
        if error is not None:
            if waits_for is not None:
                waits_for._asyncio_future_blocking = False
            step, value = work.throw, error
            continue
        try:
            value = yield waits_for
            step = work.send
        except BaseException as thrown:  # noqa: BLE001
            step, value = work.throw, thrown


_SCRIPT_NAMES: dict[bytes, str] = {}


def _script_names() -> dict[bytes, str]:
    _SCRIPT_NAMES.update(seams.script_names())
    return _SCRIPT_NAMES


def _told(step: Step) -> str:
    shown_ = ", ".join(f"{name}={value!r}" for name, value in step.arguments.items() if value not in (None, False, ()))
    return f"#{step.number} {shown_}"

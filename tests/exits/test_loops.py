"""Event loops may end without ceremony: nothing of ours outlives them, and no save is lost without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exits.programs import run
from tests.harness.servers import RedisServer

pytestmark = pytest.mark.redis

HEAD = """
from session_reuse import SessionManager, reusable_session

async def visit():
    async with reusable_session("shop/alice", "agent") as session:
        session.data["n"] = session.data.get("n", 0) + 1
    assert session.save_outcome == "saved"

server.ping()

def facts():
    server.ping()  # the server frees the connections that were closed before at the end of its turn
    managers = sum(isinstance(each, SessionManager) for each in gc.get_objects())
    return len(os.listdir("/proc/self/fd")), managers, threading.active_count(), len(server.client_list())

def growth(visit_once, times):
    visit_once()
    before = facts()
    for _ in range(times):
        visit_once()
    return [now - then for now, then in zip(facts(), before)]
"""


def test_loops_that_are_only_closed_leave_nothing(redis_server: RedisServer) -> None:
    """300 times `run_until_complete` and `close`, without the garbage collector: no descriptor, thread or client is left."""
    ended = run(
        HEAD
        + """
def visit_once():
    loop = asyncio.new_event_loop()
    loop.run_until_complete(visit())
    loop.close()

gc.disable()
descriptors, _, threads, clients = growth(visit_once, 300)
gc.enable()
gc.collect()
say(descriptors, threads, clients, facts()[1])
""",
        redis_server,
    )
    assert (ended.lines, ended.code, ended.errors) == (["0 0 0 0"], 0, "")


def test_loops_that_are_dropped_leave_nothing(redis_server: RedisServer) -> None:
    """A loop that is not even closed takes its manager with it when it is collected."""
    ended = run(
        HEAD
        + """
def visit_once():
    asyncio.new_event_loop().run_until_complete(visit())
    gc.collect()

say(*growth(visit_once, 30))
""",
        redis_server,
    )
    assert (ended.lines, ended.code, ended.errors) == (["0 0 0 0"], 0, "")


WAITING = """
from session_reuse import SessionManager, reusable_session

async def leave(fingerprint, manager=None):
    async with reusable_session(fingerprint, manager=manager) as session:
        session.data["n"] = 1
        server.config_set("maxmemory", "1")
    say(session.save_outcome)
    server.config_set("maxmemory", "0")
"""


@pytest.mark.parametrize(
    "end",
    [
        "loop.run_until_complete(leave('shop/alice')); loop.close(); asyncio.run(asyncio.sleep(0))",
        "loop.run_until_complete(leave('shop/alice')); loop.close(); asyncio.run(leave('shop/bob'))",
        "loop.run_until_complete(leave('shop/alice'))",
        "loop.run_until_complete(leave('shop/alice', SessionManager())); loop.close()",
        "loop.run_until_complete(leave('shop/alice', SessionManager())); loop.close(); loop = None; gc.collect()",
    ],
    ids=["closed", "next-use", "open", "own", "collected"],
)
def test_saves_that_wait_are_reported_once(own_redis: RedisServer, end: str) -> None:
    """The loop ends before its manager, or the process does: one warning for each save that waited."""
    ended = run(WAITING + "loop = asyncio.new_event_loop(); " + end, own_redis)
    assert ended.lines[0] == "pending"
    assert sum("session_reuse.save_lost fingerprint='shop/alice'" in line for line in ended.logged) == 1
    assert ended.code == 0


@pytest.mark.parametrize("manager", ["None", "SessionManager()"], ids=["default", "module"])
@pytest.mark.parametrize("end", ["asyncio.run", "closed"])
def test_the_next_loop_knows_what_the_last_one_knew(own_redis: RedisServer, manager: str, end: str) -> None:
    """A worker calls `asyncio.run` for each job. While the store is away, its jobs start from what it knows."""
    ended = run(
        f"""
from session_reuse import SessionManager, reusable_session
manager = {manager}

async def visit(fingerprint="shop/alice"):
    async with reusable_session(fingerprint, manager=manager) as session:
        session.data["n"] = session.data.get("n", 0) + 1
    say("found", session.outcome, session.stale, session.data["n"])

def run(work):
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(work)
    loop.close()

run = asyncio.run if {end!r} == "asyncio.run" else run
run(visit())
run(visit("shop/bob"))
server.shutdown(nosave=True)
run(visit())
run(visit())
""",
        own_redis,
    )
    found = [line for line in ended.lines if line.startswith("found")]  # asyncio tells of tasks in a closed loop
    assert found == ["found missing False 1"] * 2 + ["found reused True 2"] * 2, ended.errors
    assert (ended.code, ended.lost) == (0, 2)


def test_the_next_loop_starts_from_what_is_on_disk(own_redis: RedisServer, tmp_path: Path) -> None:
    """A save that was `spooled` is newer than what the last loop had heard of the store."""
    ended = run(
        f"""
from session_reuse import SessionManager, reusable_session
manager = SessionManager(spool_dir={str(tmp_path / "spool")!r}, encryption_keys=["1" * 64])

async def visit():
    async with reusable_session("shop/alice", manager=manager) as session:
        session.data["n"] = session.data.get("n", 0) + 1
    say("found", session.outcome, session.save_outcome, session.data["n"])

asyncio.run(visit())
server.shutdown(nosave=True)
asyncio.run(visit())
asyncio.run(visit())
""",
        own_redis,
    )
    found = [line for line in ended.lines if line.startswith("found")]
    assert found == ["found missing saved 1", "found reused spooled 2", "found reused spooled 3"], ended.errors


def test_what_all_loops_knew_goes_on(own_redis: RedisServer) -> None:
    """Two loops side by side, in threads, one identity each. What an agent used last is known, too."""
    ended = run(
        """
from session_reuse import reusable_session

async def visit(fingerprint, agent, barrier=None):
    async with reusable_session(fingerprint, agent) as session:
        session.data["n"] = session.data.get("n", 0) + 1
        if barrier:
            barrier.wait()
    return session

def run_both(*names):
    barrier = threading.Barrier(2)
    both = [threading.Thread(target=lambda n=name: asyncio.run(visit(f"shop/{n}", n, barrier))) for name in names]
    for one in both:
        one.start()
    for one in both:
        one.join()

run_both("alice", "bob")
server.shutdown(nosave=True)
for name in "alice", "bob", "alice":
    found = asyncio.run(visit(None, name))
    say("found", found.fingerprint, found.outcome)
""",
        own_redis,
    )
    found = [line for line in ended.lines if line.startswith("found")]
    assert found == [f"found shop/{name} reused" for name in ("alice", "bob", "alice")], ended.errors


def test_a_disk_that_hangs_holds_up_no_exit(own_redis: RedisServer, tmp_path: Path) -> None:
    """Not for longer than the close of the manager: the threads that wait for it end with the process."""
    ended = run(
        f"""
from session_reuse import SessionManager, reusable_session
hang = threading.Event()

async def visit():
    async with SessionManager(spool_dir={str(tmp_path)!r}, encryption_keys=["1" * 64], save_timeout=1, close_timeout=0.5) as manager:
        async with reusable_session("shop/alice", manager=manager) as session:
            session.data["n"] = 1
            server.config_set("maxmemory", "1")
            os.fsync = lambda _: hang.wait()
    say(session.save_outcome)

asyncio.run(visit())
""",
        own_redis,
        timeout=60.0,
    )
    assert ended.lines == ["pending"]


def test_a_collected_manager_counts_what_is_lost(own_redis: RedisServer) -> None:
    """No one closed the manager: the save that waited is in `session_pending_lost_total`, and waits no more."""
    ended = run(
        WAITING
        + """
import prometheus_client
asyncio.run(leave("shop/alice", SessionManager()))
gc.collect()
value = prometheus_client.REGISTRY.get_sample_value
say(value("session_pending_lost_total"), value("session_pending_saves"))
""",
        own_redis,
    )
    assert (ended.lines, ended.lost) == (["pending", "1.0 0.0"], 1)


def test_a_collected_manager_reports_what_its_disk_has_refused(own_redis: RedisServer, tmp_path: Path) -> None:
    """With `spool_dir`, only what is on disk is kept."""
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "spool"
    ended = run(
        WAITING
        + f"""
asyncio.run(leave("shop/alice", SessionManager(spool_dir={str(folder)!r}, encryption_keys=["1" * 64])))
gc.collect()
""",
        own_redis,
    )
    assert (ended.lines, ended.lost) == (["pending"], 1)


def test_the_next_loop_delivers_what_is_on_disk(own_redis: RedisServer, tmp_path: Path) -> None:
    """The one before it was not told that it ends. Nor does it keep other processes from that."""
    ended = run(
        f"""
from session_reuse import SessionManager, reusable_session
manager = SessionManager(spool_dir={str(tmp_path / "spool")!r}, encryption_keys=["1" * 64])

async def leave():
    async with reusable_session("shop/alice", manager=manager) as session:
        session.data["n"] = 1
        server.config_set("maxmemory", "1")
    say(session.save_outcome)
    server.config_set("maxmemory", "0")

async def go_on():
    async with reusable_session("shop/bob", manager=manager) as session:
        session.discard()
    while not server.exists("browser:session:shop/alice"):
        await asyncio.sleep(0.01)
    say("delivered")

asyncio.run(leave())
asyncio.run(go_on())
""",
        own_redis,
        timeout=50.0,
    )
    assert ended.lines == ["spooled", "delivered"], ended.errors


@pytest.mark.parametrize("has_disk", [False, True], ids=["memory", "disk"])
def test_work_that_begins_while_the_loop_ends_ends_with_it(
    own_redis: RedisServer, tmp_path: Path, has_disk: bool
) -> None:
    """`asyncio.run` cancels an agent, whose save has to wait: what waits for the store then is destroyed by nobody."""
    options = f"spool_dir={str(tmp_path)!r}, encryption_keys=['1' * 64]" if has_disk else ""
    ended = run(
        f"""
from session_reuse import SessionManager, reusable_session
manager = SessionManager({options})

async def agent():
    async with reusable_session("shop/alice", manager=manager) as session:
        session.data["n"] = 1
        server.config_set("maxmemory", "1")
        await asyncio.sleep(100.0)

async def end_before_it():
    agents.append(asyncio.create_task(agent()))
    while server.config_get("maxmemory")["maxmemory"] == "0":
        await asyncio.sleep(0.01)

agents = []
asyncio.run(end_before_it())
gc.collect()
""",
        own_redis,
    )
    assert (ended.lines, ended.errors, ended.code) == ([], "", 0)
    assert not [line for line in ended.logged if "destroyed" in line]


@pytest.mark.parametrize(
    "store",
    ["", "redis.asyncio.Redis.from_url(os.environ['SESSION_REUSE_URL'], max_connections=2)"],
    ids=["url", "client"],
)
def test_a_manager_of_a_module_works_in_one_loop_after_another(redis_server: RedisServer, store: str) -> None:
    """Three times `asyncio.run` with one manager: each reuses the session. Two loops at once are refused as before."""
    ended = run(
        f"""
import redis.asyncio
from session_reuse import SessionManager, reusable_session
manager = SessionManager({store})

async def visit():
    async with reusable_session("shop/alice", manager=manager) as session:
        session.data["n"] = session.data.get("n", 0) + 1
    say(session.save_outcome, session.data["n"])

for _ in range(3):
    asyncio.run(visit())
loop = asyncio.new_event_loop()
loop.run_until_complete(visit())
try:
    asyncio.run(visit())
except Exception as error:
    say(type(error).__name__)
loop.run_until_complete(manager.aclose())
""",
        redis_server,
    )
    assert ended.lines == ["saved 1", "saved 2", "saved 3", "saved 4", "LifecycleError"]
    assert (ended.code, ended.lost) == (0, 0)


@pytest.mark.parametrize("end", ["let_go.set()", "for task in tasks: task.cancel()"], ids=["left", "cancelled"])
def test_a_loop_that_ends_while_agents_leave_loses_no_save(redis_server: RedisServer, end: str) -> None:
    """`asyncio.run` cancels all tasks at its end, also those of ours that have not begun, at any step of four exits."""
    ended = run(
        f"""
from session_reuse import SessionManager, reusable_session

async def agent(name, number, let_go, entered):
    async with reusable_session(name) as session:
        session.data[str(number)] = 1
        entered.append(number)
        await let_go.wait()

async def leave_and_end(name, steps):
    let_go, entered = asyncio.Event(), []
    tasks = [asyncio.create_task(agent(name, number, let_go, entered)) for number in range(4)]
    while len(entered) < 4:
        await asyncio.sleep(0)
    {end}
    for _ in range(steps):
        await asyncio.sleep(0)

async def stored(name):
    async with reusable_session(name, save="never") as session:
        return len(session.data)

for steps in range(12):
    asyncio.run(leave_and_end(f"shop/{{steps}}", steps))
say(*[asyncio.run(stored(f"shop/{{steps}}")) for steps in range(12)])
""",
        redis_server,
    )
    assert (ended.lines, ended.code, ended.lost) == ([" ".join(["4"] * 12)], 0, 0)


@pytest.mark.parametrize("method", ["checkpoint", "settled", "invalidate", "one_time_code"])
@pytest.mark.parametrize("waits", [True, False], ids=["loop-waits", "loop-works"])
def test_a_session_is_refused_in_another_loop_that_would_wait_for_ever(
    redis_server: RedisServer, method: str, *, waits: bool
) -> None:
    """A thread that runs `asyncio.run(session.checkpoint())` is told where the session belongs, at once."""
    ended = run(
        f"""
from session_reuse import reusable_session
from session_reuse.errors import LifecycleError

def in_thread(session):
    try:
        asyncio.run(session.{method}())
    except LifecycleError as error:
        say(error)

async def main():
    async with reusable_session("shop/alice") as session:
        session.data["n"] = 1
        thread = threading.Thread(target=in_thread, args=(session,))
        thread.start()
        if not {waits}:
            await asyncio.to_thread(thread.join)
        thread.join()
    say(session.save_outcome)

asyncio.run(main())
""",
        redis_server,
        timeout=60.0,
    )
    assert ended.lines == ["'shop/alice' was entered in another event loop: await this in that one", "saved"], (
        ended.errors
    )
    assert ended.code == 0


@pytest.mark.parametrize("full", [False, True])
def test_a_manager_can_be_closed_after_its_loop_has_ended(own_redis: RedisServer, *, full: bool) -> None:
    """`asyncio.run(manager.aclose())` at the end of a program closes it, and reports what still waits."""
    ended = run(
        f"""
from session_reuse import SessionManager, reusable_session

manager = SessionManager(on_lost=lambda name, _: say("lost", name))

async def visit():
    async with reusable_session("shop/alice", manager=manager) as session:
        session.data["n"] = 1
        server.config_set("maxmemory", int({full}))
    say(session.save_outcome)

asyncio.run(visit())
asyncio.run(manager.aclose())
say(manager.closed)
server.config_set("maxmemory", 0)
""",
        own_redis,
        timeout=60.0,
    )
    expected = ["pending", "lost shop/alice", "True"] if full else ["saved", "True"]
    assert (ended.lines, ended.code) == (expected, 0), ended.errors


@pytest.mark.parametrize("full", [False, True])
def test_the_outcome_of_a_loop_that_has_ended_is_there_at_once(own_redis: RedisServer, *, full: bool) -> None:
    """A save that waits in a loop that has ended goes on nowhere: `settled` in the next one returns what is known."""
    ended = run(
        f"""
from session_reuse import SessionManager, reusable_session

async def visit():
    async with reusable_session("shop/alice", manager=SessionManager()) as session:
        session.data["n"] = 1
        server.config_set("maxmemory", int({full}))
    return session

say(asyncio.run(asyncio.run(visit()).settled()))
server.config_set("maxmemory", 0)
""",
        own_redis,
        timeout=60.0,
    )
    assert ended.lines == ["pending" if full else "saved"], ended.errors


@pytest.mark.parametrize("end", ["loop = None; gc.collect()", "gc.collect(); asyncio.run(visit('shop/bob'))", ""])
@pytest.mark.parametrize("options", ["", "exclusive=True"], ids=["shared", "exclusive"])
def test_agents_of_a_loop_that_is_only_closed_are_reported(own_redis: RedisServer, end: str, options: str) -> None:
    """One is at work, and three leave: their saves are on their way, or behind that of another one. Nothing awaits them."""
    ended = run(
        f"""
from session_reuse import SessionManager, reusable_session
manager = SessionManager()

async def visit(fingerprint="shop/alice", number=0, leaves=None):
    async with reusable_session(fingerprint, manager=manager, {options}) as session:
        session.data[str(number)] = 1
        if leaves is not None:
            await leaves.wait()

async def leave():
    leaves = asyncio.Event()
    for number in range(1 if {options!r} else 3):
        agents.append(asyncio.create_task(visit("shop/alice", number, leaves)))
    agents.append(asyncio.create_task(visit("shop/carol", 0, asyncio.Event())))
    await asyncio.sleep(0.5)
    pause_writes()
    leaves.set()
    await asyncio.sleep(0.1)

agents = []
loop = asyncio.new_event_loop()
loop.run_until_complete(leave())
loop.close()
agents.clear()
resume_writes()
{end}
""",
        own_redis,
        timeout=60.0,
    )
    lost = [line for line in ended.logged if "save_lost" in line]
    assert sum("shop/alice" in line for line in lost) == (1 if options else 3)
    assert sum("shop/carol" in line for line in lost) == 1
    assert not [line for line in ended.errors.splitlines() if "Exception ignored" in line or "never awaited" in line]

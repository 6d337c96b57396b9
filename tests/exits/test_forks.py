"""A child process starts again, whatever its parent was doing when it forked."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import Sentinel

from session_reuse._store.redis.redis_py import forget_connections
from tests.exits.programs import run, start, stored
from tests.harness.polling import wait_until
from tests.harness.servers import RedisServer

pytestmark = pytest.mark.redis

HEAD = """
import session_reuse
from session_reuse import blocking

def visit(fingerprint, manager=None, reusable_session=blocking.reusable_session):
    with reusable_session(fingerprint, "agent", manager=manager) as session:
        session.data["n"] = session.data.get("n", 0) + 1
    return f"{session.outcome} {session.save_outcome} {session.data['n']}"

async def async_visit(fingerprint, manager=None):
    async with session_reuse.reusable_session(fingerprint, "agent", manager=manager) as session:
        session.data["n"] = session.data.get("n", 0) + 1
    return f"{session.outcome} {session.save_outcome} {session.data['n']}"

def in_child(work):
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if status:
            say("child ended with", status)
        return
    signal.alarm(90)
    try:
        say(work())
    except BaseException as error:
        say(repr(error))
    sys.exit()
"""

WAYS = {
    "default": "step = lambda: visit('shop/alice')",
    "own": "manager = blocking.SessionManager(); step = lambda: visit('shop/alice', manager)",
    "async": "step = lambda: asyncio.run(async_visit('shop/alice'))",
    "same loop": "loop = asyncio.new_event_loop(); step = lambda: loop.run_until_complete(async_visit('shop/alice'))",
    "own async": """
manager, pid = session_reuse.SessionManager(), os.getpid()
loop = asyncio.new_event_loop()
step = lambda: (loop if os.getpid() == pid else asyncio.new_event_loop()).run_until_complete(async_visit('shop/alice', manager))
""",
    "client of one's own": """
import redis.asyncio
client = redis.asyncio.Redis.from_url(os.environ["SESSION_REUSE_URL"])
manager = blocking.SessionManager(client)
step = lambda: visit('shop/alice', manager)
""",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_fork_after_use_starts_anew_in_the_child(redis_server: RedisServer, way: str) -> None:
    """Parent and children take turns on one session: each reuses what the other has saved, over its own connections."""
    ended = run(
        HEAD + WAYS[way] + "\nsay(step())\nin_child(step)\nsay(step())\nin_child(step)\nsay(step())", redis_server
    )
    assert ended.lines == ["missing saved 1", *(f"reused saved {number}" for number in range(2, 6))]
    assert (ended.code, ended.errors) == (0, "")


def test_a_child_does_not_use_the_connections_of_its_parent(redis_server: RedisServer) -> None:
    """Parent and child work at the same time, 50 times each: no reply reaches the wrong process."""
    ended = run(
        HEAD
        + """
manager = blocking.SessionManager()
visit("shop/parent", manager)
child = os.fork()
name = "parent" if child else "child"
for _ in range(50):
    found = visit(f"shop/{name}", manager)
assert found.startswith("reused saved"), found
if child:
    assert os.waitpid(child, 0)[1] == 0
    say(found)
""",
        redis_server,
    )
    assert (ended.lines, ended.code, ended.errors) == (["reused saved 51"], 0, "")
    assert stored(redis_server) == {"shop/parent", "shop/child"}


@pytest.mark.parametrize("use", ["visit('shop/child')", "asyncio.run(async_visit('shop/child'))"])
def test_a_fork_during_a_first_use_leaves_no_lock_behind(redis_server: RedisServer, use: str) -> None:
    """Another thread of the parent is in its first use when the process forks: the child waits for no lock of it."""
    ended = run(
        HEAD
        + f"""
forking, made = threading.Event(), asyncio.new_event_loop
def make():
    if threading.current_thread().name == "first":
        forking.set()
        time.sleep(0.3)
    return made()

asyncio.new_event_loop = make
first = threading.Thread(target=lambda: visit("shop/parent"), name="first")
first.start()
forking.wait()
in_child(lambda: {use})
first.join()
""",
        redis_server,
    )
    assert (ended.lines, ended.code, ended.errors) == (["missing saved 1"], 0, "")
    assert stored(redis_server) == {"shop/parent", "shop/child"}


PROCESSES = """
import logging, multiprocessing, os, sys
logging.basicConfig(format="LOG %(message)s", stream=sys.stdout)
from session_reuse.blocking import SessionManager, reusable_session

manager = SessionManager()

def work(number):
    with reusable_session(f"shop/{number}", "agent", manager=manager) as session:
        session.data["n"] = 1
    return session.save_outcome.value

def leave_pending():
    import redis
    with reusable_session("shop/pending", "agent", manager=SessionManager(save_timeout=0.1, close_timeout=60)) as session:
        session.data["n"] = 1
        redis.Redis.from_url(os.environ["SESSION_REUSE_URL"]).execute_command("CLIENT", "PAUSE", 500, "ALL")

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    print(work("parent"), flush=True)
    with context.Pool(2) as pool:
        print(*pool.map(work, range(4)), flush=True)
    child = context.Process(target=leave_pending)
    child.start()
    child.join()
    print(child.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing_children_work_and_flush(redis_server: RedisServer, method: str, tmp_path: Path) -> None:
    """A manager of the module, used in the parent before: each child has one of its own, and flushes what waits at its end."""
    program = tmp_path / "program.py"
    program.write_text(PROCESSES)
    run_it = f"os.execv(sys.executable, [sys.executable, {str(program)!r}, {method!r}])"
    ended = run(run_it, redis_server)
    assert ended.lines == ["saved", "saved saved saved saved", "0"]
    assert (ended.code, ended.errors) == (0, "")
    assert stored(redis_server) == {"shop/parent", "shop/pending", *(f"shop/{number}" for number in range(4))}


def test_prefork_workers_serve_and_end_on_sigterm(redis_server: RedisServer) -> None:
    """A master that loads the application, uses it, forks workers and ends them by SIGTERM, as gunicorn does."""
    process = start(
        HEAD
        + """
manager = blocking.SessionManager()
visit("shop/master", manager)
workers = []
for number in range(3):
    worker = os.fork()
    if not worker:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with blocking.reusable_session(f"shop/{number}", manager=manager) as session:
            session.data["n"] = 1
            say("ready")
            while True:
                time.sleep(0.05)
    workers.append(worker)
sys.stdin.readline()
for worker in workers:
    os.kill(worker, signal.SIGTERM)
say(*(os.waitpid(worker, 0)[1] for worker in workers))
""",
        redis_server,
    )
    assert process.stdout is not None
    ready = [process.stdout.readline().strip() for _ in range(3)]
    output, errors = process.communicate("\n", timeout=100)
    assert ready == ["ready"] * 3
    assert (output.strip(), errors, process.returncode) == ("0 0 0", "", 0)
    wait_until(lambda: stored(redis_server) == {"shop/master", "shop/0", "shop/1", "shop/2"})


INSIDE = """
def refused(call):
    try:
        return call()
    except session_reuse.LifecycleError as error:
        return error

manager = blocking.SessionManager()
with blocking.reusable_session("shop/alice", "agent", manager=manager, exclusive=True) as session:
    session.data["parent"] = 1
    child = os.fork()
    session.data["child"] = not child
    if not child:
        signal.alarm(90)
        {use}
    say("child ended with", os.waitpid(child, 0)[1])
say(session.save_outcome, session.data)
"""
NOT_OURS = "'shop/alice' was entered in the parent process: enter it again in this one"


@pytest.mark.parametrize(
    ("use", "lines"),
    [
        ("sys.exit()", []),
        ("say(refused(session.checkpoint)); os._exit(0)", [NOT_OURS]),
        ("say(refused(session.invalidate)); os._exit(0)", [NOT_OURS]),
        ("say(session.settled()); os._exit(0)", ["None"]),
        ("say(refused(lambda: session.bind_capture(dict))); os._exit(0)", [NOT_OURS]),
        ("say(manager.save(blocking.BrowserSession('shop/bob'))); os._exit(0)", ["saved"]),
    ],
)
def test_a_child_that_was_forked_inside_a_session_leaves_it_to_its_parent(
    redis_server: RedisServer, use: str, lines: list[str]
) -> None:
    """It sends nothing over the connections of its parent, and waits for no reply that the parent receives."""
    ended = run(HEAD + INSIDE.format(use=use), redis_server)
    assert ended.lines == [*lines, "child ended with 0", "saved {'parent': 1, 'child': False}"]
    assert (ended.code, ended.errors) == (0, "")
    left = [line for line in ended.logged if "session_reuse.save_skipped" in line]
    assert len(left) == (use == "sys.exit()")


def test_a_child_that_was_forked_inside_an_asynchronous_session_leaves_it_to_its_parent(
    redis_server: RedisServer,
) -> None:
    """A `SystemExit` of the child passes through the `async with`: only the parent saves."""
    ended = run(
        HEAD
        + """
async def main():
    async with session_reuse.reusable_session("shop/alice", "agent") as session:
        session.data["parent"] = 1
        child = os.fork()
        session.data["child"] = not child
        if not child:
            signal.alarm(90)
            sys.exit()
        say("child ended with", os.waitpid(child, 0)[1])
    say(session.save_outcome, session.data)

asyncio.run(main())
""",
        redis_server,
    )
    assert ended.lines == ["child ended with 0", "saved {'parent': 1, 'child': False}"]
    assert (ended.code, ended.errors) == (0, "")


async def test_a_child_keeps_no_connection_to_a_sentinel_or_a_starting_node() -> None:
    """It would write on a socket of its parent. The client finds the primary, and the nodes, over connections of its own."""
    sentinel = Sentinel([("127.0.0.1", 1)])
    primary = sentinel.master_for("main")
    cluster = RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", 1)])
    (asked,), (node,) = sentinel.sentinels, cluster.nodes_manager.startup_nodes.values()
    to_sentinel = asked.connection_pool.make_connection()
    asked.connection_pool._available_connections.append(to_sentinel)
    to_node = node.acquire_connection()
    node.release(to_node)
    assert forget_connections(primary) == [to_sentinel]
    assert forget_connections(cluster) == [to_node]
    assert (asked.connection_pool._available_connections, list(node._free)) == ([], [])

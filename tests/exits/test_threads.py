"""Synchronous code may end in any order: threads, exit hooks and interrupts lose no work and hang nothing."""

from __future__ import annotations

import pytest

from tests.exits.programs import leases, run, stored
from tests.harness.servers import RedisServer

pytestmark = pytest.mark.redis

THREADS = """
from session_reuse.blocking import reusable_session

def work(number):
    if "late" in sys.argv:
        main_has_ended()
    with reusable_session(f"shop/{number}", "agent") as session:
        main_has_ended()
        session.data["n"] = session.checkpoint().value
    say(session.outcome, session.data["n"], session.save_outcome)

if "refused" in sys.argv:
    without_new_threads()
for number in range(4):
    threading.Thread(target=work, args=(number,)).start()
"""


@pytest.mark.parametrize("mode", [(), ("late",), ("late", "refused")], ids=["inside", "late", "no-new-threads"])
def test_threads_that_outlive_the_main_thread_save_their_work(redis_server: RedisServer, mode: tuple[str, ...]) -> None:
    """Threads at work, or before their first use, when the main thread ends: restored, saved, and the process ends."""
    ended = run(THREADS, redis_server, *mode, url=redis_server.url.replace("127.0.0.1", "localhost"))
    assert ended.lines == ["missing saved saved"] * 4
    assert (ended.code, ended.errors) == (0, "")
    assert stored(redis_server) == {f"shop/{number}" for number in range(4)}


def test_a_thread_that_cannot_reach_the_store_any_more_starts_fresh(redis_server: RedisServer) -> None:
    """No thread can be started, and another loop runs in this one: the agent works, and is told that its work is lost."""
    ended = run(
        """
        from session_reuse.blocking import reusable_session

        def agent(loop):
            with reusable_session("shop/alice", "agent") as session:
                session.data["n"] = 1
                say(session.outcome, session.checkpoint())
            say(session.save_outcome)
            loop.stop()

        def work():
            main_has_ended()
            loop = asyncio.new_event_loop()
            loop.call_soon(agent, loop)
            loop.run_forever()
            loop.close()

        without_new_threads()
        threading.Thread(target=work).start()
        """,
        redis_server,
    )
    assert (ended.lines, ended.lost) == (["unavailable lost", "lost"], 2)
    assert (ended.code, ended.errors) == (0, "")


EXIT_HOOKS = {
    "close before use": "atexit.register(manager.close); visit()",
    "close after use": "visit(); atexit.register(manager.close)",
    "close without use": "atexit.register(manager.close)",
    "first use": "atexit.register(visit)",
    "use": "visit(); atexit.register(visit)",
    "leave": 'stack.enter_context(session).data["n"] = 1; atexit.register(stack.close)',
    "leave, registered first": 'atexit.register(stack.close); stack.enter_context(session).data["n"] = 1',
}


@pytest.mark.parametrize("own", [True, False], ids=["own", "default"])
@pytest.mark.parametrize("hook", EXIT_HOOKS)
def test_exit_hooks_may_use_and_close_managers(redis_server: RedisServer, hook: str, *, own: bool) -> None:
    """`atexit` hooks run when the other threads have ended: they restore, save and close as at any other time."""
    ended = run(
        """
        from session_reuse.blocking import SessionManager, reusable_session
        manager = SessionManager()
        options = {"manager": manager} if "True" in sys.argv else {}
        stack = contextlib.ExitStack()
        session = reusable_session("shop/alice", "agent", **options)

        def visit():
            with reusable_session("shop/alice", "agent", **options) as session:
                session.data["n"] = session.data.get("n", 0) + 1
            say(session.save_outcome)

        exec(sys.argv[1])
        """,
        redis_server,
        EXIT_HOOKS[hook],
        str(own),
    )
    assert (ended.code, ended.errors) == (0, "")
    assert set(ended.lines) <= {"saved"}
    assert stored(redis_server) == (set() if hook == "close without use" else {"shop/alice"})


INTERRUPTED = """
from session_reuse.blocking import reusable_session

def interrupt():
    signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize("failed", [False, True], ids=["well", "failed"])
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit"])
def test_an_interrupt_during_the_save_loses_nothing(redis_server: RedisServer, error: str, *, failed: bool) -> None:
    """A signal arrives while Redis does not answer: the error comes out at once, and the save is written before the end."""
    ended = run(
        """
        from session_reuse.blocking import reusable_session

        def handle(*_):
            raise KeyboardInterrupt if "KeyboardInterrupt" in sys.argv else SystemExit(3)

        signal.signal(signal.SIGTERM, handle)
        try:
            with reusable_session("shop/alice", "agent") as session:
                session.data["n"] = 1
                pause_writes()
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
                if "True" in sys.argv:
                    raise ValueError
        except BaseException as error:
            say(type(error).__name__)
        resume_writes()
        """,
        redis_server,
        error,
        str(failed),
    )
    assert (ended.lines, ended.code, ended.errors) == ([error], 0, "")
    assert stored(redis_server) == {"shop/alice"}


def test_an_interrupted_capture_keeps_the_rest_and_releases_the_lease(redis_server: RedisServer) -> None:
    """Ctrl-C while the browser is read: what is known is saved, the lease is released, the interrupt comes out."""
    ended = run(
        INTERRUPTED
        + """
try:
    with reusable_session("shop/alice", "agent", exclusive=True) as session:
        session.data["n"] = 1
        session.bind_capture(interrupt)
except KeyboardInterrupt:
    say(session.save_outcome)
""",
        redis_server,
    )
    assert (ended.lines, ended.code, ended.errors) == (["saved"], 0, "")
    assert (stored(redis_server), leases(redis_server)) == ({"shop/alice"}, 0)


def test_an_interrupted_check_at_enter_releases_the_lease(redis_server: RedisServer) -> None:
    """Ctrl-C in `verify` before the body: nothing is saved, and the next agent need not wait for a lease."""
    ended = run(
        INTERRUPTED
        + """
with reusable_session("shop/alice", "agent") as session:
    session.data["n"] = 1
try:
    with reusable_session("shop/alice", "agent", exclusive=True, verify=lambda _: interrupt()):
        say("never")
except KeyboardInterrupt:
    with reusable_session("shop/alice", "agent", exclusive=True, wait=1.0) as session:
        say(session.outcome, session.data)
""",
        redis_server,
    )
    assert (ended.lines, ended.code, ended.errors) == (["reused {'n': 1}"], 0, "")
    assert leases(redis_server) == 0


def test_a_check_that_exits_on_the_loop_stops_nobody_else(redis_server: RedisServer) -> None:
    """An asynchronous `verify` raises SystemExit: its own caller gets it, and the loop goes on for the others."""
    ended = run(
        """
        from session_reuse.blocking import reusable_session

        async def leave(_):
            sys.exit(3)

        for name in ("alice", "bob"):
            with reusable_session(f"shop/{name}", "agent") as session:
                session.data["n"] = 1
        try:
            with reusable_session("shop/alice", "agent", verify=leave):
                say("never")
        except SystemExit as error:
            say(error.code)
        with reusable_session("shop/bob", "agent") as session:
            say(session.outcome)
        """,
        redis_server,
    )
    assert (ended.lines, ended.code) == (["3", "reused"], 0)


def test_saves_that_wait_are_flushed_before_the_process_ends(redis_server: RedisServer) -> None:
    """A manager that no one closed: what waits for the store is written, or reported as lost, at the end of the process."""
    text = """
        from session_reuse.blocking import SessionManager, reusable_session
        manager = SessionManager(save_timeout=0.2, close_timeout=float(sys.argv[1]))
        with reusable_session("shop/alice", manager=manager) as session:
            session.data["n"] = session.data.get("n", 0) + 1
            pause_writes()
        say(session.save_outcome)
        if "back" in sys.argv:
            resume_writes()
        """
    back = run(text, redis_server, "60", "back")
    assert (back.lines, back.lost, back.code, back.errors) == (["pending"], 0, 0, "")
    assert stored(redis_server) == {"shop/alice"}
    away = run(text, redis_server, "0.3")
    assert (away.lines, away.lost) == (["pending"], 1)


def test_a_session_that_the_end_of_the_interpreter_closes_is_reported(redis_server: RedisServer) -> None:
    """A generator that no one finished leaves its session after all exit hooks: that is reported, and nothing hangs."""
    ended = run(
        """
        from session_reuse.blocking import reusable_session

        def agent():
            with reusable_session("shop/alice") as session:
                session.data["n"] = 1
                yield session

        left_open = agent()
        say(next(left_open).outcome)
        """,
        redis_server,
        timeout=60.0,
    )
    assert (ended.lines, ended.code, ended.lost, ended.errors) == (["missing"], 0, 1, "")


def test_a_reload_of_the_package_does_not_keep_the_process(redis_server: RedisServer) -> None:
    """Each copy of the module has a loop with a thread, and none of them waits for the other's end."""
    ended = run(
        """
        from session_reuse.blocking import reusable_session

        def work(name, enter):
            with enter(name) as session:
                session.data["n"] = 1
            say(session.save_outcome)

        work("first", reusable_session)
        for name in [name for name in sys.modules if name.startswith("session_reuse")]:
            del sys.modules[name]
        from session_reuse.blocking import reusable_session as reloaded
        work("second", reloaded)
        """,
        redis_server,
    )
    assert ended.lines == ["saved", "saved"]
    assert (ended.code, ended.errors) == (0, "")
    assert stored(redis_server) == {"first", "second"}


@pytest.mark.parametrize("where", ["callback", "task"])
def test_a_session_that_the_collector_closes_on_the_loop_is_saved(redis_server: RedisServer, where: str) -> None:
    """A generator is closed in the thread that allocates. There the exit waited for its own loop, and all threads with it."""
    ended = run(
        """
        from session_reuse import blocking
        from session_reuse._background import background

        class Node: pass

        def agent():
            with blocking.reusable_session("shop/alice", "agent", exclusive=True) as session:
                session.data["n"] = 1
                yield session

        gc.disable()
        node = Node()
        node.itself, node.agent = node, agent()
        next(node.agent)
        del node
        if "task" in sys.argv:
            async def collect(): gc.collect()
            background.run(collect())
        else:
            background._current.loop.call_soon_threadsafe(gc.collect)
        with blocking.reusable_session("shop/alice", exclusive=True, wait=20) as session:
            say(session.outcome, session.data)
        """,
        redis_server,
        where,
        timeout=40.0,
    )
    assert (ended.lines, ended.code, ended.errors) == (["reused {'n': 1}"], 0, "")

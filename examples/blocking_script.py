# /// script
# requires-python = ">=3.11"
# dependencies = ["session-reuse[embedded]"]
# ///
"""Use sessions in synchronous code, also from many threads: `with` in place of `async with`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from session_reuse.blocking import SessionManager, reusable_session


def work(number: int) -> str:
    """Run one agent in its own thread."""
    with reusable_session(f"blocking.example/user-{number % 2}", agent_id=f"thread-{number}") as session:
        session.data[f"thread-{number}"] = "was here"
    return f"thread-{number}: {session.save_outcome}"


with ThreadPoolExecutor(4) as threads:
    for line in threads.map(work, range(4)):
        print(line)

with SessionManager() as manager:
    restored = manager.restore("blocking.example/user-0")
    print("user-0 was used by", sorted(restored.data) if restored else "no agent")
    for summary in manager.sessions():
        print(f"stored: {summary.fingerprint}, version {summary.version}, {summary.size} bytes")

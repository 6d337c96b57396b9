# /// script
# requires-python = ">=3.11"
# dependencies = ["session-reuse[embedded]"]
# ///
"""Run the clean-up job: it finds expired sessions, removes their traces, and calls your function.

Redis deletes an expired session. The job removes the rest: the affinity of the agents, and the entry in the index.
"""

from __future__ import annotations

import asyncio

from session_reuse import SessionManager, reusable_session

expired: asyncio.Queue[str] = asyncio.Queue()


async def on_expired(fingerprint: str) -> None:
    """Receive each expired session, once among all workers."""
    await expired.put(fingerprint)


async def main() -> None:
    """Store a session that expires while the job runs."""
    async with SessionManager(ttl=0.5, cleanup_interval=0.2, on_expired=on_expired) as manager:
        job = asyncio.create_task(manager.cleanup())
        async with reusable_session("cleanup-job.example/alice", "agent-7", manager=manager) as session:
            session.data["basket"] = ["book"]
        print("agent-7 used last:", await manager.affinity("agent-7"))
        print("expired:", await expired.get())
        print("agent-7 used last:", await manager.affinity("agent-7"))
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


asyncio.run(main())

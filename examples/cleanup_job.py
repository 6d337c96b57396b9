# /// script
# requires-python = ">=3.11"
# dependencies = ["session-reuse[embedded]"]
# ///
"""Run the clean-up job: it notices sessions that have expired, removes what they left behind, and tells you.

Redis itself deletes an expired session. The job deals with the rest: the agents' affinity, the index, your own books.
"""

from __future__ import annotations

import asyncio

from session_reuse import SessionManager, reusable_session

told: asyncio.Queue[str] = asyncio.Queue()


async def on_expired(fingerprint: str) -> None:
    """Be told of each expired session, once among all workers."""
    await told.put(fingerprint)


async def main() -> None:
    """Let a session expire while the job runs."""
    async with SessionManager(ttl=0.5, cleanup_interval=0.2, on_expired=on_expired) as manager:
        job = asyncio.create_task(manager.cleanup())
        async with reusable_session("cleanup-job.example/alice", "agent-7", manager=manager) as session:
            session.data["basket"] = ["book"]
        print("agent-7 used last:", await manager.affinity("agent-7"))
        print("expired:", await told.get())
        print("agent-7 used last:", await manager.affinity("agent-7"))
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


asyncio.run(main())

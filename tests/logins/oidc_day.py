"""A day of agents and keepers at an OpenID provider that rotates refresh tokens and detects their reuse.

python -m tests.logins.oidc_day --hours 24 --kills 40

8 agents use four logins by day, 3 keepers keep them alive by day and night. The keepers are processes, and are killed with -9
at random. The clock of the provider goes on as soon as each login was used in the last hour of that clock: a lease of 5 seconds
is as long in a compressed day as in a real one, and a token is not.

The provider uses up a refresh token before the new one can be stored. So each refresh is announced in the stored session
first. A login whose refresh was cut off is made again with the password: its token is not tried a second time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
import redis.asyncio

from session_reuse import BrowserSession, Outcome, SaveOutcome, SessionManager, reusable_session
from tests.agents import npm
from tests.harness.servers import RedisServer

PROVIDER = Path(__file__).with_name("oidc_provider.mjs")
NAMES = [f"oidc/user-{number}" for number in range(4)]
AGENTS, KEEPERS = 8, 3
LEASE = 5.0
UNATTENDED = 3600
"""Seconds of the provider's clock for which a login may go without a use."""
PATIENCE = 60.0
"""Seconds for which the clock may stand still: longer than the lease of a killed keeper."""
DONE = "http://127.0.0.1/done"
SETTINGS: dict[str, Any] = {
    "registry": None, "lease_ttl": LEASE, "attempt_timeout": 5.0, "restore_timeout": 10.0, "save_timeout": 10.0,
}  # fmt: skip
WRITTEN = {SaveOutcome.SAVED, SaveOutcome.MERGED, SaveOutcome.UNCHANGED}


class Found(StrEnum):
    """What a use has found."""

    IN = "in"
    UNSURE = "unsure"
    """A refresh was announced and never stored: its holder was killed."""
    OUT = "lost"


class Site:
    """The provider, as one agent or keeper uses it.

    Args:
        issuer: its address.
        counts: where uses, times and losses are noted.
        client: without its own session.
    """

    def __init__(self, issuer: str, counts: redis.asyncio.Redis, client: httpx.AsyncClient) -> None:
        self._issuer = issuer
        self._counts = counts
        self._client = client

    async def use(self, session: BrowserSession) -> Found:
        """Open the account. Refresh the token where it has expired."""
        if session.data.get("refreshing"):
            return Found.UNSURE
        if not await self._is_in(session) and not await self._refresh(session):
            return Found.OUT
        now = (await self._client.get(f"{self._issuer}/report")).json()["now"]
        await self._counts.hset("used at", session.fingerprint, now)
        await self._counts.incr("uses")
        return Found.IN

    async def _is_in(self, session: BrowserSession) -> bool:
        header = {"Authorization": f"Bearer {session.data['access_token']}"}
        return (await self._client.get(f"{self._issuer}/me", headers=header)).status_code == 200

    async def _refresh(self, session: BrowserSession) -> bool:
        session.data["refreshing"] = True
        if await session.checkpoint() not in WRITTEN:
            return False
        grant = {"grant_type": "refresh_token", "refresh_token": session.data["refresh_token"], "client_id": "agent"}
        answer = await self._client.post(f"{self._issuer}/token", data=grant)
        if answer.status_code != 200:
            return False
        _keep(session, answer.json())
        return await session.checkpoint() in WRITTEN

    async def log_in(self, session: BrowserSession) -> None:
        """Log in with the password, as a person does."""
        asked = {
            "client_id": "agent", "redirect_uri": DONE, "response_type": "code", "scope": "openid offline_access",
            "prompt": "consent",
        }  # fmt: skip
        async with httpx.AsyncClient(timeout=30.0) as client:
            answer = await client.get(f"{self._issuer}/auth", params=asked)
            while not answer.headers.get("location", "").startswith(DONE):
                if answer.is_redirect:
                    answer = await client.get(answer.url.join(answer.headers["location"]))
                    continue
                (prompt,) = re.findall(r'name="prompt" value="(\w+)"', answer.text)
                form = {"prompt": prompt, "login": session.fingerprint, "password": "right"}
                answer = await client.post(answer.url, data=form)
            code = httpx.URL(answer.headers["location"]).params["code"]
            grant = {"grant_type": "authorization_code", "code": code, "client_id": "agent", "redirect_uri": DONE}
            _keep(session, (await client.post(f"{self._issuer}/token", data=grant)).json())

    async def log_in_again(self, session: BrowserSession, found: Found) -> None:
        """Note why, and log in."""
        await self._counts.incr(found.value)
        await self.log_in(session)


def _keep(session: BrowserSession, tokens: dict[str, Any]) -> None:
    session.data.update(access_token=tokens["access_token"], refresh_token=tokens["refresh_token"], refreshing=False)


@asynccontextmanager
async def entered(url: str, issuer: str) -> AsyncIterator[tuple[SessionManager, Site, redis.asyncio.Redis]]:
    """Open what an agent or keeper needs."""
    async with (
        SessionManager(url, **SETTINGS) as manager,
        redis.asyncio.Redis.from_url(url) as counts,
        httpx.AsyncClient(timeout=30.0) as client,
    ):
        yield manager, Site(issuer, counts, client), counts


async def keep(url: str, issuer: str) -> None:
    """Keep all logins alive, until killed."""
    found: dict[str, Found] = {}

    async with entered(url, issuer) as (manager, site, counts):

        async def probe(session: BrowserSession) -> bool:
            found[session.fingerprint] = await site.use(session)
            return found[session.fingerprint] is Found.IN

        async def relogin(session: BrowserSession) -> bool:
            await site.log_in_again(session, found[session.fingerprint])
            return True

        while True:
            await manager.keep_alive(probe, "oidc/*", relogin=relogin, every=0.05, once=True)
            await counts.incr("rounds")
            await asyncio.sleep(0.02)


class Day:
    """One day.

    Args:
        url: the store.
        issuer: the provider.
        hours: of its clock.
        step: seconds by which its clock goes on at a time.
        kills: how many keepers are killed.
        seed: of the moments.
    """

    def __init__(self, url: str, issuer: str, *, hours: float, step: int, kills: int, seed: int) -> None:
        self._url = url
        self._issuer = issuer
        self._end = round(hours * 3600)
        self._step = step
        self._chance = random.Random(seed)
        self._kill_at = sorted(self._chance.sample(range(step, self._end - step, step), kills))
        self._keepers: list[subprocess.Popen[bytes]] = []
        self._now = 0

    async def run(self) -> dict[str, Any]:
        """Return the numbers of the day."""
        async with AsyncExitStack() as stack:
            manager, site, counts = await stack.enter_async_context(entered(self._url, self._issuer))
            for name in NAMES:
                async with reusable_session(name, manager=manager) as session:
                    await site.log_in(session)
                    await site.use(session)
            stack.callback(self._end_keepers)
            for _ in range(KEEPERS):
                self._start_keeper()
            agents = [asyncio.create_task(self._agent(number)) for number in range(AGENTS)]
            try:
                await self._pass_time(counts, agents)
            finally:
                for agent in agents:
                    agent.cancel()
                await asyncio.gather(*agents, return_exceptions=True)
            return await self._numbers(site, manager, counts)

    async def _pass_time(self, counts: redis.asyncio.Redis, agents: list[asyncio.Task[None]]) -> None:
        async with httpx.AsyncClient(timeout=30.0) as client:
            while self._now < self._end:
                await self._until_attended(counts, agents)
                self._now += self._step
                (await client.post(f"{self._issuer}/clock", params={"seconds": self._step})).raise_for_status()
                while self._kill_at and self._kill_at[0] <= self._now:
                    self._kill_at.pop(0)
                    await asyncio.sleep(self._chance.uniform(0.0, 0.2))  # any moment of a round
                    self._kill_a_keeper()

    async def _until_attended(self, counts: redis.asyncio.Redis, agents: list[asyncio.Task[None]]) -> None:
        """Wait until each login was used lately."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for agent in agents:
                    if agent.done():
                        agent.result()
                used = await counts.hgetall("used at")
                if min(map(int, used.values())) + UNATTENDED > self._now:
                    return
                await asyncio.sleep(0.01)

    async def _agent(self, number: int) -> None:
        """Use a login now and then, from 8 to 20 o'clock."""
        chance = random.Random(number)
        async with entered(self._url, self._issuer) as (manager, site, _):
            while True:
                await asyncio.sleep(chance.uniform(0.02, 0.1))
                if not 8 <= self._now / 3600 % 24 < 20:
                    continue
                name = chance.choice(NAMES)
                async with reusable_session(
                    name, f"agent-{number}", manager=manager, exclusive=True, wait=1
                ) as session:
                    if session.outcome is Outcome.BUSY:
                        continue
                    found = await site.use(session)
                    if found is not Found.IN:
                        await site.log_in_again(session, found)

    def _start_keeper(self) -> None:
        command = [sys.executable, "-m", "tests.logins.oidc_day", "--keeper", self._url, self._issuer]
        self._keepers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))

    def _kill_a_keeper(self) -> None:
        keeper = self._keepers.pop(self._chance.randrange(len(self._keepers)))
        keeper.send_signal(signal.SIGKILL)
        if keeper.wait() != -signal.SIGKILL:
            raise AssertionError("a keeper had ended by itself")
        self._start_keeper()

    def _end_keepers(self) -> None:
        for keeper in self._keepers:
            keeper.kill()
            keeper.wait()

    async def _numbers(self, site: Site, manager: SessionManager, counts: redis.asyncio.Redis) -> dict[str, Any]:
        self._end_keepers()
        alive = 0
        for name in NAMES:
            async with reusable_session(name, manager=manager, exclusive=True, wait=3 * LEASE) as session:
                alive += session.reused and await site.use(session) is not Found.OUT
        async with httpx.AsyncClient(timeout=30.0) as client:
            report = (await client.get(f"{self._issuer}/report")).json()
        noted = {name: int(await counts.get(name) or 0) for name in ("uses", "rounds", "unsure", "lost")}
        return {"hours": self._now / 3600, "alive": alive, **report, **noted}


@contextmanager
def provider(access_life: int, refresh_life: int) -> Iterator[str]:
    """Run a provider. Its tokens live so many seconds."""
    command = ["node", str(PROVIDER), str(npm.FOLDER), str(access_life), str(refresh_life)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@dataclass(frozen=True)
class Lives:
    """Seconds for which tokens live."""

    access: int = 1200
    refresh: int = 3 * 3600


def simulate(url: str, *, hours: float = 24.0, step: int = 900, kills: int = 2, seed: int = 1) -> dict[str, Any]:
    """Run a day on a store, and return its numbers."""
    lives = Lives()
    with provider(lives.access, lives.refresh) as issuer:
        return asyncio.run(Day(url, issuer, hours=hours, step=step, kills=kills, seed=seed).run())


def main() -> int:
    """Run a day, or be a keeper."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keeper", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--hours", type=float, default=24.0, help="of the provider's clock")
    parser.add_argument("--step", type=int, default=300, help="seconds by which the clock goes on at a time")
    parser.add_argument("--kills", type=int, default=40, help="how many keepers are killed")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    given = parser.parse_args()
    if given.keeper:
        asyncio.run(keep(*given.keeper))
    began = time.monotonic()
    with RedisServer() as server:
        numbers = simulate(server.url, hours=given.hours, step=given.step, kills=given.kills, seed=given.seed)
    sys.stdout.write(json.dumps(numbers | {"kills": given.kills, "seconds": round(time.monotonic() - began, 1)}) + "\n")
    return 1 if numbers["reused"] or numbers["lost"] or numbers["alive"] < len(NAMES) else 0


if __name__ == "__main__":
    sys.exit(main())

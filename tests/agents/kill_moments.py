"""`kill -9` at random moments: `python -m tests.agents.kill_moments --times 100 [--seed 1]`.

A page writes the time into a cookie and into localStorage, 20 times a second. At a random moment the command, Chromium, Redis
or `session-reuse run` is killed. Afterwards the stored time is at most one checkpoint interval older than that moment, no
process and no folder is left, and the next run reuses the session.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from tests.agents.runs import AGENT, LIMIT, Runs, agent_of, finished, processes_with, report_of, stored
from tests.harness.pages import PageHandler, serving
from tests.harness.polling import wait_until
from tests.harness.servers import RedisServer

CHECKPOINT = 2.0
LOOK = 1.25
"""Seconds between two looks at cookies that scripts set, as `browsers/_attachment.py` has it."""
LONGEST = 6.0

_PAGE = b"""<!doctype html><link rel="icon" href="data:,"><title>done</title><script>
setInterval(() => {
  localStorage.setItem('beat', Date.now());
  document.cookie = `beat=${Date.now()};max-age=86400`;
}, 50);
</script>"""


class Victim(StrEnum):
    """What is killed."""

    COMMAND = "command"
    CHROMIUM = "chromium"
    REDIS = "redis"
    RUN = "run"


@dataclass(frozen=True)
class Moment:
    """What became of one moment.

    Attributes:
        victim: what was killed.
        after: seconds after the agent had begun.
        lost: seconds between the stored time and that moment, of the cookie and of localStorage.
        problems: that the run which was hit has reported.
        saved: what the run that was hit has reported of its save. Empty if it was killed.
        outcome: of the next run.
    """

    victim: Victim
    after: float
    lost: tuple[float, float]
    saved: str
    problems: tuple[str, ...]
    outcome: str


class _Beating(PageHandler):
    def respond(self) -> None:
        self.answer(_PAGE)


class Field:
    """A site, a store and a folder in which runs are killed."""

    def __init__(self) -> None:
        self._site = serving(_Beating)
        self._redis = RedisServer(appendonly=True)
        self._folder = tempfile.TemporaryDirectory(prefix="sr-", dir="/tmp")

    def __enter__(self) -> Self:
        self._url = f"http://127.0.0.1:{self._site.__enter__()}/"
        self._redis.__enter__()
        self.runs = Runs(self._redis.url, self._folder.name)
        return self

    def __exit__(self, *_: object) -> None:
        self._redis.__exit__(None, None, None)
        self._site.__exit__(None, None, None)
        self._folder.cleanup()

    def kill(self, victim: Victim, after: float) -> Moment:
        """Start a run, kill something of it, and look at what remains."""
        report = Path(self.runs.folder, "report.json")
        words = ("--report", str(report), "--", *AGENT, "beat", self._url)
        with self.runs.start(*words, start_new_session=True, stderr=subprocess.DEVNULL) as run:
            assert run.stdout is not None
            assert run.stdout.readline().strip() == "done"
            agent = agent_of(self.runs)
            time.sleep(CHECKPOINT + LOOK + after)  # before its first checkpoint, a new session has nothing to lose
            moment = time.time()
            self._strike(victim, run, agent)
            if victim in {Victim.CHROMIUM, Victim.REDIS}:
                run.terminate()
            run.wait(LIMIT)
        wait_until(lambda: not Path(f"/proc/{agent}").exists(), message="the command lives on")
        wait_until(lambda: not self.runs.leftovers, message="something of the browser was left behind")
        found = json.loads(report.read_text()) if report.exists() else {"save_outcome": "", "problems": []}
        report.unlink(missing_ok=True)
        problems = tuple(f"{each['kind']}: {each['reason']}" for each in found["problems"])
        cookie, item = self._stored()
        return Moment(victim, after, (moment - cookie, moment - item), found["save_outcome"], problems, self._next())

    def _strike(self, victim: Victim, run: subprocess.Popen[str], agent: int) -> None:
        if victim is Victim.REDIS:
            self._redis.kill()
            time.sleep(0.5)
            self._redis.restart()
        elif victim is Victim.CHROMIUM:
            profile = f"user-data-dir={self.runs.folder}/session-reuse-"
            os.kill(min(processes_with(profile)), signal.SIGKILL)
        else:
            os.kill(run.pid if victim is Victim.RUN else agent, signal.SIGKILL)

    def _stored(self) -> tuple[float, float]:
        """Return the two stored times."""
        state = stored(self._redis.url)
        (cookie,) = [each["value"] for each in state["cookies"] if each["name"] == "beat"]
        (item,) = [each["value"] for origin in state["origins"] for each in origin["localStorage"]]
        return int(cookie) / 1000, int(item) / 1000

    def _next(self) -> str:
        """Return what the next run finds."""
        with self.runs.start("--", "true") as run:
            _, err = finished(run)
        return str(report_of(err)["outcome"])


def main(times: int, seed: int, slack: float, victims: list[Victim]) -> list[str]:
    """Kill so many times, print each moment, and return what was wrong."""
    chance, wrong, moments = random.Random(seed), [], []
    with Field() as field:
        for number in range(times):
            victim = victims[number % len(victims)]
            moment = field.kill(victim, chance.uniform(0, LONGEST))
            moments.append(moment)
            print(f"{number + 1}/{times}", moment, flush=True)  # noqa: T201
            if moment.outcome != "reused":
                wrong.append(f"{moment}: the next run did not reuse")
            if max(moment.lost) > CHECKPOINT + LOOK + slack:
                wrong.append(f"{moment}: more than a checkpoint interval is lost")
    for victim in Victim:
        lost = [max(each.lost) for each in moments if each.victim is victim]
        print(victim, f"{len(lost)} times, lost at most {max(lost, default=0):.2f} s")  # noqa: T201
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slack", type=float, default=1.0, help="seconds that a save may take on this machine")
    parser.add_argument("--victims", nargs="+", type=Victim, default=list(Victim))
    given = parser.parse_args()
    found = main(given.times, given.seed, given.slack, given.victims)
    print(*found, "nothing was wrong" if not found else f"{len(found)} wrong", sep="\n")  # noqa: T201
    sys.exit(bool(found))

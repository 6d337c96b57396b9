"""Histories: who does what and what goes wrong, drawn from one seed.

A history uses a part of the vocabulary only, drawn first ("swarm testing"): a history of everything at once hides what
two words do together. All of a history stands in its steps, so that one can be shrunk by leaving steps out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

POOL: Final = "shop"
MEMBERS: Final = ("alice", "bob")
FINGERPRINTS: Final = tuple(f"{POOL}/{member}" for member in MEMBERS)
OUTSIDE: Final = frozenset({"c:out", "l:out"})
"""Items of another site, which an agent with `allowed_domains` is not given and cannot change."""
ITEMS: Final = ("c:a", "c:b", "l:k", "d:n", "d:m")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens.

    Attributes:
        number: names the step, also when others are left out.
        after: seconds since the step before.
        kind: what happens. A method of `World`.
        arguments: of that method.
    """

    number: int
    after: float
    kind: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        shown = ", ".join(
            f"{name}={value!r}" for name, value in self.arguments.items() if value not in (None, False, ())
        )
        return f"+{self.after:<7.3f} {self.kind}({shown})"


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """One process: its clock's error, its distance, its key (0: none), managers, whether it spools."""

    skew: float = 0.0
    far: float = 0.0
    key: int = 0
    managers: int = 1
    spool: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """A seed, drawn.

    Attributes:
        config: of all managers.
        processes: who takes part.
        server_skew: the error of the server's clock.
    """

    seed: int
    config: dict[str, Any]
    processes: tuple[ProcessPlan, ...]
    steps: tuple[Step, ...] = field(default=())
    server_skew: float = 0.0

    def without(self, numbers: set[int]) -> History:
        """Return the history without some of its steps."""
        return replace(self, steps=tuple(step for step in self.steps if step.number not in numbers))


def draw(seed: int, without: frozenset[str] = frozenset()) -> History:
    """Draw a history, without some of the words that came later.

    Each of these has its own generator: a seed without them is the history that it was before there were any.
    """
    history = _Draw(seed).history()
    for word, (odds, add) in LATER.items():
        chance = Random(f"{word}/{seed}")
        if word not in without and chance.random() < odds:
            history = add(history, chance)
    return history


def _with_scopes(history: History, chance: Random) -> History:
    """Have some agents with `allowed_domains`, some that only read, and items of a second site."""
    steps = []
    for step in history.steps:
        arguments = dict(step.arguments)
        if "body" in arguments:
            arguments["body"] = tuple(_elsewhere(deed, chance) for deed in arguments["body"])
        if step.number == 0:
            arguments["body"] += tuple(("set", item) for item in sorted(OUTSIDE))
        elif step.kind in {"visit", "crowd"}:
            kind = chance.random()
            if kind < 0.35:
                arguments["allowed_domains"] = ("shop.example",)
            elif kind < 0.5 and not arguments.get("exclusive"):
                arguments["save"] = "never"
        steps.append(replace(step, arguments=arguments))
    return replace(history, steps=tuple(steps))


def _elsewhere(deed: tuple[Any, ...], chance: Random) -> tuple[Any, ...]:
    if deed[0] in {"set", "delete"} and chance.random() < 0.3:
        return (deed[0], chance.choice(sorted(OUTSIDE)))
    return deed


def _with_pools(history: History, chance: Random) -> History:
    """Have agents that take what a pool hands out, marks with a cooldown, and members that come and go."""
    members = MEMBERS if chance.random() < 0.6 else MEMBERS[:1]
    steps = [Step(LATER_STEPS, 0.0, "pool_edit", {"process": 0, "add": members})]
    for step in history.steps:
        arguments = dict(step.arguments)
        if step.number and step.kind in {"visit", "crowd"} and chance.random() < 0.6 and "save" not in arguments:
            for name in ("fingerprint", "exclusive", "on_busy"):
                arguments.pop(name, None)
            arguments |= {"pool": True, "wait": chance.choice((0.0, 0.3, 2.0, 8.0, 45.0))}
            if chance.random() < 0.2:
                arguments["on_busy"] = "raise"
            if chance.random() < 0.3:
                arguments["body"] = (*arguments["body"], ("cool", chance.choice((1.0, 8.0))))
            if step.kind == "crowd":
                arguments["size"] = min(8, arguments["size"])
        steps.append(replace(step, arguments=arguments))
    for number in range(LATER_STEPS + 1, LATER_STEPS + 1 + chance.choice((0, 0, 1, 2, 3))):
        edit = {
            "process": chance.randrange(len(history.processes)),
            chance.choice(("add", "remove")): (chance.choice(members),),
        }
        at = chance.randrange(1, len(steps) + 1)
        steps.insert(at, Step(number, round(chance.uniform(0, 0.5), 4), "pool_edit", edit))
    if chance.random() < 0.3:  # more agents than members, one after the other
        work = {"pool": True, "wait": 3.0, "body": (("sleep", 0.8),)}
        rush = [
            Step(LATER_STEPS + 10 + at, 0.35, "visit", {"process": chance.randrange(len(history.processes)), **work})
            for at in range(10)
        ]
        at = chance.randrange(1, len(steps) + 1)
        steps[at:at] = rush
    return replace(history, steps=tuple(steps))


def _with_copies(history: History, chance: Random) -> History:
    """Have requests that arrive twice: a proxy between the two has sent them again."""
    steps = list(history.steps)
    for number in range(LATER_STEPS + 100, LATER_STEPS + 100 + chance.choice((1, 2, 4))):
        copies = {
            "process": chance.randrange(len(history.processes)),
            "what": "twice",
            "part": chance.choice(
                ("", "commit", "commit", "acquire", "release", "invalidate", "count_use", "pool_edit")
            ),
            "seconds": chance.choice((0.0, 0.02, 0.5, 5.0)),
            "times": chance.choice((1, 3)),
        }
        at = chance.randrange(1, len(steps) + 1)
        steps.insert(at, Step(number, 0.0, "mishap", copies))
    return replace(history, steps=tuple(steps))


LATER_STEPS: Final = 50_000
"""Numbers of steps that later words have added begin here."""
LATER: Final[dict[str, tuple[float, Callable[[History, Random], History]]]] = {
    "scopes": (0.25, _with_scopes), "pools": (0.2, _with_pools), "copies": (0.15, _with_copies),
}  # fmt: skip
"""Word -> how many of the histories use it, and what adds it."""


class _Draw:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = Random(f"history/{seed}")
        chance = self.chance
        self.swarm = {word for word in _WORDS if chance.random() < _WORDS[word]}
        self.fingerprints = FINGERPRINTS[: 1 if chance.random() < 0.7 else 2]
        self.pace = chance.choice((0.05, 0.3, 0.3, 1.5))

    def on(self, word: str, odds: float = 1.0) -> bool:
        return word in self.swarm and self.chance.random() < odds

    def history(self) -> History:
        chance = self.chance
        config = self.config()
        processes = tuple(self.process() for _ in range(chance.choice((1, 2, 2, 3))))
        if "another key" in self.swarm:
            processes = (*(replace(plan, key=1) for plan in processes), ProcessPlan(key=chance.choice((0, 2))))
        elif "encryption" in self.swarm or any(plan.spool for plan in processes):
            processes = tuple(replace(plan, key=1) for plan in processes)
        self.ttl, self.lease_ttl = config["ttl"], config["lease_ttl"]
        self.processes = processes
        count = chance.choice((4, 6, 8, 12, 18))
        steps = [self.first(0)] + [self.step(number) for number in range(1, count)]
        skew = chance.uniform(-3, 3) if "skewed clocks" in self.swarm else 0.0
        return History(self.seed, config, processes, tuple(steps), skew)

    def config(self) -> dict[str, Any]:
        chance = self.chance
        config: dict[str, Any] = {
            "ttl": chance.choice((4.0, 20.0, 60.0)) if "short ttl" in self.swarm else 86400.0,
            "lease_ttl": chance.choice((3.0, 10.0, 30.0)),
        }
        if "max_age" in self.swarm:
            config["max_age"] = chance.choice((10.0, 60.0))
        if "ttl_from_cookies" in self.swarm:
            config["ttl_from_cookies"] = True
        if "not sliding" in self.swarm:
            config["sliding"] = False
        if "budgets" in self.swarm:
            config |= chance.choice((
                {"attempt_timeout": 0.4, "restore_timeout": 1.0}, {"attempt_timeout": 0.5}, {"attempt_timeout": 0.05, "restore_timeout": 0.1},
            ))  # fmt: skip
        if "replica" in self.swarm:
            config["reuse_while_away"] = chance.choice((0.0, 2.0, 10.0))
        if "no transport" in self.swarm:
            config["_direct"] = False
        if "few pending" in self.swarm:
            config["pending_max"] = 1
        return config

    def process(self) -> ProcessPlan:
        chance = self.chance
        return ProcessPlan(
            skew=chance.choice((-5.0, -1.0, 0.0, 1.0, 5.0)) if "skewed clocks" in self.swarm else 0.0,
            far=chance.choice((0.0, 0.0, 0.02, 0.04)) if "far away" in self.swarm else 0.0,
            managers=2 if self.on("two managers", 0.5) else 1,
            spool=self.on("spool", 0.7),
        )

    def first(self, number: int) -> Step:
        """Draw a login: without one there is nothing to go wrong."""
        return Step(
            number,
            0.0,
            "visit",
            {"process": 0, "fingerprint": self.fingerprints[0], "body": (("login",), ("set", "d:n"), ("set", "c:a"))},
        )

    def gap(self) -> float:
        chance = self.chance
        kind = chance.random()
        if kind < 0.45:
            return chance.uniform(0, 0.02)
        if kind < 0.85:
            return chance.expovariate(1 / self.pace)
        if kind < 0.95:
            return chance.uniform(1, 4)
        return chance.uniform(0.3, 1.3) * chance.choice((self.lease_ttl, min(self.ttl, 60.0), 10.0))

    def step(self, number: int) -> Step:
        chance = self.chance
        kinds = ["visit"] * 12 + [
            word for word, (needs, weight) in _KINDS.items() for _ in range(weight) if not needs or needs in self.swarm
        ]
        kind = chance.choice(kinds)
        return Step(number, round(self.gap(), 4), kind, getattr(self, f"_{kind}")())

    def some_process(self) -> int:
        return self.chance.randrange(len(self.processes))

    def manager(self) -> dict[str, Any]:
        process = self.some_process()
        return {"process": process, "manager": self.chance.randrange(self.processes[process].managers)}

    # Agents

    def _visit(self) -> dict[str, Any]:
        chance = self.chance
        found: dict[str, Any] = {**self.manager(), "fingerprint": chance.choice(self.fingerprints)}
        if self.on("exclusive", 0.6):
            found["exclusive"] = True
            if chance.random() < 0.5:
                found["wait"] = chance.choice((0.5, 2.0, 5.0))
            if chance.random() < 0.3:
                found["on_busy"] = "raise"
        if self.on("strict", 0.4):
            found["strict"] = True
        if self.on("max_uses", 0.5):
            found["max_uses"] = chance.choice((1, 2, 5))
        if self.on("verify", 0.3):
            found["verify"] = chance.choice(("passes", "fails", "fails first"))
        if self.on("save_on_error", 0.3):
            found["save_on_error"] = False
        found["body"] = self.body()
        if self.on("cancel", 0.4):
            found["strike"] = (chance.choice(("enter", "body", "checkpoint", "exit")), chance.randrange(6), "cancel")
        elif self.on("interrupt", 0.3):
            found["strike"] = (chance.choice(("enter", "body", "checkpoint", "exit")), chance.randrange(6), "interrupt")
        return found

    def body(self) -> tuple[tuple[Any, ...], ...]:
        chance = self.chance
        deeds: list[tuple[Any, ...]] = []
        for _ in range(chance.choice((0, 1, 1, 2, 3, 4))):
            deeds.append(self.deed())
            if chance.random() < 0.3:
                deeds.append(("sleep", self.stay()))
        return tuple(deeds)

    def stay(self) -> float:
        chance = self.chance
        kind = chance.random()
        if kind < 0.6:
            return round(chance.uniform(0.001, 0.05), 4)
        if kind < 0.9:
            return round(chance.expovariate(1 / self.pace), 4)
        return round(chance.uniform(0.5, 1.5) * chance.choice((self.lease_ttl, min(self.ttl, 60.0))), 3)

    def deed(self) -> tuple[Any, ...]:
        chance = self.chance
        words: list[tuple[Any, ...]] = [
            ("set", chance.choice(ITEMS)),
            ("set", chance.choice(ITEMS)),
            ("set", "d:n"),
            ("pair",),
        ]
        if "delete" in self.swarm:
            words += [("delete", chance.choice(ITEMS)), ("delete", chance.choice(ITEMS))]
        if "logout" in self.swarm:
            words += [("logout",), ("logout", "all")]
        if "login" in self.swarm:
            words.append(("login",))
        if "checkpoint" in self.swarm:
            words += [("checkpoint",), ("checkpoint", "aside"), ("checkpoint", "aside")]
        if "marks" in self.swarm:
            words += [("mark_good",), ("mark_bad",), ("mark_bad",)]
        if "raise" in self.swarm:
            words.append(("raise",))
        if "discard" in self.swarm:
            words.append(("discard",))
        if "evict" in self.swarm:
            words.append(("invalidate",))
        if "assign" in self.swarm:
            words.append(("assign",))
        return chance.choice(words)

    def _crowd(self) -> dict[str, Any]:
        chance = self.chance
        body = chance.choice(((), (), (("set", "d:n"),), (("set", "c:a"), ("sleep", 0.01))))
        return {
            **self.manager(),
            "fingerprint": chance.choice(self.fingerprints),
            "size": chance.choice((8, 20, 40)),
            "body": body,
        }

    def _damage(self) -> dict[str, Any]:
        return {"fingerprint": self.chance.choice(self.fingerprints), "how": self.chance.choice(("half", "garbage"))}

    def _evict(self) -> dict[str, Any]:
        return {**self.manager(), "fingerprint": self.chance.choice(self.fingerprints)}

    def _by_hand(self) -> dict[str, Any]:
        body = tuple(deed for deed in self.body() if deed[0] in {"set", "delete", "pair", "sleep", "login"})
        return {
            **self.manager(),
            "fingerprint": self.chance.choice(self.fingerprints),
            "body": body,
            "made": self.chance.random() < 0.3,
        }

    # What happens to processes

    def _crash(self) -> dict[str, Any]:
        return {"process": self.some_process(), "back_after": round(self.chance.choice((0.1, 2.0, 20.0)), 2)}

    def _pause(self) -> dict[str, Any]:
        return {
            "process": self.some_process(),
            "seconds": round(self.chance.choice((0.3, 3.0, 1.2 * self.lease_ttl, 1.2 * min(self.ttl, 60.0))), 2),
        }

    def _reopen(self) -> dict[str, Any]:
        return self.manager()

    def _clock(self) -> dict[str, Any]:
        return {"process": self.some_process(), "by": self.chance.choice((-8.0, -2.0, 2.0, 8.0))}

    def _cleanup(self) -> dict[str, Any]:
        return self.manager()

    # What happens to the network

    def _cut(self) -> dict[str, Any]:
        return {"process": self.some_process()}

    def _partition(self) -> dict[str, Any]:
        return {"process": self.some_process(), "seconds": self.while_(), "reset": self.chance.random() < 0.5}

    def _mishap(self) -> dict[str, Any]:
        chance = self.chance
        kind = chance.choice(
            (
                "slow_request",
                "slow_request",
                "slow_reply",
                "lost_request",
                "lost_reply",
                "lost_reply",
                "silent_request",
                "silent_reply",
                "silent_reply",
                "split",
                "trickle",
            )
        )
        part = chance.choice(
            ("", "", "commit", "slide", "GETEX", "acquire", "release", "invalidate", "count_use", "renew", "GET")
        )
        return {
            "process": self.some_process(),
            "what": kind,
            "part": part,
            "seconds": round(chance.choice((0.05, 0.3, 1.0, 4.0, 30.0)), 3),
            "times": chance.choice((1, 1, 2, 4)),
        }

    # What happens to the server

    def while_(self) -> float:
        chance = self.chance
        return round(chance.choice((0.1, 0.5, 2.0, 8.0, 1.2 * min(self.ttl, 60.0))) * chance.uniform(0.7, 1.3), 3)

    def _freeze(self) -> dict[str, Any]:
        return {"seconds": self.while_()}

    def _down(self) -> dict[str, Any]:
        return {"seconds": self.while_(), "empty": self.chance.random() < 0.3}

    def _failover(self) -> dict[str, Any]:
        return {"loses": round(self.chance.choice((0.01, 0.5, 3.0)), 2), "skew": round(self.chance.uniform(-2, 2), 2)}

    def _evict_key(self) -> dict[str, Any]:
        return {
            "fingerprint": self.chance.choice(self.fingerprints),
            "what": self.chance.choice(("session", "lease", "tombstone", "agents", "session")),
        }

    def _refuse_writes(self) -> dict[str, Any]:
        return {"how": self.chance.choice(("full", "full", "read_only", "loading")), "seconds": self.while_()}

    def _wrong_password(self) -> dict[str, Any]:
        return {"seconds": self.while_()}

    def _flush_scripts(self) -> dict[str, Any]:
        return {}


_WORDS: Final = {
    "skewed clocks": 0.3, "far away": 0.2, "encryption": 0.2, "another key": 0.1, "two managers": 0.25, "spool": 0.12, "short ttl": 0.35, "max_age": 0.15,
    "ttl_from_cookies": 0.12, "not sliding": 0.08, "few pending": 0.05, "exclusive": 0.35, "strict": 0.2, "max_uses": 0.2, "verify": 0.15, "save_on_error": 0.1,
    "cancel": 0.3, "interrupt": 0.2, "delete": 0.6, "logout": 0.25, "login": 0.25, "checkpoint": 0.45, "marks": 0.3, "raise": 0.25, "discard": 0.15, "evict": 0.35,
    "assign": 0.3, "by hand": 0.2, "crash": 0.2, "pause": 0.2, "reopen": 0.15, "clock jumps": 0.1, "cleanup": 0.1, "cut": 0.2, "partition": 0.3, "mishaps": 0.35,
    "freeze": 0.2, "down": 0.2, "failover": 0.15, "evicted keys": 0.12, "refused writes": 0.25, "wrong password": 0.08, "script flush": 0.1,
    "no transport": 0.15, "crowd": 0.06, "damage": 0.06, "budgets": 0.1, "replica": 0.3,
}  # fmt: skip
"""Word -> how many of the histories use it."""

_KINDS: Final[dict[str, tuple[str, int]]] = {
    "evict": ("evict", 2), "by_hand": ("by hand", 2), "crash": ("crash", 1), "pause": ("pause", 2), "reopen": ("reopen", 1), "clock": ("clock jumps", 1), "cleanup": ("cleanup", 1),
    "cut": ("cut", 2), "partition": ("partition", 2), "mishap": ("mishaps", 5), "freeze": ("freeze", 2), "down": ("down", 2), "failover": ("failover", 1),
    "evict_key": ("evicted keys", 2), "refuse_writes": ("refused writes", 3), "wrong_password": ("wrong password", 1), "flush_scripts": ("script flush", 1),
    "crowd": ("crowd", 2), "damage": ("damage", 1),
}  # fmt: skip
"""Kind of step -> the word it needs, and how often it comes."""

"""Draws calls of the package's Lua scripts: what stands under their keys, and arguments that fit it, most of them.

The roles of the keys are read from the first lines of the scripts. The arguments have to be known here for each.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final

from session_reuse._store.redis import scripts

NEVER: Final = "0" * 20
TIMES: Final = (NEVER, NEVER, NEVER, *(f"{17 * 10**14 + step:020d}" for step in (1, 2, 3)))
"""Times of invalidations and fencing tokens: few, so that they meet again. None is often."""
CREATED: Final = ("01700000000000", "01700000000000", "01700000000001")
SAVES: Final = tuple(letter * 12 for letter in "abcd")
HOLDERS: Final = ("holder", "other")
MEMBERS: Final = ("m1", "m2", "m3")
WAITERS: Final = ("w1", "w2")
IDS: Final = ("id-1", "id-2")
HOUR: Final = 3600
NAMES: Final = sorted(path.name.removesuffix(".lua") for path in files(scripts).iterdir() if path.name.endswith(".lua"))


def source_of(name: str) -> str:
    """Return the text of a script."""
    return files(scripts).joinpath(f"{name}.lua").read_text()


def roles_of(name: str) -> list[str]:
    """Return what the keys of a script are for, as its first lines list them."""
    listed = re.search(r"KEYS: (.+?)(?=   |\n)", source_of(name))
    assert listed is not None, f"{name}.lua does not list its keys"
    return re.sub(r" \([^)]*\)", "", listed.group(1)).split(", ")


class Drawn:
    """Draws keys and arguments.

    Args:
        chance: where it draws from.

    Attributes:
        found: role -> what stands under the key of the present case, where that is a string.
        scores: member -> its score in the pool of the present case.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.now = time.time()
        self.heads = [self.head() for _ in range(12)]
        self.found: dict[str, bytes] = {}
        self.scores: dict[str, str] = {}

    def head(self) -> bytes:
        """Draw a header such as one of ours, with a body."""
        chance = self.chance
        saves = "".join(chance.sample(SAVES, 4))
        retires = chance.choice((0, 0, 1000, int((self.now + 2 * HOUR) * 1000)))
        numbers = f"{chance.randrange(10**8):08d}{chance.choice((0, 3, 9995)):04d}{chance.choice((0, 2, 9999)):04x}"
        version = f"{chance.randrange(3):012d}"
        text = f"SRS1n--o{'0' * 8}{chance.choice(TIMES)}{chance.choice(TIMES)}{version}{saves}"
        text += f"{chance.choice(CREATED)}{chance.randrange(10**13):014d}{retires:014d}{numbers}"
        return text.encode() + b"\r\nbody"

    def anything(self) -> tuple[Any, ...] | None:
        """Draw something that does not belong under a key; a command without the key."""
        return self.chance.choice((
            None, ("SADD", "agent", "x"), ("ZADD", "5", "member"), ("SET", b"garbage"), ("SET", b""),
            ("SET", b"SRS1"), ("SET", self.chance.choice(self.heads)[:100], "PX", 90_000),
        ))  # fmt: skip

    def plant(self, role: str) -> tuple[Any, ...] | None:
        """Draw what stands under the key of a role, mostly what belongs there: a command without the key, or None."""
        chance = self.chance
        if chance.random() < 0.12:
            planted = self.anything()
        elif role in SORTED:
            scores = {member: self.score(role) for member in SORTED[role] if chance.random() < 0.7}
            if role == "pool":
                self.scores = scores
            planted = (
                ("ZADD", *(word for member, score in scores.items() for word in (score, member))) if scores else None
            )
        elif chance.random() < _ABSENT.get(role, 0.2):
            planted = None
        else:
            planted = ("SET", self.value(role), *chance.choice(((), ("PX", 90_000))))
        if planted is not None and planted[0] == "SET":
            self.found[role] = planted[1]
        return planted

    def score(self, role: str) -> str:
        """Draw the score of a member: in the past or the future, by the server's clock."""
        seconds = self.chance.choice((-500, -200, 200, 500, 2 * HOUR, -3 * 24 * HOUR))
        if role in {"pool", "waiters", "seen"}:
            half = 0.5 if role == "pool" and self.chance.random() < 0.4 else 0.0
            return f"{int((self.now + seconds) * 1_000_000) + half:.1f}"
        return str(int((self.now + seconds) * 1000))

    def value(self, role: str) -> bytes:
        """Draw the string of a role."""
        chance = self.chance
        if role in {"session", "staging", "quarantine"}:
            return chance.choice(self.heads)
        return {
            "lease": f"{chance.choice(TIMES[3:])}:{chance.choice(HOLDERS)}",
            "tombstone": f"{chance.choice(TIMES)}:{chance.choice(IDS)}:{chance.choice('01')}",
            "affinity": chance.choice(("shop/alice", "shop/alice\nseal", "shop/bob")),
        }.get(role, chance.choice(("1", "2", "sealed"))).encode()

    def case(self, name: str) -> tuple[list[tuple[Any, ...] | None], list[Any]]:
        """Draw a call of a script: what stands under each of its keys, and its arguments."""
        self.found, self.scores = {}, {}
        return [self.plant(role) for role in roles_of(name)], SHAPES[name](self)

    # What arguments refer to

    def mostly(self, likely: Any, *others: Any) -> Any:
        """Draw one value most of the time."""
        return likely if self.chance.random() < 0.75 else self.chance.choice(others)

    def part(self, first: int, last: int) -> bytes:
        """Return a part of the stored header, or of another one."""
        return self.mostly(self.found.get("session", self.heads[0]), *self.heads)[first:last]  # type: ignore[no-any-return]

    def lease(self) -> tuple[str, str]:
        """Return (token, holder): those of the lease that is there, mostly."""
        token, _, holder = self.found.get("lease", b"").decode("ascii", "replace").partition(":")
        other = self.chance.choice(TIMES)
        return self.mostly(token or other, other), self.mostly(holder or "holder", *HOLDERS, "")

    def yes(self) -> str:
        """Draw a flag."""
        return self.chance.choice("01")


SORTED: Final = {"agents": ("a1", "a2", "a3"), "bucket": MEMBERS, "pool": MEMBERS, "waiters": WAITERS, "seen": WAITERS}
_ABSENT: Final = {"once": 0.7, "cancelled": 0.8, "tombstone": 0.5, "lease": 0.4}
"""Role -> how often nothing stands under its key."""


def _commit(drawn: Drawn) -> list[Any]:
    chance = drawn.chance
    precondition = chance.choice(("matches", "matches", "matches", "absent", "corrupt", "unchanged", "unchanged"))
    known = drawn.part(0, 176) if precondition == "corrupt" else drawn.part(56, 116)
    _, holder = drawn.lease()
    invalidated_at = chance.choice((drawn.part(16, 36), drawn.found.get("tombstone", b"")[:20], NEVER))
    agents = chance.sample(("a1", "a4", "a5"), chance.randrange(3))
    return [precondition, known, invalidated_at, chance.choice((*SAVES[:1], *["e" * 12] * 5)), chance.choice(TIMES), holder, drawn.yes(), drawn.yes(),
            chance.choice(("0", "60000", "7200000")), drawn.yes(), chance.choice(("0", "10", "-5")), drawn.part(116, 130), chance.choice(("0", "5000")), *agents]  # fmt: skip


def _settle(drawn: Drawn) -> list[Any]:
    return [
        word for member in MEMBERS for word in (member, drawn.score("bucket"), drawn.chance.choice(("-1", "9000000")))
    ]


def _passed(drawn: Drawn) -> list[Any]:
    """Draw the members that a waiter has looked at: with the score that stands there, or another one."""
    members = drawn.chance.sample(MEMBERS, drawn.chance.randrange(3))
    return [
        word for name in members
        for word in (name, drawn.mostly(drawn.scores.get(name, "-1"), drawn.score("pool")), drawn.chance.choice(("0", "2000000")))
    ]  # fmt: skip


def _set_totp(drawn: Drawn) -> list[Any]:
    there = drawn.mostly(drawn.found.get("totp", b""), b"another")
    return [drawn.chance.choice((b"", b"sealed", b"new")), *drawn.chance.choice(((), (there,)))]


SHAPES: Final[dict[str, Callable[[Drawn], list[Any]]]] = {
    "acquire": lambda drawn: [drawn.lease()[1] or "holder", "60000"],
    "commit": _commit,
    "count_use": lambda drawn: [drawn.mostly(drawn.lease()[1], "")],
    "due": lambda drawn: [drawn.chance.choice(("1", "10"))],
    "facts": lambda _: [],
    "forget_affinity": lambda drawn: [drawn.mostly("shop/alice", "shop/bob")],
    "index": lambda drawn: [drawn.chance.choice((*MEMBERS, "new")), drawn.chance.choice(("60000", "500000000"))],
    "invalidate": lambda drawn: ["60000", drawn.chance.choice((*IDS, "id-3", "id-4")), drawn.mostly("", *CREATED)],
    "look": lambda _: [],
    "note_liveness": lambda drawn: [drawn.chance.choice(("alive", "dead")), drawn.part(116, 130), "60000"],
    "pool_edit": lambda drawn: [drawn.chance.choice(("add", "remove")), *drawn.chance.sample((*MEMBERS, "m4"), 2)],
    "pool_return": lambda drawn: [drawn.chance.choice(MEMBERS), drawn.chance.choice(("0", "100000", "9000000")), drawn.mostly("0", drawn.score("pool"))],
    "pool_take": lambda drawn: [drawn.chance.choice((*WAITERS, "w3")), drawn.mostly("0", drawn.score("waiters")[:-2]), "60000000", "300000000", str(HOUR * 1_000_000), *_passed(drawn)],
    "release": lambda drawn: [drawn.lease()[1]],
    "renew": lambda drawn: [*drawn.lease(), "60000"],
    "reseal_affinity": lambda drawn: [drawn.mostly(drawn.found.get("affinity", b""), b"shop/bob"), b"shop/alice\nnew"],
    "set_totp": _set_totp,
    "settle": _settle,
    "slide": lambda _: ["60000"],
    "take_agents": lambda _: [],
}  # fmt: skip
"""Script -> its arguments for the keys that were drawn last."""

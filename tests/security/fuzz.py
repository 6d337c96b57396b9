"""Hostile stored values: mutated, spliced, bombs. Only CorruptStateError may come out, in little time and memory.

`python -m tests.security.fuzz --count 100000 --seed 7` prints what was tried and what it cost at most.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import zstandard
from lz4 import block

from session_reuse._state import document
from session_reuse._state.codec import Codec
from session_reuse._state.header import LENGTH, Header, authenticated_part
from session_reuse._state.sealing import Checksum
from session_reuse._stored_form import decode_document
from session_reuse.errors import CorruptStateError

NAME: Final = "shop.example/alice"
KEY: Final = f"browser:session:{NAME}"
OTHER_NAME: Final = "shop.example/bob"
OTHER_KEY: Final = f"browser:session:{OTHER_NAME}"
LIMIT: Final = 256 * 1024
LONGEST: Final = 0.25
"""Seconds one value may take; a loaded machine stalls for tens of milliseconds by itself."""
MOST_MEMORY: Final = 24 * LIMIT
"""Bytes one value may take: JSON of the largest size that is allowed, opened."""
SECRET: Final = b"s" * 32

Mutation = Callable[[random.Random, "Target"], bytes]


@dataclass
class Target:
    """A codec and sound values of its making."""

    name: str
    codec: Codec
    sound: list[bytes]
    foreign: list[bytes]
    sealed_by_us: bool


@dataclass
class Findings:
    """What came out, and what it cost at most."""

    seed: int
    tried: Counter[str] = field(default_factory=Counter)
    corrupt: int = 0
    unharmed: int = 0
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0
    most_memory: int = 0

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.tried.items()))
        return (
            f"seed {self.seed}: {self.tried.total()} values ({kinds})\n"
            f"{self.corrupt} corrupt, {self.unharmed} unharmed (the mutation hit bytes that scripts may change), "
            f"{len(self.wrong)} wrong; slowest {self.slowest * 1000:.1f} ms, "
            f"most memory {self.most_memory / 1024:.0f} KiB (limit of a state {LIMIT // 1024} KiB)"
            + "".join(f"\n  {line}" for line in self.wrong[:20])
        )


def header(version: int = 3) -> Header:
    """Return a plausible head."""
    return Header(save_ids=("abcdef012345",), version=version, created_at=10**12, saved_at=10**12 + 5)


def body(name: str, size: int) -> bytes:
    """Return a document of about this size."""
    items = [{"name": f"k{number}", "value": "v" * 40} for number in range(size // 60)]
    state = {"cookies": [], "origins": [{"origin": "https://shop.example", "localStorage": items}]}
    return document.dump({"fingerprint": name, "storage_state": state, "data": {"n": 1}})[0]


def targets() -> list[Target]:
    """Return each compression with and without keys."""
    found = []
    for packing in ("zstd", "lz4", "zlib", "none"):
        for keys in ((), (SECRET,)):
            codec = Codec(compression=packing, keys=keys, max_bytes=LIMIT)
            plain = Codec(compression=packing, keys=(b"x" * 32,) if keys else (), max_bytes=LIMIT)
            sound = [codec.encode(body(NAME, size), "o", header(), KEY) for size in (100, 3000, 40_000)]
            foreign = [plain.encode(body(NAME, 3000), "o", header(), KEY)] if keys else []
            foreign += [codec.encode(body(OTHER_NAME, 3000), "o", header(), OTHER_KEY)]
            if keys:
                foreign += [Codec(max_bytes=LIMIT).encode(body(NAME, 3000), "o", header(), KEY)]
            found.append(Target(f"{packing}{'+key' if keys else ''}", codec, sound, foreign, bool(keys)))
    return found


# Mutations --------------------------------------------------------------------------------------------------------------


def flip(chance: random.Random, target: Target) -> bytes:
    """One to eight bits flipped."""
    value = bytearray(chance.choice(target.sound))
    for _ in range(chance.randint(1, 8)):
        value[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
    return bytes(value)


def cut_off(chance: random.Random, target: Target) -> bytes:
    """Any length but the right one."""
    value = chance.choice(target.sound)
    return value[: chance.randrange(len(value))] if chance.random() < 0.8 else value + chance.randbytes(9)


def splice(chance: random.Random, target: Target) -> bytes:
    """The head of one value, the body of another."""
    one, two = chance.choice(target.sound), chance.choice(target.sound + target.foreign)
    at, start = chance.randrange(len(one)), chance.randrange(len(two))
    return one[:at] + two[start:]


def rewrite_head(chance: random.Random, target: Target) -> bytes:
    """Other numbers and flags in the head."""
    value = bytearray(chance.choice(target.sound))
    at = chance.randrange(LENGTH + 4)
    put = chance.choice([b"9" * 12, b"-1", b"\xff" * 4, b"zzzz", b"aaaa", b"    ", b"0x1f", "٣".encode(), b"1_0"])
    value[at : at + len(put)] = put
    return bytes(value)


def noise(chance: random.Random, target: Target) -> bytes:
    """Random bytes behind the right start."""
    return chance.choice([b"", b"SRS1", target.sound[0][:LENGTH]]) + chance.randbytes(chance.randrange(4096))


def moved(chance: random.Random, target: Target) -> bytes:
    """A sound value of another session, another key, or without a seal."""
    return chance.choice(target.foreign)


def bomb(chance: random.Random, target: Target) -> bytes:
    """A small body that inflates to a large one, with a right checksum: what a writer without keys can make."""
    size = chance.choice([LIMIT + 1, 4 * LIMIT, 64 * LIMIT])
    flag, packed = chance.choice(
        [
            *_bombs(size),
            ("l", (2**31 - 1).to_bytes(4, "little") + b"\x1f\x00" + b"\xff" * 64),
        ]
    )
    return forged(flag, packed, "o")


@cache
def _bombs(size: int) -> tuple[tuple[str, bytes], ...]:
    honest = zstandard.ZstdCompressor().compress(bytes(size))
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(size))
    return ("z", honest), ("z", silent), ("l", block.compress(bytes(size))), ("d", zlib.compress(bytes(size)))


def lying_size(chance: random.Random, _target: Target) -> bytes:
    """A body that says it is small and is not, or the other way round."""
    packed = bytearray(block.compress(bytes(chance.choice([100, 2 * LIMIT]))))
    packed[:4] = chance.choice([1, 10, LIMIT, 2**31 - 1, 2**32 - 1]).to_bytes(4, "little")
    return forged("l", bytes(packed), "o")


def nested(chance: random.Random, _target: Target) -> bytes:
    """JSON nested deeper than any parser's stack."""
    depth = chance.choice([190, 230, 260, 500, 5000, 60_000])
    opening, closing = chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
    deep = opening * depth + b"1" + closing * depth
    front = b'{"fingerprint":"%s","storage_state":{},"data":{"deep":' % NAME.encode()
    if chance.random() < 0.5:
        front = b'{"fingerprint":"%s","data":{},"storage_state":{"deep":' % NAME.encode()
    return forged("-", front + deep + b"}}", chance.choice("os"))


def wrong_shape(chance: random.Random, _target: Target) -> bytes:
    """JSON that is not a session, or not of its dialect."""
    texts: list[object] = [
        [], 1, "x", None, {"fingerprint": NAME}, {"fingerprint": 1, "storage_state": {}, "data": {}},
        {"fingerprint": OTHER_NAME, "storage_state": {"cookies": [], "origins": []}, "data": {}},
        {"fingerprint": NAME, "storage_state": {"cookies": [1]}, "data": {}},
        {"fingerprint": NAME, "storage_state": {"cookies": {}}, "data": {}},
        {"fingerprint": NAME, "storage_state": {"origins": [{"origin": 5}]}, "data": []},
    ]  # fmt: skip
    raw = json.dumps(chance.choice(texts)).encode()
    return forged("-", chance.choice([raw, raw[:-1], b"\xff" + raw, b"NaN", b"1" * 5000]), chance.choice("os?x"))


def forged(flag: str, packed: bytes, dialect: str) -> bytes:
    """Return a value with a right checksum around any bytes: without keys, anybody who writes to the store can."""
    front = Header(flags=f"{flag}-{dialect}-", save_ids=("abcdef012345",), created_at=1, saved_at=1).encode()
    name = KEY.encode()
    sealed = Checksum().close(packed, authenticated_part(front) + name)
    return b"%b%04d%b%b" % (front, len(name), name, sealed)


MUTATIONS: Final[tuple[Mutation, ...]] = (
    flip, flip, flip, cut_off, splice, rewrite_head, rewrite_head, noise, moved, bomb, lying_size, nested, wrong_shape,
)  # fmt: skip


# Running ----------------------------------------------------------------------------------------------------------------


def read(target: Target, value: bytes) -> None:
    """Do with a value what a restore does."""
    decoded = target.codec.decode(value, KEY)
    found = decode_document(decoded.document, decoded.header.flags[2], NAME)
    document.dump(found)  # as the next save does: what can be read must not be a trap for the exit
    document.check_json(found["data"], "data")


def fuzz(count: int, seed: int, *, measure_memory_every: int = 100) -> Findings:
    """Try so many hostile values. Memory is measured on some, because that makes them slow."""
    chance, findings, all_targets = random.Random(seed), Findings(seed), targets()
    for number in range(count):
        target, mutation = chance.choice(all_targets), chance.choice(MUTATIONS)
        findings.tried[mutation.__name__] += 1
        value = mutation(chance, target)
        measured = measure_memory_every > 0 and number % measure_memory_every == 0
        _try(findings, target, mutation.__name__, value, measured=measured)
    return findings


def _try(findings: Findings, target: Target, kind: str, value: bytes, *, measured: bool) -> None:
    if measured:
        gc.collect()
        tracemalloc.start()
    began = time.thread_time()
    try:
        read(target, value)
    except CorruptStateError:
        findings.corrupt += 1
    except BaseException as error:  # noqa: BLE001  (anything else is what we look for)
        findings.wrong.append(f"{target.name} {kind}: {type(error).__name__} ({value[:24]!r}…)")
    else:
        _judge_unharmed(findings, target, kind, value)
    took = time.thread_time() - began
    if measured:
        findings.most_memory = max(findings.most_memory, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    else:
        findings.slowest = max(findings.slowest, took)
        if took > LONGEST:
            findings.wrong.append(f"{target.name} {kind}: took {took:.3f} s")


def _judge_unharmed(findings: Findings, target: Target, kind: str, value: bytes) -> None:
    """Let pass what differs from a sound value only where scripts write: invalidated_at, token, saved_at, uses, score, ttl."""
    plain = [one for one in target.sound if authenticated_part(one) + one[LENGTH:] == _covered(value)]
    if plain or (kind == "nested" and not target.sealed_by_us):
        findings.unharmed += 1
    else:
        findings.wrong.append(f"{target.name} {kind}: was accepted ({value[:24]!r}…)")


def _covered(value: bytes) -> bytes:
    return authenticated_part(value[:LENGTH]) + value[LENGTH:]


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    began = time.monotonic()
    findings = fuzz(arguments.count, arguments.seed)
    print(findings)  # noqa: T201  (a command)
    print(f"{time.monotonic() - began:.1f} s")  # noqa: T201
    return 1 if findings.wrong or findings.most_memory > MOST_MEMORY else 0


if __name__ == "__main__":
    sys.exit(main())

"""Every point where the simulator touches the code under test. When the code is rebuilt, this file is re-pointed."""

from __future__ import annotations

import importlib
import pkgutil
import random
import secrets
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final

import session_reuse
from session_reuse import SessionManager
from session_reuse._session.clock import elapsed
from session_reuse._state import document
from session_reuse._state.codec import Codec
from session_reuse._state.header import Header
from session_reuse._store.redis import scripts
from session_reuse.errors import CorruptStateError
from tests.harness.probes import runtime, was_used
from tests.simulation.loop import HOST, SimLoop

EPOCH: Final = 1_800_000_000.0
"""Unix time at which every history begins."""
_SKIPPED: Final = (
    "session_reuse.browsers",
    "session_reuse._browser",
    "session_reuse.cli",
    "session_reuse.pytest_plugin",
)


class _State:
    """Which history runs, and whether the package has our clocks."""

    loop: SimLoop | None = None
    patched = False


_state = _State()
_chance = random.Random(0)


# Clocks and chance ------------------------------------------------------------------------------------------------------


def monotonic() -> float:
    """Stand in for `time.monotonic`."""
    return _REAL_MONOTONIC() if _state.loop is None else _state.loop.time()


def wall() -> float:
    """Stand in for `time.time`: each process has its own clock."""
    if _state.loop is None:
        return _REAL_TIME()
    host = HOST.get()
    return EPOCH + _state.loop.time() + (host.skew if host is not None else 0.0)


_REAL_MONOTONIC = time.monotonic
_REAL_TIME = time.time


class _Time(types.ModuleType):
    """Stands in for the module `time`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class _Secrets(types.ModuleType):
    """Stands in for the module `secrets`."""

    @staticmethod
    def token_hex(size: int = 32) -> str:
        return f"{_chance.getrandbits(8 * size):0{2 * size}x}"

    @staticmethod
    def token_bytes(size: int = 32) -> bytes:
        return _chance.randbytes(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(secrets, name)


class _Random(types.ModuleType):
    """Stands in for the module `random`: a generator without a seed gets one of ours."""

    @staticmethod
    def Random(seed: Any = None) -> random.Random:  # noqa: N802
        return random.Random(_chance.getrandbits(64) if seed is None and _state.loop is not None else seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(random, name)


_TIME = _Time("time")
_TIME.monotonic, _TIME.time = monotonic, wall
_TIME.perf_counter = monotonic
_STANDS_IN: Final[dict[int, Any]] = {
    id(time.monotonic): monotonic, id(elapsed): monotonic, id(time.time): wall, id(time): _TIME, id(secrets): _Secrets("secrets"), id(random): _Random("random"),
    id(secrets.token_hex): _Secrets.token_hex, id(secrets.token_bytes): _Secrets.token_bytes,
}  # fmt: skip
_generators: list[random.Random] = []


def patch() -> None:
    """Give every module of the package our clocks. Outside of a history they show the real time."""
    if _state.patched:
        return
    _state.patched = True
    for found in pkgutil.walk_packages(session_reuse.__path__, "session_reuse."):
        if not found.name.startswith(_SKIPPED) and not found.name.endswith("__main__"):
            try:
                importlib.import_module(found.name)
            except ImportError:
                continue
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "session_reuse" and not name.startswith(_SKIPPED):
            _patch_module(module)


def _patch_module(module: types.ModuleType) -> None:
    for name, value in list(vars(module).items()):
        if id(value) in _STANDS_IN:
            setattr(module, name, _STANDS_IN[id(value)])
        elif isinstance(value, random.Random):
            if value not in _generators:  # one module may have it from another
                _generators.append(value)
        elif isinstance(value, types.FunctionType):
            _patch_defaults(value)
        elif isinstance(value, type) and value.__module__ == module.__name__:
            for member in vars(value).values():
                if isinstance(member, types.FunctionType):
                    _patch_defaults(member)


def _patch_defaults(function: types.FunctionType) -> None:
    if function.__defaults__:
        function.__defaults__ = tuple(_STANDS_IN.get(id(value), value) for value in function.__defaults__)
    if function.__kwdefaults__:
        function.__kwdefaults__ = {
            name: _STANDS_IN.get(id(value), value) for name, value in function.__kwdefaults__.items()
        }


def begin(loop: SimLoop, seed: int) -> None:
    """Start a history: its clock and its chance from here on."""
    patch()
    _state.loop = loop
    random.seed(seed)
    _chance.seed(seed)
    for number, generator in enumerate(_generators):
        generator.seed(f"{seed}/{number}")


def end() -> None:
    """End a history."""
    _state.loop = None


# The store ----------------------------------------------------------------------------------------------------------------


def script_names() -> dict[bytes, str]:
    """Return the names of the scripts, by SHA-1 and by source."""
    found: dict[bytes, str] = {}
    for path in files(scripts).iterdir():
        if path.name.endswith(".lua"):
            name = path.name.removesuffix(".lua")
            sha = scripts.sha_of(name)
            found[scripts.sources[sha].encode()] = found[sha.encode()] = name
    return found


def change_script(name: str, old: str, new: str) -> None:
    """Change a script in this process, for a mutant."""
    sha_of = scripts.sha_of
    source = scripts.sources[sha_of(name)]
    if old not in source:
        raise LookupError(f"{name}.lua does not contain {old!r}")
    changed = source.replace(old, new)
    sha = sha1(changed.encode(), usedforsecurity=False).hexdigest()
    scripts.sources[sha] = changed
    scripts.sha_of = lambda each: sha if each == name else sha_of(each)  # type: ignore[assignment]


def session_key(fingerprint: str) -> bytes:
    """Return the key of a session."""
    return f"browser:session:{fingerprint}".encode()


def side_key(kind: str, fingerprint: str) -> bytes:
    """Return a side key of a session: lease, tombstone, agents."""
    return f"browser:{kind}:{{browser:session:{fingerprint}}}".encode()


def lease_holder(value: Any) -> str:
    """Return the agent that a lease belongs to, as far as its holder's name says so."""
    if not isinstance(value, bytes):
        return ""
    return value.partition(b":")[2].decode("utf-8", "replace").rpartition("-")[0]


# Stored values --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stored:
    """What a stored value says.

    Attributes:
        key: which of our keys opens it: 0 for none, or 1 and up.
        document: the document.
        version, save_ids, created_at, saved_at, retire_at, score, uses: from its header. Times in unix milliseconds.
    """

    key: int
    document: dict[str, Any]
    version: int
    save_ids: tuple[str, ...]
    created_at: int
    saved_at: int
    retire_at: int
    score: int
    uses: int


ENCRYPTION_KEYS: Final = (b"k" * 32, b"o" * 32)
"""The fleet's key, and another one."""
_codecs: list[Codec] = []
_opened: dict[bytes, tuple[int, dict[str, Any]]] = {}


def decode(value: bytes, key: bytes) -> Stored:
    """Open a stored value with whichever key opens it.

    Raises:
        CorruptStateError: none does.
    """
    header = Header.decode(value)
    sealed = value[4:16] + value[56:158] + value[176:] + key
    found = _opened.get(sealed)
    if found is None:
        for number, codec in enumerate(_our_codecs()):
            try:
                opened = codec.decode(value, key.decode())
            except CorruptStateError:
                continue
            found = number, document.load(opened.document, opened.header.flags[2])
            break
        else:
            raise CorruptStateError("no key of ours opens it")
        if len(_opened) > 2000:
            _opened.clear()
        _opened[sealed] = found
    return Stored(
        found[0], found[1], header.version, header.save_ids, header.created_at, header.saved_at, header.retire_at,
        header.score, header.uses,
    )  # fmt: skip


def _our_codecs() -> list[Codec]:
    if not _codecs:
        _codecs.extend(Codec(keys=keys) for keys in ((), *((key,) for key in ENCRYPTION_KEYS)))
    return _codecs


# Managers and sessions ------------------------------------------------------------------------------------------------------


def crashed(manager: SessionManager) -> None:
    """Give back what the kernel gives back when a process dies: file locks."""
    disk = runtime(manager).writer.disk if was_used(manager) else None
    if disk is not None:
        disk._spool.end_claim()


def without_disk_sync() -> Callable[[], None]:
    """Make fsync free: the simulated disk never loses what was written. Return what undoes it."""
    import os

    real = os.fsync
    os.fsync = lambda _: None

    def undo() -> None:
        os.fsync = real

    return undo

"""Every point where the simulator touches the code under test. When the code is rebuilt, this file is re-pointed."""

from __future__ import annotations

import importlib
import importlib.util
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
from session_reuse.config import Config
from tests.simulation.loop import HOST, SimLoop

EPOCH: Final = 1_800_000_000.0
"""Unix time at which every history begins."""
HAS_REPLICA: Final = "reuse_while_away" in Config.__dataclass_fields__
"""Whether enters reuse the last known state while the store is away."""
USES_TRANSPORT: Final = importlib.util.find_spec("session_reuse._store.redis.redis_py") is not None
"""Whether the store reads and writes on the transport of redis-py's connections."""
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


SCRIPTS_PACKAGE: Final = "session_reuse._store.redis.scripts"


# Clocks and chance ------------------------------------------------------------------------------------------------------


def monotonic() -> float:
    """Stand in for `time.monotonic`."""
    return _REAL_MONOTONIC() if _state.loop is None else _state.loop.time()


def wall() -> float:
    """Stand in for `time.time`: each process has a clock of its own."""
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
    id(time.monotonic): monotonic, id(time.time): wall, id(time): _TIME, id(secrets): _Secrets("secrets"), id(random): _Random("random"),
    id(secrets.token_hex): _Secrets.token_hex, id(secrets.token_bytes): _Secrets.token_bytes,
}  # fmt: skip
_generators: list[random.Random] = []


def patch() -> None:
    """Give every module of the package our clocks; outside of a history they show the real time."""
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
    connections = sys.modules.get("session_reuse._store.connections")
    if connections is not None and hasattr(connections, "_pack"):
        connections._pack = None  # type: ignore[attr-defined]  # our connections pack by themselves, into lists


def _patch_module(module: types.ModuleType) -> None:
    for name, value in list(vars(module).items()):
        if id(value) in _STANDS_IN:
            setattr(module, name, _STANDS_IN[id(value)])
        elif isinstance(value, random.Random):
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
    load = importlib.import_module(SCRIPTS_PACKAGE).script
    for path in files(SCRIPTS_PACKAGE).iterdir():
        if path.name.endswith(".lua"):
            script = load(path.name.removesuffix(".lua"))
            found[script.source.encode()] = found[script.sha.encode()] = path.name.removesuffix(".lua")
    return found


def change_script(name: str, old: str, new: str) -> None:
    """Change a script in this process, for a mutant."""
    script = importlib.import_module(SCRIPTS_PACKAGE).script(name)
    if old not in script.source:
        raise LookupError(f"{name}.lua does not contain {old!r}")
    object.__setattr__(script, "source", script.source.replace(old, new))
    object.__setattr__(script, "sha", sha1(script.source.encode(), usedforsecurity=False).hexdigest())


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
        version, created_at, retire_at, score, uses: from its header; times in unix milliseconds.
    """

    key: int
    document: dict[str, Any]
    version: int
    created_at: int
    retire_at: int
    score: int
    uses: int


ENCRYPTION_KEYS: Final = (b"k" * 32, b"o" * 32)
"""The fleet's key, and another one."""
_codecs: list[Any] = []
_opened: dict[bytes, tuple[int, dict[str, Any]]] = {}


def decode(value: bytes, key: bytes) -> Stored:
    """Open a stored value with whichever key opens it.

    Raises:
        CorruptStateError: none does.
    """
    from session_reuse.errors import CorruptStateError

    header = importlib.import_module("session_reuse._state.header").Header.decode(value)
    sealed = value[4:16] + value[56:158] + value[176:] + key
    found = _opened.get(sealed)
    if found is None:
        for number, codec in enumerate(_our_codecs()):
            try:
                opened = codec.decode(value, key.decode())
            except CorruptStateError:
                continue
            document = importlib.import_module("session_reuse._state.document").load(
                opened.document, opened.header.flags[2]
            )
            found = number, document
            break
        else:
            raise CorruptStateError("no key of ours opens it")
        if len(_opened) > 2000:
            _opened.clear()
        _opened[sealed] = found
    return Stored(
        found[0], found[1], header.version, header.created_at, header.retire_at, header.score, header.uses,
    )  # fmt: skip


def _our_codecs() -> list[Any]:
    if not _codecs:
        codec = importlib.import_module("session_reuse._state.codec").Codec
        _codecs.extend(codec(keys=keys) for keys in ((), *((key,) for key in ENCRYPTION_KEYS)))
    return _codecs


# Managers and sessions ------------------------------------------------------------------------------------------------------


def make_manager(client: Any, lost: list[str], **config: Any) -> SessionManager:
    """Make a manager over a simulated client; `lost` is filled with the fingerprints of saves that it reports lost."""
    if "on_lost" in Config.__dataclass_fields__:
        config["on_lost"] = lambda fingerprint, *_: lost.append(fingerprint)
    return SessionManager(client, registry=None, **config)


def settled(session: Any) -> Any:
    """Return a coroutine that returns what became of the last save; None where that cannot be followed."""
    return session.settled() if hasattr(session, "settled") else None


def is_stale(session: Any) -> bool:
    """Return whether a session was entered from what its process knew, not from the store."""
    stale = getattr(session, "stale", None)
    if stale is not None:
        return bool(stale)
    ground = getattr(getattr(session, "keeper", None), "_ground", None)
    return ground is not None and ground.waiting is not None


def lost(manager: SessionManager, reported: list[str], fingerprint: str) -> bool:
    """Return whether a manager has reported a save of a session lost."""
    return fingerprint in reported if "on_lost" in Config.__dataclass_fields__ else manager.stats().lost > 0


def crashed(manager: SessionManager) -> None:
    """Give back what the kernel gives back when a process dies: file locks."""
    spooler = getattr(getattr(manager, "_services", None), "spooler", None)
    disk = getattr(getattr(getattr(manager, "_runtime", None), "writer", None), "disk", None)
    for keeper in (spooler, disk):
        if keeper is not None:
            keeper._spool.end_claim()


def without_disk_sync() -> Callable[[], None]:
    """Make fsync free: the simulated disk never loses what was written. Return what undoes it."""
    import os

    real = os.fsync
    os.fsync = lambda _: None

    def undo() -> None:
        os.fsync = real

    return undo


async def wake(manager: SessionManager) -> None:
    """Start a manager, so that it delivers what an earlier process has left on disk."""
    await manager.__aenter__()

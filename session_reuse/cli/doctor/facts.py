"""What a server says of itself. It is judged by `server_checks`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

from session_reuse._store.keys import Keys
from session_reuse.cli.doctor.trial import Tried, own_name, try_commands
from session_reuse.cli.doctor.wire import Wire

PINGS: Final = 50
SETTINGS: Final = ("notify-keyspace-events", "maxmemory", "maxmemory-policy", "save", "appendonly")


@dataclass(frozen=True, slots=True)
class Facts:
    """One server, as it describes itself.

    Attributes:
        name: of the server, where there are several.
        hello: version, mode and role; also for users without the right to more.
        info: INFO; empty when the user may not ask.
        settings: CONFIG GET; empty when the user may not ask, as on many hosted servers.
        latencies: seconds for each of the pings, sorted.
        clock_ahead: seconds by which the server's clock is ahead of ours; None when it could not be asked.
        tried: how the commands ended that agents use.
    """

    name: str = ""
    hello: dict[str, str] = field(default_factory=dict)
    info: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    clock_ahead: float | None = None
    tried: Tried = field(default_factory=Tried)

    def setting(self, name: str) -> str | None:
        """Return a setting, by INFO where CONFIG is forbidden; None when neither says."""
        return self.settings.get(name, self.info.get(name.replace("-", "_")))

    def number(self, name: str) -> int:
        """Return a number of INFO; 0 when it is not there."""
        text = self.info.get(name, "0")
        return int(text) if text.lstrip("-").isdigit() else 0


async def identity_of(wire: Wire) -> Facts:
    """Ask a server what it is."""
    return Facts(name=wire.name, hello=await hello_of(wire), info=await _info(wire))


async def gather(wire: Wire, keys: Keys, identity: Facts) -> Facts:
    """Ask a server for the rest, and try on it what agents do.

    Raises:
        UnfitError: it does not answer any more.
    """
    return Facts(
        name=identity.name,
        hello=identity.hello,
        info=identity.info,
        settings=await _settings(wire),
        latencies=await _latencies(wire, keys),
        clock_ahead=await _clock_ahead(wire),
        tried=await try_commands(wire, keys),
    )


async def hello_of(wire: Wire) -> dict[str, str]:
    """Return version, mode and role; empty for a server before 6.0, or when the user may not ask."""
    return _pairs(await wire.ask_if_allowed("HELLO", 2))


async def _info(wire: Wire) -> dict[str, str]:
    lines = _text(await wire.ask_if_allowed("INFO") or b"").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


async def _settings(wire: Wire) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in SETTINGS:
        found |= _pairs(await wire.ask_if_allowed("CONFIG", "GET", name))
    return found


async def _latencies(wire: Wire, keys: Keys) -> list[float]:
    """Time reads of a session that is not there: what an agent does, and all that its user must be allowed to do."""
    taken, key = [], keys.session(own_name())
    for _ in range(PINGS):
        began = time.perf_counter()
        await wire.ask_if_allowed("GET", key)
        taken.append(time.perf_counter() - began)
    return sorted(taken)


async def _clock_ahead(wire: Wire) -> float | None:
    began = time.time()
    answer = await wire.ask_if_allowed("TIME")
    if answer is None:
        return None
    seconds, microseconds = answer
    return int(seconds) + int(microseconds) / 1e6 - (began + time.time()) / 2


def _pairs(answer: Any) -> dict[str, str]:
    words = [_text(each) for each in answer or ()]
    return dict(zip(words[::2], words[1::2], strict=False))


def _text(answer: Any) -> str:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)

"""What a server says of itself. Must never judge: that is `server_checks`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

from session_reuse.cli.doctor.rights import missing_rights
from session_reuse.cli.doctor.wire import Wire, is_elsewhere, is_refused
from session_reuse.resilience.failure import Failure
from session_reuse.store.keys import Keys

PINGS: Final = 50
SETTINGS: Final = ("notify-keyspace-events", "maxmemory", "maxmemory-policy", "save", "appendonly")
PROBE: Final = "doctor"
"""Fingerprint of the questions; nothing is ever stored under it."""


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
        missing: purposes, with the commands that the user lacks for them; None when it could not be asked.
    """

    name: str = ""
    hello: dict[str, str] = field(default_factory=dict)
    info: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    clock_ahead: float | None = None
    missing: dict[str, list[str]] | None = None

    def setting(self, name: str) -> str | None:
        """Return a setting, by INFO where CONFIG is forbidden; None when neither says."""
        return self.settings.get(name, self.info.get(name.replace("-", "_")))

    def number(self, name: str) -> int:
        """Return a number of INFO; 0 when it is not there."""
        text = self.info.get(name, "0")
        return int(text) if text.lstrip("-").isdigit() else 0


async def gather(wire: Wire, keys: Keys) -> Facts:
    """Ask a server about itself.

    Raises:
        Failure: it does not answer, or refuses the credentials.
    """
    hello = _pairs(await wire.ask("HELLO", 2))
    return Facts(
        name=wire.name,
        hello=hello,
        info=await _info(wire),
        settings=await _settings(wire),
        latencies=await _latencies(wire, keys),
        clock_ahead=await _clock_ahead(wire),
        missing=await missing_rights(wire, keys, PROBE),
    )


async def _info(wire: Wire) -> dict[str, str]:
    try:
        lines = _text(await wire.ask("INFO")).splitlines()
    except Failure as failure:
        return _nothing_if_forbidden(failure)
    return dict(line.split(":", 1) for line in lines if ":" in line)


async def _settings(wire: Wire) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in SETTINGS:
        try:
            found |= _pairs(await wire.ask("CONFIG", "GET", name))
        except Failure as failure:
            return _nothing_if_forbidden(failure)
    return found


async def _latencies(wire: Wire, keys: Keys) -> list[float]:
    """Time reads of a session that is not there: what an agent does, and all that its user must be allowed to do."""
    taken = []
    for _ in range(PINGS):
        began = time.perf_counter()
        try:
            await wire.ask("GET", keys.session(PROBE))
        except Failure as failure:
            if not is_refused(failure) and not is_elsewhere(failure):
                raise
        taken.append(time.perf_counter() - began)
    return sorted(taken)


async def _clock_ahead(wire: Wire) -> float | None:
    began = time.time()
    try:
        seconds, microseconds = await wire.ask("TIME")
    except Failure as failure:
        _nothing_if_forbidden(failure)
        return None
    return int(seconds) + int(microseconds) / 1e6 - (began + time.time()) / 2


def _nothing_if_forbidden(failure: Failure) -> dict[str, str]:
    """Go on without an answer that the server refuses to give; a server that is gone is another matter."""
    if is_refused(failure) or failure.code.startswith("ResponseError"):
        return {}
    raise failure


def _pairs(answer: Any) -> dict[str, str]:
    words = [_text(each) for each in answer]
    return dict(zip(words[::2], words[1::2], strict=False))


def _text(answer: Any) -> str:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)

"""A waiting save as bytes, with the ground it stands on, for a file that the next process reads. Must never guess a field."""

from __future__ import annotations

import time
from dataclasses import asdict
from time import monotonic
from typing import Any, Final

import orjson

from session_reuse.errors import CorruptStateError
from session_reuse.lifecycle.request import Layer, SaveRequest
from session_reuse.state.baseline import Baseline, Expectation
from session_reuse.state.header import SAVE_ID_LENGTH, Header
from session_reuse.store.interface import Lease
from session_reuse.transfer import opened

_SCHEMA: Final = 1


def packed(request: SaveRequest, wall_clock: float | None = None) -> bytes:
    """Return a save as bytes.

    Args:
        request: the save.
        wall_clock: unix seconds now.
    """
    baseline, now = request.baseline, time.time() if wall_clock is None else wall_clock
    return orjson.dumps(
        {
            "schema": _SCHEMA,
            "fingerprint": request.fingerprint,
            "agent_id": request.agent_id,
            "document": request.document.decode(),
            "dialect": request.dialect,
            "save_id": request.save_id,
            "saved_at": request.saved_at,
            "lease": asdict(request.lease) if request.lease else None,
            "release": request.release,
            "fresh": request.fresh,
            "score_change": request.score_change,
            "merged": request.merged,
            "layers": [[layer.document.decode(), layer.dialect, layer.saved_at] for layer in request.layers],
            "expectation": baseline.expectation.value,
            "entered": now - (monotonic() - baseline.entered),
            "header": baseline.header.encode().decode("ascii") if baseline.header else None,
            "epoch": baseline.epoch,
            "view": baseline.view.decode(),
            "stored": baseline.stored.decode(),
            "ground_dialect": baseline.dialect,
            "damaged": baseline.damaged.hex(),
        }
    )


def unpacked(content: bytes, wall_clock: float | None = None) -> SaveRequest:
    """Return the save in these bytes.

    Raises:
        CorruptStateError: not a save, or one of a schema that we do not know.
    """
    try:
        found = orjson.loads(content)
        if found["schema"] != _SCHEMA:
            raise CorruptStateError("a save of an unknown schema")
        request = _request(found, time.time() if wall_clock is None else wall_clock)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CorruptStateError("not a save") from None
    opened(request.document, request.dialect, request.fingerprint)
    return request


def _request(found: dict[str, Any], now: float) -> SaveRequest:
    lease = found["lease"]
    save_id = found["save_id"]
    if len(save_id) != SAVE_ID_LENGTH:
        raise ValueError
    return SaveRequest(
        fingerprint=found["fingerprint"],
        agent_id=found["agent_id"],
        document=found["document"].encode(),
        dialect=found["dialect"],
        baseline=_baseline(found, now),
        save_id=save_id,
        saved_at=float(found["saved_at"]),
        lease=Lease(int(lease["token"]), lease["holder"]) if lease else None,
        release=bool(found["release"]),
        fresh=bool(found["fresh"]),
        score_change=int(found["score_change"]),
        merged=bool(found["merged"]),
        layers=tuple(Layer(text.encode(), dialect, float(at)) for text, dialect, at in found["layers"]),
    )


def _baseline(found: dict[str, Any], now: float) -> Baseline:
    header = found["header"]
    return Baseline(
        expectation=Expectation(found["expectation"]),
        entered=monotonic() - max(0.0, now - float(found["entered"])),
        header=Header.decode(header.encode("ascii")) if header else None,
        epoch=int(found["epoch"]),
        view=found["view"].encode(),
        stored=found["stored"].encode(),
        dialect=found["ground_dialect"],
        damaged=bytes.fromhex(found["damaged"]),
    )

"""A save, detached from its session: it can be repeated, merged, kept waiting. Must never be changed once it is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, replace
from typing import Final

from session_reuse.outcome import SaveOutcome
from session_reuse.state import document
from session_reuse.state.baseline import Baseline
from session_reuse.state.merge import merge_documents
from session_reuse.state.record import record
from session_reuse.store.interface import Lease

_MOST_LAYERS: Final = 3


@record()
class Layer:
    """The document of an earlier save that a later one was built on before it got through."""

    document: bytes = field(repr=False)
    dialect: str
    saved_at: float


@record(kw_only=True)
class SaveRequest:
    """One save of one session.

    Attributes:
        document: the session as JSON at the moment of the save.
        baseline: what the session knew of the stored copy.
        save_id: recognised by the store when the save arrives twice.
        saved_at: unix seconds of the save, from which the time to live counts.
        lease: the exclusive lease it was made under.
        release: whether to give the lease back with it.
        fresh: a new login that replaces a retired or unverified one.
        anew: whether the state was put together anew, and may say the same as before in another order.
        score_change: tenths, added to the error score.
        merged: whether changes of others were merged in.
        layers: earlier saves, not through yet, that this one was built on: their changes are as old as they are.
        settled: the common ground it led to, once it is through.
    """

    fingerprint: str
    agent_id: str | None
    document: bytes = field(repr=False)
    dialect: str
    baseline: Baseline
    save_id: str
    saved_at: float
    lease: Lease | None = None
    release: bool = False
    fresh: bool = False
    anew: bool = True
    score_change: int = 0
    merged: bool = False
    layers: tuple[Layer, ...] = ()
    settled: list[Baseline] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes it takes while it waits."""
        inherited = sum(len(layer.document) for layer in self.layers)
        return len(self.document) + len(self.baseline.view) + len(self.baseline.stored) + inherited

    @property
    def stack(self) -> tuple[Layer, ...]:
        """The layers, and the document itself as the last of them."""
        return (*self.layers, Layer(self.document, self.dialect, self.saved_at))


@record()
class Saved:
    """What a save did, and the common ground from here on (None: as before)."""

    outcome: SaveOutcome
    baseline: Baseline | None = None


def bounded(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return layers, the oldest ones put together when there are many: as old as the oldest, so that they win nothing."""
    while len(layers) > _MOST_LAYERS:
        oldest, second = layers[:2]
        layers = (replace(second, saved_at=min(oldest.saved_at, second.saved_at)), *layers[2:])
    return layers


def loaded(data: bytes, dialect: str) -> document.Document:
    """Return a document; an empty one where there is none."""
    return document.load(data, dialect) if data else {"storage_state": {}, "data": {}}


def rebased(request: SaveRequest, onto: document.Document, known_at: int) -> Iterator[tuple[float, document.Document]]:
    """Yield what each layer of a save, and at last the save itself, makes of another ground, and how old it is.

    Where both have changed one item the later change wins, not the one that arrives later.

    Args:
        request: the save.
        onto: a document that others have saved meanwhile.
        known_at: when that was, unix milliseconds.
    """
    before = loaded(request.baseline.view, request.baseline.dialect)
    for layer in request.stack:
        mine = loaded(layer.document, layer.dialect)
        newer = known_at > round(layer.saved_at * 1000)
        onto = merge_documents(before, *((onto, mine) if newer else (mine, onto)))
        yield layer.saved_at, onto
        before = mine

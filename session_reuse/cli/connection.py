"""The manager that a command works with. Its time limits are those of people; reading counts as no use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from session_reuse._manager import SessionManager
from session_reuse._resilience.failure import Failure
from session_reuse._resilience.guard import Attempt, Direction
from session_reuse._session.composition import Runtime
from session_reuse._state.codec import Codec
from session_reuse._state.header import Header
from session_reuse._state.shapes import Document
from session_reuse._store.redis.store import RedisStore
from session_reuse._stored_form import opened
from session_reuse.config import Config, redacted_url
from session_reuse.errors import CorruptStateError, StoreError, StoreTimeoutError, StoreUnavailableError

T = TypeVar("T")

_PATIENCE: Final = {"attempt_timeout": 2.0, "connect_timeout": 2.0, "restore_timeout": 5.0, "save_timeout": 5.0}
"""Seconds: agents are in a hurry, people at a prompt would rather have an answer."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which store a command is about; None stands for the environment's."""

    url: str | None = None
    key_prefix: str | None = None

    def config(self, **settings: Any) -> Config:
        """Return the settings to connect with.

        Raises:
            ConfigurationError: one of them is wrong.
        """
        named: dict[str, Any] = {"url": self.url, "key_prefix": self.key_prefix}
        return Config.from_env(**{name: value for name, value in named.items() if value is not None}, **settings)


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored session, opened.

    Attributes:
        value: as it stands in the store.
        header: its head.
        body: the document as JSON.
        document: the document.
        ttl: seconds to live; None for ever.
    """

    fingerprint: str
    value: bytes
    header: Header
    body: bytes
    document: Document
    ttl: float | None


@asynccontextmanager
async def connected(place: Place, **settings: Any) -> AsyncIterator[SessionManager]:
    """Open a manager on the store; errors of the store that come out name where it is.

    Raises:
        StoreError: the store did not do what was asked.
        ConfigurationError: a setting is wrong.
    """
    config = place.config(**settings)
    patience = {name: max(seconds, getattr(config, name)) for name, seconds in _PATIENCE.items()}
    given = {"url": config.url, "key_prefix": config.key_prefix, "registry": None}
    try:
        async with SessionManager(**(given | patience | settings)) as manager:
            yield manager
    except (StoreError, TimeoutError) as error:
        kind = type(error) if isinstance(error, StoreError) else StoreTimeoutError
        reason = str(error) or "the private server did not start in time"
        raise kind(f"{redacted_url(config.url)}: {reason}; `session-reuse doctor` looks closer") from None


async def ask(services: Runtime, attempt: Attempt[T], direction: Direction = Direction.READ) -> T:
    """Have the store do one thing.

    Raises:
        StoreError: it did not.
    """
    config = services.config
    budget = config.restore_timeout if direction is Direction.READ else config.save_timeout
    try:
        return await services.guard.run(direction, attempt, budget)
    except Failure as failure:
        raise failure.error from None


async def read_stored(services: Runtime, fingerprint: str, codec: Codec | None = None) -> Stored | None:
    """Read and open one session without starting its time to live anew; None when there is none.

    Args:
        services: the manager's.
        fingerprint: name of the session.
        codec: opens it; the manager's own if not given.

    Raises:
        StoreError: the store did not answer.
        CorruptStateError: the value is damaged, foreign, or not readable with the configured keys.
    """
    key = services.keys.session(fingerprint)
    reply = await ask(services, lambda timeout: services.store.read(fingerprint, timeout=timeout))
    value = reply.value
    if value is None:
        return None
    if not value:
        raise CorruptStateError(f"{key} holds something that is not a string")
    ttl = await time_to_live(services, fingerprint)
    try:
        decoded = (codec or services.codec).decode(value, key)
        document = opened(decoded.document, decoded.header.flags[2], fingerprint)
    except CorruptStateError as error:
        raise CorruptStateError(f"{key} cannot be read: {error}") from None
    return Stored(fingerprint, value, decoded.header, decoded.document, document, ttl)


async def time_to_live(services: Runtime, fingerprint: str) -> float | None:
    """Return the seconds a session has to live; None for ever."""
    store = services.store
    if not isinstance(store, RedisStore):
        return None
    deadlines = store.deadlines
    (left,) = await ask(services, lambda timeout: deadlines.times_to_live([fingerprint], timeout=timeout))
    if left is None:
        raise StoreUnavailableError("the store did not say how long the session lives")
    return None if left == -1 else max(0, left) / 1000

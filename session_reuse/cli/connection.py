"""The manager of a command. Its time limits suit people, and reading a session counts as no use of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar, Unpack, cast

from session_reuse._manager import SessionManager, runtime_of
from session_reuse._resilience.failure import store_errors
from session_reuse._session.composition import Runtime
from session_reuse._session.guarded_store import Access, Attempt
from session_reuse._settings.url import WAY_TO_CAUSE, store_options
from session_reuse._state.codec import Codec
from session_reuse._state.header import Header
from session_reuse._state.shapes import Document
from session_reuse._store.interface import SessionUse
from session_reuse._stored_form import decode_document, new_save_id
from session_reuse.cli.output import CommandFailed, Output
from session_reuse.config import Config, ConfigOptions, redacted_url
from session_reuse.errors import CorruptStateError, StoreError
from session_reuse.outcome import Outcome

T = TypeVar("T")

_LIMITS: Final = {"attempt_timeout": 2.0, "connect_timeout": 2.0, "restore_timeout": 5.0, "save_timeout": 5.0}
"""Seconds at least: a person at a prompt waits longer than an agent."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the store of a command is. None stands for the setting of the environment."""

    url: str | None = None
    key_prefix: str | None = None

    def config(self, **settings: Unpack[ConfigOptions]) -> Config:
        """Return the settings to connect with.

        Raises:
            ConfigurationError: one of them is wrong.
        """
        return Config.from_env(**cast("ConfigOptions", {**self.settings, **settings}))

    @property
    def settings(self) -> ConfigOptions:
        """What differs from the environment. The saves in `spool_dir` wait for its store, and go to no other one."""
        named = {"url": self.url, "key_prefix": self.key_prefix}
        given: dict[str, Any] = {"registry": None}
        given |= {name: value for name, value in named.items() if value is not None}
        if self.url is not None and os.environ.get("SESSION_REUSE_URL", self.url) != self.url:
            given["spool_dir"] = None
        return cast("ConfigOptions", given)


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored session, opened.

    Attributes:
        fingerprint: its name.
        value: its bytes in the store.
        header: its header.
        body: its document as JSON.
        document: its document.
        ttl: seconds to live, or None without an end.
    """

    fingerprint: str
    value: bytes
    header: Header
    body: bytes
    document: Document
    ttl: float | None


@asynccontextmanager
async def connected(place: Place, **settings: Unpack[ConfigOptions]) -> AsyncIterator[SessionManager]:
    """Open a manager. Errors of the store name its address.

    Raises:
        StoreError: the store does not work.
        ConfigurationError: a setting is wrong.
    """
    config = place.config(**settings)
    given = {name: max(seconds, getattr(config, name)) for name, seconds in _LIMITS.items()}
    given |= {**place.settings, "url": config.url, "key_prefix": config.key_prefix}
    try:
        async with SessionManager(**cast("ConfigOptions", given | settings)) as manager:
            yield manager
    except StoreError as error:
        where, options = redacted_url(config.url), store_options(config.url, config.key_prefix)
        reason = str(error).removeprefix(f"{where}: ").partition(f". {WAY_TO_CAUSE}")[0]  # some errors have both
        raise type(error)(f"{where}: {reason}. {WAY_TO_CAUSE}{options}") from None


async def execute(runtime: Runtime, attempt: Attempt[T], access: Access = Access.READ) -> T:
    """Run one operation of the store.

    Raises:
        StoreError: it failed.
    """
    config = runtime.config
    budget = config.restore_timeout if access is Access.READ else config.save_timeout
    with store_errors():
        return await runtime.guarded.attempt(access, attempt, budget)


async def read_stored(runtime: Runtime, fingerprint: str, codec: Codec | None = None) -> Stored | None:
    """Read and open one session, without starting its time to live again. None if it does not exist.

    Raises:
        StoreError: the store does not answer.
        CorruptStateError: the value is damaged, foreign, or not readable with the configured keys.
    """
    key = runtime.keys.session(fingerprint)
    value = (await execute(runtime, lambda timeout: runtime.store.read(fingerprint, timeout=timeout))).value
    if value is None:
        return None
    if not value:  # the read of a key of another type is empty
        raise CorruptStateError(f"{key} holds something that is not a string")
    entry = await execute(runtime, lambda timeout: runtime.store.facts(fingerprint, timeout=timeout))
    try:
        decoded = (codec or runtime.codec).decode(value, key)
        document = decode_document(decoded.document, decoded.header.flags[2], fingerprint)
    except CorruptStateError as error:
        raise CorruptStateError(f"{key} cannot be read: {error}") from None
    ttl = 0.0 if entry is None else entry.ttl  # it expired between the two reads
    return Stored(fingerprint, value, decoded.header, decoded.document, document, ttl)


async def use_stored(output: Output, manager: SessionManager, fingerprint: str, command: str = "") -> Stored:
    """Read and open one session, and note its use by a command in the audit. Without a command, it counts as no use.

    A line that the store refuses is a note for people: the command goes on, as an agent does.

    Raises:
        CommandFailed: there is no such session.
        StoreError, CorruptStateError: as `read_stored`.
    """
    runtime = await runtime_of(manager)
    stored = await read_stored(runtime, fingerprint)
    if stored is None:
        raise CommandFailed("NotThere", f"there is no session {fingerprint!r}")
    if command and manager.config.audit:
        use = SessionUse(
            fingerprint=fingerprint, agent_id=f"session-reuse {command}", outcome=Outcome.REUSED, read_only=True,
            use_id=new_save_id(),
        )  # fmt: skip
        try:
            await execute(runtime, lambda timeout: runtime.store.add_uses([(use, 0.0)], timeout=timeout), Access.WRITE)
        except StoreError as error:
            output.note(f"the audit has no line about this use: {error}")
    return stored

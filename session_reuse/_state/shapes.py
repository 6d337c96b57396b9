"""The shapes of JSON values, of a storage state and of a stored document."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = "dict[str, Json]"


class StorageItem(TypedDict):
    """One entry of localStorage or sessionStorage."""

    name: str
    value: str


class Cookie(TypedDict):
    """One cookie, with the names of Playwright. Further keys are kept."""

    name: str
    value: str
    domain: str
    path: NotRequired[str]
    expires: NotRequired[float]
    """Unix seconds. -1, 0 or a missing key stand for a session cookie."""
    httpOnly: NotRequired[bool]
    secure: NotRequired[bool]
    sameSite: NotRequired[Literal["Strict", "Lax", "None"]]
    partitionKey: NotRequired[Json]
    """The top-level site of a partitioned cookie, or the object that DevTools gives for it."""
    partitionKeyOpaque: NotRequired[bool]
    _crHasCrossSiteAncestor: NotRequired[bool]


class OriginState(TypedDict):
    """What one origin has stored. Further keys are kept."""

    origin: str
    localStorage: list[StorageItem]
    sessionStorage: NotRequired[list[StorageItem]]
    indexedDB: NotRequired[list[JsonObject]]
    """The databases in the form of Playwright."""
    indexedDBRich: NotRequired[list[JsonObject]]
    """The databases that the form of Playwright cannot hold."""
    opfs: NotRequired[list[JsonObject]]


class StorageState(TypedDict):
    """A browser session: Playwright's `storage_state` and more. Further keys are kept."""

    cookies: list[Cookie]
    origins: list[OriginState]
    credentials: NotRequired[list[JsonObject]]
    session_reuse: NotRequired[JsonObject]
    """What this package notes about a capture: what is incomplete, the user agent, the time."""


class Document(TypedDict):
    """The stored content of a session."""

    fingerprint: str
    storage_state: StorageState
    data: dict[str, Any]
    """The notes of the agent. `Any`, as in `json.loads`: only the agent knows their shape."""

"""One raw connection to one server, with the reason why it is of no use."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from session_reuse._store.redis.diagnosis import Diagnosis, Trouble, diagnose, diagnosis
from session_reuse.cli.doctor.address import Answers, what_answers
from session_reuse.cli.doctor.finding import Finding, fail

ANSWER_LIMIT: Final = 3.0
"""Seconds for one answer."""
DEAD: Final = frozenset({Trouble.DNS, Trouble.REFUSED, Trouble.UNREACHABLE, Trouble.NO_SOCKET, Trouble.SILENT})
"""Nothing is there that answers."""
GONE: Final = DEAD | {Trouble.CLOSED}
"""The server does not answer any more."""
_UNCLEAR: Final = frozenset({Trouble.SILENT, Trouble.CLOSED, Trouble.TLS_FAILED, Trouble.NOT_REDIS, Trouble.OTHER})
"""The exception alone does not tell what is wrong: a look at what answers may."""


class UnfitError(Exception):
    """The store cannot be used, for a reason that makes further questions useless."""

    def __init__(self, finding: Finding, *, is_dead: bool = False) -> None:
        super().__init__(finding.found)
        self.finding = finding
        self.is_dead = is_dead


class Wire:
    """A connection to one server.

    Args:
        connection: of redis-py, not connected yet.
        name: what to call the server in findings; empty where there is only one.
        address: host and port; None for a socket.
        tls: whether the connection uses TLS.
    """

    def __init__(
        self, connection: Any, name: str, address: tuple[str, int] | None = None, *, tls: bool = False
    ) -> None:
        self._connection = connection
        self.name = name
        self._address = address
        self._tls = tls

    async def open(self) -> None:
        """Connect, log in, select the database and see whether commands are answered.

        Raises:
            UnfitError: the server is not there, or is of no use; the finding says why.
        """
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                await self._connection.connect()
            await self.ask("PING")
        except Exception as error:  # noqa: BLE001  (redis-py raises more than RedisError: see store/failures.py)
            found = diagnose(error)
            if found.trouble in {Trouble.RIGHTS, Trouble.UNKNOWN_COMMAND}:
                return
            raise self.unfit(await self._looked_at(found)) from None

    async def _looked_at(self, found: Diagnosis) -> Diagnosis:
        if self._address is None or found.trouble not in _UNCLEAR:
            return found
        answers = await what_answers(*self._address)
        if answers is Answers.REDIS:
            return diagnosis(Trouble.NO_TLS) if self._tls else found
        if answers is Answers.TLS:
            return found if self._tls else diagnosis(Trouble.TLS_ONLY)
        others = {
            Answers.TLS_FOR_THE_KNOWN: Trouble.CLIENT_CERTIFICATE,
            Answers.HTTP: Trouble.HTTP,
            Answers.OTHER: Trouble.NOT_REDIS,
        }
        return diagnosis(others[answers]) if answers in others else found

    def unfit(self, found: Diagnosis, check: str = "server") -> UnfitError:
        """Return the error for a failure of this server."""
        named = f"{self.name}: " if self.name else ""
        return UnfitError(fail(check, named + found.found, found.remedy), is_dead=found.trouble in DEAD)

    async def ask(self, *words: str | int) -> Any:
        """Send a command and return the answer as it came.

        Raises:
            Exception: there was none in time, or it was an error.
        """
        async with asyncio.timeout(ANSWER_LIMIT):
            await self._connection.send_command(*words, check_health=False)
            return await self._connection.read_response()

    async def ask_if_allowed(self, *words: str | int) -> Any:
        """Send a command and return the answer; None when the server refuses it.

        Raises:
            UnfitError: the server does not answer any more.
        """
        try:
            return await self.ask(*words)
        except Exception as error:  # noqa: BLE001  (as above)
            found = diagnose(error)
            if found.trouble in GONE:
                raise self.unfit(found) from None
            return None

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.disconnect(nowait=True)

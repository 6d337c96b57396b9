"""The whole SDK for most users: enter -> restore -> body -> save -> exit. Must fit on one screen and stay that way."""

from __future__ import annotations

from collections.abc import Coroutine
from types import TracebackType
from typing import Unpack

from session_reuse._browser_session import BrowserSession
from session_reuse._default_manager import default_manager
from session_reuse._manager import SessionManager
from session_reuse._misuse import AsyncOnly, check_manager, check_names
from session_reuse._session.options import SessionOptions, check_options
from session_reuse._session.scope import SessionScope
from session_reuse.errors import AlreadyEnteredError


class reusable_session(AsyncOnly):  # noqa: N801  (used like a function)
    """Restore a browser session on entry and save it on exit.

    Args:
        fingerprint: name of the login, 1 to 512 bytes; None for the one this agent used last.
        agent_id: name of the agent, for the affinity.
        manager: where to keep it. The event loop's own, made from the environment, if not given.
        exclusive: let no other exclusive agent use the session meanwhile.
        wait: seconds to wait for a busy exclusive session, or for a free member of the pool.
        on_busy: `"fresh"` starts fresh and does not save, `"raise"` raises `SessionBusyError`.
        verify: function of the session, plain or async: whether the restored login still works. Called again
            before the final save. A state that does not pass is not stored. Raising means no. With `AdapterError` it
            means that the check could not tell: what is restored stays.
        save_on_error: whether to save when the body raised or was cancelled.
        max_age: retire a session this many seconds after its first save.
        max_uses: retire a session after so many reuses.
        strict: raise trouble of the store instead of starting fresh.
        allowed_domains: hosts, such as `["shop.example", "*.pay.example"]`. Only their cookies and storage are
            restored and saved, other stored items stay unchanged. `*.` before a host adds its subdomains.
        save: `"merge"` saves what the agent changed, `"never"` writes nothing at all.
        pool: name of a pool, in place of a fingerprint: the member that rested longest, under an exclusive lease.

    Raises:
        InvalidFingerprintError: fingerprint or agent_id is empty, too long, or not a string.
        ConfigurationError: an option or a setting is wrong.
        AlreadyEnteredError: the object was entered before.
        SessionBusyError: at the enter, with `on_busy="raise"`.
        StoreError: at the enter, with `strict=True`.
    """

    def __init__(
        self,
        fingerprint: str | None = None,
        agent_id: str | None = None,
        *,
        manager: SessionManager | None = None,
        **options: Unpack[SessionOptions],
    ) -> None:
        check_names(fingerprint, agent_id)
        check_manager(manager, SessionManager)
        check_options(options)
        self._names = (fingerprint, agent_id)
        self._manager = manager
        self._options = options
        self._scope: SessionScope | None = None
        self._entered = False

    async def __aenter__(self) -> BrowserSession:
        """Restore. Never takes longer than the restore budget, also when the store hangs."""
        if self._entered:
            raise AlreadyEnteredError("a reusable_session(...) is entered once: make a new one for each `async with`")
        self._entered = True
        manager = self._manager if self._manager is not None else await default_manager()
        session, scope = await manager._open(*self._names, manager._resolved(self._options))  # noqa: SLF001
        await scope.enter()
        self._scope = scope
        return session

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Coroutine[None, None, None]:
        """Save: a cancelled body is saved too, and the body's own error always comes out."""
        scope, self._scope = self._scope, None
        return _nothing() if scope is None else scope.leave(failed=error is not None)


async def _nothing() -> None:
    """Do nothing: the session was left before."""

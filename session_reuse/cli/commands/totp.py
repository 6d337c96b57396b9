"""`session-reuse totp`: the secret of a session's one-time codes, stored sealed."""

from __future__ import annotations

import sys
from enum import StrEnum
from getpass import getpass
from typing import Annotated

from session_reuse._manager import runtime_of
from session_reuse._session.one_time_codes import OneTimeCodes
from session_reuse.cli.connection import Place, connected, execute
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import printable
from session_reuse.cli.options import Fingerprint, argument
from session_reuse.cli.output import CommandFailed, Output


class SecretAction(StrEnum):
    """What to do with a secret."""

    SET = "set"
    RM = "rm"
    CODE = "code"


Wanted = Annotated[SecretAction, argument("set|rm|code", "Store or delete the secret, or print a code.")]


async def totp(output: Output, place: Place, action: Wanted, fingerprint: Fingerprint) -> ExitCode | None:
    """Store the secret of a session's one-time codes, read from standard input, delete it, or print the code of this moment.

    The secret is base32 text or the otpauth:// address of a QR code. Both set and code need encryption_keys. No command prints the secret.
    """
    async with connected(place) as manager:
        if action is SecretAction.CODE:
            services = await runtime_of(manager)
            codes = OneTimeCodes(services.guarded, services.codec, manager.config)
            value, _ = await execute(services, lambda timeout: services.store.totp_secret(fingerprint, timeout=timeout))
            if value is None:
                raise CommandFailed("NotThere", f"{fingerprint!r} has no one-time secret: use session-reuse totp set")
            code = await codes.code(fingerprint)
            output.emit({"fingerprint": fingerprint, "code": code})
            output.show(code)
            return None
        secret = None
        if action is SecretAction.SET:
            with output.blocking():
                secret = getpass("secret: ") if sys.stdin.isatty() else _line()
        done = await manager.set_totp_secret(fingerprint, secret)
    output.emit({"fingerprint": fingerprint, "changed": done})
    verb = "stored" if action is SecretAction.SET else "deleted"
    output.show(f"{printable(fingerprint)}: secret {verb if done else 'not there'}")
    return None if done else ExitCode.WRONG


def _line() -> str:
    """Return the first line of standard input. A secret is ASCII: other bytes are refused as one, without a traceback."""
    return sys.stdin.buffer.readline().decode("ascii", "replace")

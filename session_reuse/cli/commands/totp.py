"""`session-reuse totp`: the secret of a session's one-time codes, stored sealed."""

from __future__ import annotations

import sys
from enum import StrEnum
from functools import partial
from getpass import getpass
from typing import Annotated

import typer

from session_reuse._manager import runtime_of
from session_reuse._session.one_time_codes import OneTimeCodes
from session_reuse.cli.connection import Place, connected
from session_reuse.cli.exit_codes import ExitCode
from session_reuse.cli.formatting import printable
from session_reuse.cli.options import AsJson, Fingerprint, KeyPrefix, Url
from session_reuse.cli.output import Output
from session_reuse.cli.running import run


class SecretAction(StrEnum):
    """What to do with a secret."""

    SET = "set"
    RM = "rm"
    CODE = "code"


Wanted = Annotated[SecretAction, typer.Argument(metavar="set|rm|code", help="What to do.", show_default=False)]


def totp(
    action: Wanted, fingerprint: Fingerprint, url: Url = None, key_prefix: KeyPrefix = None, as_json: AsJson = False
) -> None:
    """Store the secret of a session's one-time codes, read from standard input, delete it, or print the code of this moment.

    The secret is base32 text or the otpauth:// address of a QR code. It needs encryption_keys, and no command prints it.
    """
    run(partial(_totp, Place(url, key_prefix), action, fingerprint), as_json=as_json)


async def _totp(place: Place, action: SecretAction, fingerprint: str, output: Output) -> ExitCode:
    async with connected(place) as manager:
        if action is SecretAction.CODE:
            services = await runtime_of(manager)
            code = await OneTimeCodes(services.guarded, services.codec, manager.config).code(fingerprint)
            output.emit({"fingerprint": fingerprint, "code": code})
            output.show(code)
            return ExitCode.OK
        secret = None
        if action is SecretAction.SET:
            secret = getpass("secret: ") if sys.stdin.isatty() else sys.stdin.readline()
        done = await manager.set_totp_secret(fingerprint, secret)
    output.emit({"fingerprint": fingerprint, "changed": done})
    verb = "stored" if action is SecretAction.SET else "deleted"
    output.show(f"{printable(fingerprint)}: secret {verb if done else 'not there'}")
    return ExitCode.OK if done else ExitCode.WRONG

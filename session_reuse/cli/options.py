"""Arguments and options that commands share. Those with a default name it in their help."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from session_reuse.errors import ConfigurationError

_COMPLETIONS: Final = 100


def complete_fingerprints(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return stored fingerprints with this beginning, for the shell."""
    from session_reuse.cli.completion import fingerprints

    return fingerprints(ctx.params.get("url"), ctx.params.get("key_prefix"), incomplete, _COMPLETIONS)


def option(name: str, metavar: str, meaning: str) -> object:
    """Return an option with a value."""
    return typer.Option(name, metavar=metavar, help=meaning, show_default=False)


def argument(metavar: str, meaning: str) -> object:
    """Return an argument."""
    return typer.Argument(metavar=metavar, help=meaning, show_default=False)


def stored_name(meaning: str = "Name of the session.", metavar: str = "FINGERPRINT") -> object:
    """Return an argument that the shell completes with stored fingerprints."""
    return typer.Argument(metavar=metavar, help=meaning, show_default=False, autocompletion=complete_fingerprints)


def store_url(name: str = "--url") -> object:
    """Return the option for the address of the store."""
    return option(name, "URL", "The store.  [default: SESSION_REUSE_URL, else embedded://]")


_PREFIX: Final = "First part of every key.  [default: SESSION_REUSE_KEY_PREFIX, else browser]"

Url = Annotated[str | None, store_url()]
KeyPrefix = Annotated[str | None, option("--key-prefix", "PREFIX", _PREFIX)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs, and nothing else.")]
Fingerprint = Annotated[str, stored_name()]
CdpUrl = Annotated[str | None, option("--cdp-url", "ADDRESS", "Use the browser there in place of a new one.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the stored session of this name.")]
AgentId = Annotated[str | None, option("--agent-id", "NAME", "Name of the agent.")]


def require_display() -> None:
    """Raise unless a browser can be shown.

    Raises:
        ConfigurationError: there is no display. The message has the way round.
    """
    from session_reuse.browsers._chromium_process import has_display

    if not has_display():
        raise ConfigurationError(
            "there is no display for a browser: start one elsewhere with --remote-debugging-port=9222, forward its port with"
            " `ssh -R 9222:127.0.0.1:9222 THIS_HOST`, and give --cdp-url http://127.0.0.1:9222"
        )

"""The commands by name. A command's module is imported when the command is used, so that `--help` stays fast."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import EnumType
from functools import partial
from importlib import import_module
from inspect import iscoroutinefunction
from keyword import iskeyword
from typing import Annotated, Any, Final

import typer
from typer._click.exceptions import UsageError  # typer exports the base of its errors nowhere else
from typer.core import TyperCommand, TyperGroup

from session_reuse.cli.exit_codes import EPILOG, ExitCode

_GROUPS: Final[dict[str, dict[str, str]]] = {
    "Start here": {
        "doctor": "Check the store and this machine, with a remedy for each problem.",
    },
    "Work": {
        "login": "Log in by hand, for agents that reuse it.",
        "run": "Run any program in a browser with a session.",
        "mcp-config": "Print the configuration of an MCP client for that.",
    },
    "Inspect": {
        "status": "Print whether each login lives, who used it, when it ends.",
        "history": "Print who used a session, as the audit has it.",
        "ls": "List the stored sessions.",
        "show": "Show one session, values masked.",
        "stats": "Count the stored sessions and their bytes.",
        "top": "Watch the stored sessions, live.",
    },
    "Change": {
        "evict": "Delete sessions for everyone (alias: rm).",
        "copy": "Store a session under a second name.",
        "export": "Write one session to a file.",
        "import": "Store a session from a file.",
        "keep": "Probe the stored logins from time to time.",
        "pool": "Manage the identities that agents share.",
        "totp": "Store the secret of one-time codes.",
        "rotate": "Encrypt all sessions with the first key.",
        "cleanup": "Remove the traces of expired sessions.",
    },
}
"""The commands by group, and the line about each. Module and function of a command have its name."""
_NAMES: Final = tuple(name for group in _GROUPS.values() for name in group)
_ALIASES: Final = {"rm": "evict"}
_SERVICES: Final = frozenset({"cleanup", "keep", "top"})
"""They run until Ctrl-C or SIGTERM, which is no failure."""


# `Any` stands for the classes of click: typer carries a private copy of them.


_NUMBERS: Final[dict[Any, str]] = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class _PlainValue:
    """Takes texts and defaults as they are. For a conversion, typer imports pydantic: 60 ms of processor time (2026-11-26)."""

    kind: Any
    of_typer: Callable[[], Any]

    def coerce(self, value: Any, **about: Any) -> Any:
        """Return the value of a parameter, converted where it has to be."""
        if self.kind == list[str]:
            return list(value or ())
        if value is None or type(value) is self.kind:
            return value
        _check(self.kind, value)  # the errors of pydantic are for programmers
        return self.of_typer().coerce(value, **about)


def _check(kind: Any, value: Any) -> None:
    """Raise for a text that is no value of this kind."""
    if isinstance(kind, EnumType):
        if value not in list(kind):
            raise typer.BadParameter(f"{value!r} is none of {', '.join(kind)}")
    elif kind in _NUMBERS:
        try:
            kind(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not {_NUMBERS[kind]}") from None


def _with_plain_values(parameters: Any) -> Any:
    for each in parameters:
        if not isinstance(each.get_runtime_param, partial):
            each.get_runtime_param = partial(_PlainValue, each.type_descriptor.annotation, each.get_runtime_param)
    return parameters


class _PlainHelp(TyperCommand):
    """A command whose help reads as in other programs: `show [OPTIONS] FINGERPRINT`, and no types beside names."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters."""
        return _with_plain_values(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the pieces without the braces of typer."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, without the `<str>` that typer puts behind the name of an argument."""
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            records = [each.get_help_record(ctx) for each in self.get_params(ctx) if each.param_type_name == kind]
            if rows := [(record[0].partition(" <")[0], record[1]) for record in records if record]:
                with formatter.section(title):
                    formatter.write_dl(rows)


class _Commands(TyperGroup):
    """A group that imports a command when it is used."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters."""
        return _with_plain_values(super().get_params(ctx))

    def main(self, *positional: Any, **settings: Any) -> Any:
        """Run a command. With `--json`, print the errors of typer as JSON: wrong arguments, or the end of what is typed in."""
        args = settings.get("args")
        words = [*(sys.argv[1:] if args is None else args), "--"]
        if "--json" not in words[: words.index("--")]:
            return super().main(*positional, **settings)
        try:
            sys.exit(super().main(*positional, **settings | {"standalone_mode": False}))
        except (UsageError, typer.Abort) as error:
            from session_reuse.cli.output import Output

            kind, message, code = "Aborted", "the input has ended", ExitCode.WRONG
            if isinstance(error, UsageError):
                kind, message, code = "UsageError", error.format_message(), ExitCode.USAGE
            Output(as_json=True).error(kind, message, code)
            sys.exit(code)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the words name. typer suggests one of `commands` for a misspelt name."""
        names: Any = dict.fromkeys([*_NAMES, *_ALIASES])
        self.commands = names
        return super().resolve_command(ctx, args)

    def list_commands(self, _ctx: object) -> list[str]:
        """Return the names in the order of the help."""
        return list(_NAMES)

    def get_command(self, _ctx: object, name: str) -> Any:
        """Return a command, imported now, or None if there is no such command."""
        name = _ALIASES.get(name, name)
        if name not in _NAMES:
            return None
        word = name.replace("-", "_") + "_" * iskeyword(name)
        function: Callable[..., Any] = getattr(import_module(f"session_reuse.cli.commands.{word}"), word)
        if iscoroutinefunction(function):
            from session_reuse.cli.running import as_command

            on_interrupt = ExitCode.OK if name in _SERVICES else ExitCode.INTERRUPTED
            function = as_command(function, on_interrupt, "--store" if name == "keep" else "--url")
        alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        alone.command(name, cls=_PlainHelp, epilog=EPILOG, context_settings=_SETTINGS)(function)
        return typer.main.get_command(alone)

    def format_commands(self, _ctx: object, formatter: Any) -> None:
        """Write the list of commands, group by group, without importing them."""
        for title, group in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(list(group.items()))


_SETTINGS: Final = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    name="session-reuse",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # it eats [default: …] as markup, and boxes take half of 80 columns
    pretty_exceptions_enable=False,  # they print local variables, and those hold sessions
    context_settings=_SETTINGS,
    epilog=EPILOG,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # late: 13 ms to import (2026-11-26)

        typer.echo(version("session-reuse"))
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
]


@app.callback()
def _session_reuse(_version: Version = False) -> None:
    """Keep browser agents logged in: inspect and manage their sessions in Redis."""

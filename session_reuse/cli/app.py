"""Puts the commands together. Must hold no command's work."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Final

import typer

from session_reuse.cli.cleanup import cleanup
from session_reuse.cli.demo.command import demo
from session_reuse.cli.doctor.command import doctor
from session_reuse.cli.evict import evict
from session_reuse.cli.exit_codes import EPILOG
from session_reuse.cli.export import export
from session_reuse.cli.import_ import import_
from session_reuse.cli.ls import ls
from session_reuse.cli.rotate import rotate
from session_reuse.cli.show import show
from session_reuse.cli.stats import stats
from session_reuse.cli.top import top

app = typer.Typer(
    name="session-reuse",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print local variables, and those hold sessions
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)

_PANELS: Final[dict[str, dict[str, Callable[..., None]]]] = {
    "Start here": {"demo": demo, "doctor": doctor},
    "Look": {"ls": ls, "show": show, "stats": stats, "top": top},
    "Change": {"evict": evict, "export": export, "import": import_, "rotate": rotate, "cleanup": cleanup},
}
for _panel, _commands in _PANELS.items():
    for _name, _command in _commands.items():
        app.command(_name, rich_help_panel=_panel, epilog=EPILOG)(_command)


def _print_version(asked: bool) -> None:
    if asked:
        try:
            print(version("session-reuse"))  # noqa: T201
        except PackageNotFoundError:
            print("not installed")  # noqa: T201  (run from a checkout)
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
]


@app.callback()
def _session_reuse(_version: Version = False) -> None:
    """Keep browser agents logged in: look at their sessions in Redis, and look after them."""

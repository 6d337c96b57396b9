"""The version of the installed package, without typer, which takes a fifth of a second to import (2026-11)."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def print_version() -> None:
    """Print the version of the installed package."""
    try:
        print(version("session-reuse"), flush=True)  # noqa: T201
    except PackageNotFoundError:
        print("not installed")  # noqa: T201  (run from a checkout)

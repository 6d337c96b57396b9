"""The programs of `package.json`, installed once beside the virtual environment where npm can be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_WANTED = Path(__file__).with_name("package.json")
FOLDER = Path(sys.prefix) / "npm-agents"
_LIMIT = 120
_SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def missing() -> str | None:
    """Return the reason why the programs are not there, or None."""
    if shutil.which("node") is None:
        return "node is not installed"
    stamp = FOLDER / "package.json"
    if stamp.exists() and stamp.read_bytes() == _WANTED.read_bytes():
        return None
    return "the programs in Node are not installed: run `python -m tests.agents.npm`"


def install() -> str | None:
    """Install what is wanted and return None, or the reason why it cannot be had.

    It is a part of the set-up, not of the tests, which have no variables of this machine: certificates and proxies.
    """
    if shutil.which("npm") is None:
        return "npm is not installed"
    return _install(FOLDER / "package.json") if missing() else None


def _install(stamp: Path) -> str | None:
    trial = FOLDER / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir(parents=True)
    shutil.copy(_WANTED, trial)
    command = [
        "npm",
        "install",
        "--no-package-lock",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--fetch-retries=1",
        "--prefix",
        str(trial),
    ]
    environment = dict(os.environ)
    if _SYSTEM_CERTIFICATES.exists():  # Node brings its own, but behind a proxy only those of the system may fit
        environment.setdefault("NODE_EXTRA_CA_CERTS", str(_SYSTEM_CERTIFICATES))
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_LIMIT, cwd=trial, env=environment
        )
    except subprocess.TimeoutExpired:
        return f"npm install took longer than {_LIMIT} s"
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "npm error" in line]
        return f"npm install failed: {lines[0] if lines else done.stderr[-200:]}"
    shutil.rmtree(FOLDER / "node_modules", ignore_errors=True)
    (trial / "node_modules").rename(FOLDER / "node_modules")
    shutil.copy(_WANTED, stamp)
    return None


def program(name: str) -> str:
    """Return the path of a program."""
    return str(FOLDER / "node_modules" / ".bin" / name)


if __name__ == "__main__":
    sys.exit(install())

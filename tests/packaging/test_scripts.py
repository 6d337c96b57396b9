"""The scripts of a clone, as a stranger runs them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.checkout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The scripts alone, in a folder in which nothing was installed."""
    folder = tmp_path / "clone"
    for each in ("scripts", ".ci"):
        shutil.copytree(ROOT / each, folder / each)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end."""
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=140, check=False
    )


def test_continuous_integration_passes_nothing_of_its_environment_on(clone: Path, tmp_path: Path) -> None:
    """What passes there passes on a machine without its variables, settings and caches."""
    (clone / "scripts" / "test").write_text('env\necho "files: $(ls -A "$HOME")"\n')
    done = run(
        clone / ".ci" / "run", PYTHONDONTWRITEBYTECODE="1", PIP_INDEX_URL="x", HOME=str(tmp_path), FORCE_COLOR="1"
    )
    names = set(re.findall(r"^(\w+)=", done.stdout, re.MULTILINE))
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"HOME", "PATH", "LANG", "TERM", "CI"}
    assert "files: \n" in done.stdout


def test_a_machine_with_an_old_python_is_told_what_to_install(clone: Path, tmp_path: Path) -> None:
    """Ubuntu 22.04's `python3` is 3.10: installing that again would not help."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "mkdir", "id", "cksum", "cat"):
        (programs / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    old = programs / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = run("bash", clone / "scripts" / "test", PATH=str(programs))
    assert done.returncode == 1
    assert "apt-get install python3.11 python3.11-venv" in done.stderr


def test_the_tests_that_a_script_names_exist() -> None:
    """Nothing runs when one of its files is missing."""
    for script in (ROOT / "scripts").iterdir():
        for name in re.findall(r"(?<![\w/])tests/[\w/]+(?:\.py)?(?![\w.*])", script.read_text()):
            assert (ROOT / name).exists(), f"{script.name} names {name}"


def test_the_pages_say_how_many_tests_that_measure_time_run_at_once() -> None:
    """Whoever marks a test `alone` relies on it."""
    prepare = (ROOT / "scripts" / "prepare").read_text()
    (number,) = re.findall(r"-n (\d) [^\n]*-m \"\$\{marks\}alone\"", prepare)
    words = f"{('two', 'three')[int(number) - 2]} at a time"
    for name in ("CONTRIBUTING.md", "pyproject.toml", "scripts/prepare"):
        assert words in (ROOT / name).read_text(), name


@pytest.mark.parametrize(
    ("is_root", "code", "asked"), [(True, 0, ["install", "install-deps"]), (False, 1, ["install"])]
)
def test_a_chromium_that_lacks_libraries_gets_them(
    clone: Path, tmp_path: Path, is_root: bool, code: int, asked: list[str]
) -> None:
    """Ubuntu's package `chromium` is a snap. Without root and sudo, nothing of the system is changed."""
    done = tmp_path / "done"
    programs = {
        clone / ".venv" / "bin" / "python": f'[ "$1" = -c ] && echo {tmp_path}/chromium || echo "$3" >> {done}',
        tmp_path / "chromium": f"grep -q install-deps {done}",
        tmp_path / "apt-get": f"echo apt-get >> {done}",
        tmp_path / "sudo": "exit 1",
        tmp_path / "id": f"echo {0 if is_root else 1000}",
    }
    for path, text in programs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    script = "cksum < pyproject.toml > .venv/.installed-dev; . scripts/prepare dev; get_chromium"
    found = subprocess.run(
        ["bash", "-c", script], cwd=clone, env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=False
    )
    assert (found.returncode, done.read_text().split()) == (code, asked)


def test_the_help_of_the_demo_installs_nothing(clone: Path) -> None:
    """And it names every option that the demo has."""
    done = run(clone / "scripts" / "demo", "--help")
    assert done.returncode == 0, done.stderr
    assert not (clone / ".venv").exists()
    real = run(sys.executable, "-m", "examples.demo", "--help", COLUMNS="200", PYTHONPATH=str(ROOT))
    options = set(re.findall(r"--[a-z-]+", real.stdout)) - {"--help"}
    assert {"--agents", "--url"} <= options <= set(re.findall(r"--[a-z-]+", done.stdout))


def test_tests_hear_an_interrupt_in_the_background_of_a_shell() -> None:
    """A shell has SIGINT ignored there, and a program started by a test would never end."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import tests.conftest, subprocess, sys\n"
        "child = 'import signal; print(signal.getsignal(signal.SIGINT) == signal.default_int_handler)'\n"
        "print(subprocess.run([sys.executable, '-c', child], capture_output=True, text=True).stdout)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
    assert signal.getsignal(signal.SIGINT) != signal.SIG_IGN


def test_tests_see_nothing_of_the_machine_s_settings() -> None:
    """A variable such as PYTHONDONTWRITEBYTECODE hid a failure that everybody else saw."""
    code = "import tests.conftest, os; print(*sorted(os.environ))"
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "FORCE_COLOR": "1", "HTTPS_PROXY": "x", "SESSION_REUSE_TTL": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(done.stdout.split()).isdisjoint(environment)

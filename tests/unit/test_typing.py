"""What type checkers make of the public interface."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TYPING = ROOT / "tests" / "typing"
CHECKERS = {
    "mypy": ["-m", "mypy", "--strict", "--config-file=", "--no-error-summary"],
    "pyright": ["-m", "pyright", "--pythonpath", sys.executable],
    "ty": ["-m", "ty", "check", "--python", sys.executable, "--output-format", "concise"],
    "pyrefly": ["-m", "pyrefly", "check", "--python-interpreter-path", sys.executable, "--output-format", "min-text"],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all checks of the module: mypy reads the package once."""
    return tmp_path_factory.mktemp("checked")


def check(checker: str, file: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run a type checker on one file."""
    (cache / "pyrefly.toml").touch()  # else it takes over the settings of mypy
    extra = {"mypy": ["--cache-dir", str(cache)], "pyrefly": ["--config", str(cache / "pyrefly.toml")]}
    command = [sys.executable, *CHECKERS[checker], *extra.get(checker, []), str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("checker", CHECKERS)
def test_callers_of_decorated_functions_pass_a_type_check(checker: str, cache: Path) -> None:
    """A call without the session is right, and every result has its type."""
    done = check(checker, TYPING / "api.py", cache)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("checker", CHECKERS)
def test_misuse_is_found_by_a_type_check(checker: str, cache: Path) -> None:
    """A wrong argument, a wrong option, a forgotten `async`: each is an error at its line."""
    lines = (TYPING / "misuse.py").read_text().splitlines()
    marks = ("# wrong",) if checker == "ty" else ("# wrong", "# wrong, unseen by ty")
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith(marks)}
    found = re.findall(r"misuse\.py:(\d+)", check(checker, TYPING / "misuse.py", cache).stdout)
    assert {int(number) for number in found} == wrong

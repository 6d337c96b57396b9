"""A folder of wheels to install from without a network: the built package, and what is installed here repacked."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

NOT_OF_THE_WHEEL = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json"}


def fill(folder: Path, requirement: str) -> None:
    """Put a wheel of each package that the requirement needs into the folder, but for our own."""
    for found in dependencies(Requirement(requirement), set()):
        repack(found, folder)


def dependencies(wanted: Requirement, seen: set[tuple[str, str]]) -> Iterator[Distribution]:
    """Yield what a requirement needs here, without itself, each once."""
    for extra in ("", *wanted.extras):
        for line in distribution(wanted.name).requires or ():
            needed = Requirement(line)
            if needed.marker is not None and not needed.marker.evaluate({"extra": extra}):
                continue
            key = (needed.name.lower(), ",".join(sorted(needed.extras)))
            if key in seen:
                continue
            seen.add(key)
            try:
                yield distribution(needed.name)
            except PackageNotFoundError:  # the installer will say so, if it is needed
                continue
            yield from dependencies(needed, seen)


def repack(package: Distribution, folder: Path) -> None:
    """Write the wheel that a package was installed from, without its scripts."""
    tags = [line[5:].split("-") for line in (package.read_text("WHEEL") or "").splitlines() if line.startswith("Tag: ")]
    tag = "-".join(".".join(sorted(set(part))) for part in zip(*tags, strict=True))
    name = package.metadata["Name"].replace("-", "_").replace(".", "_")
    files = [
        file
        for file in package.files or ()
        if ".." not in file.parts and file.suffix != ".pyc" and file.name not in NOT_OF_THE_WHEEL
    ]
    (home,) = {file.parts[0] for file in files if file.parts[0].endswith(".dist-info")}
    with zipfile.ZipFile(folder / f"{name}-{package.version}-{tag}.whl", "w") as wheel:
        for file in files:
            wheel.write(str(file.locate()), str(file))  # with its mode: a server in it stays executable
        record = [f"{file},,\n" for file in files] + [f"{home}/RECORD,,\n"]
        wheel.writestr(f"{home}/RECORD", "".join(record))


def install(environment: Path, requirement: str, folder: Path) -> Path:
    """Make a virtual environment with the requirement from the folder alone. Return its Python."""
    python = environment / "bin" / "python"
    source = ["--no-index", "--find-links", str(folder), requirement]
    if uv := shutil.which("uv"):
        run(uv, "venv", "--quiet", "--python", sys.executable, str(environment))
        run(uv, "pip", "install", "--quiet", "--offline", "--no-cache", "--python", str(python), *source)
    else:
        run(sys.executable, "-m", "venv", str(environment))
        run(str(python), "-m", "pip", "install", "--quiet", "--no-compile", *source)
    return python


def run(*command: str) -> None:
    """Run an installer. What it says is in the error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""The contenders' own virtual environments: two versions of one package cannot share one."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.contenders import Entry

SHARED = ("sqlalchemy", "pydantic", "aiosqlite", "asyncpg")
"""Installed at our own versions for everyone, so that what differs is the library."""


class NotInstallableError(Exception):
    """A contender that this interpreter cannot have."""


def interpreter(entry: Entry, folder: Path) -> str:
    """The Python that runs a contender; its environment is made on the first call.

    Raises:
        NotInstallableError: pip found no version for this interpreter, or no way to build it.
    """
    if not entry.requirements:
        return sys.executable
    key = hashlib.sha256(repr((entry.requirements, sys.version, _constraints())).encode()).hexdigest()[:8]
    home = folder / f"{entry.family}-{key}"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not (home / "complete").exists():
        venv.create(home, with_pip=True, clear=True)
        constraints = home / "constraints.txt"
        constraints.write_text("\n".join(_constraints()))
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*command, "-c", str(constraints), *entry.requirements],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise NotInstallableError(lines[-1] if lines else "pip failed")
        (home / "complete").touch()
    return str(python)


def _constraints() -> list[str]:
    found = []
    for name in SHARED:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return found

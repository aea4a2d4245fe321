from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from esource.testing.server import SHARED_MEMORY

LEAST_FREE_BYTES = 2**30


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that a server's user can reach, which pytest's are not; in memory where there is enough of it, for the
    disk is played, and hundreds of its states are written."""
    memory = None
    with suppress(OSError):  # not on this system
        memory = SHARED_MEMORY if shutil.disk_usage(SHARED_MEMORY).free > LEAST_FREE_BYTES else None
    folder = Path(tempfile.mkdtemp(prefix="esource-power-", dir=memory))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def strace() -> str:
    """The program that tells a program's system calls. nox's session `powercut` asks for it."""
    program = shutil.which("strace")
    assert program, "strace is not installed: apt-get install strace"
    return program


@pytest.fixture(scope="session")
def small_disk() -> list[str]:
    """What begins the command of a program that may mount a small disk, which nobody else sees."""
    alone = ["unshare", "-m"]
    is_able = sys.platform == "linux" and subprocess.run([*alone, "true"], check=False).returncode == 0
    assert is_able, "no right to mount a small disk: run this session as root, on Linux"
    return alone

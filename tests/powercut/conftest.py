from __future__ import annotations

import shutil
import subprocess
import sys

import pytest


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

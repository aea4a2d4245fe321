from __future__ import annotations

import shutil

import pytest


@pytest.fixture(scope="session")
def strace() -> str:
    """The program that tells a program's system calls. nox's session `powercut` asks for it."""
    program = shutil.which("strace")
    assert program, "strace is not installed: apt-get install strace"
    return program

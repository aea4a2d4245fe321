"""The command line tool in `examples/web`, and the worker process beside it that runs its projection."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.web import FOLDER, PROJECTIONS, environment, working


def command(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "command.py", *arguments]
    return subprocess.run(
        program, cwd=FOLDER, env=environment(url), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_the_tool_sees_what_it_did_through_a_worker_in_another_process(shared_database_url):
    with working(PROJECTIONS, shared_database_url):
        while (placed := command(shared_database_url, "place", "ada", "500")).returncode:
            assert "OrderList" in placed.stderr  # the worker is still about to begin
        order = placed.stdout.split()[1]
        assert f"{order} 500 placed\n" in command(shared_database_url, "list", "ada").stdout
        assert command(shared_database_url, "pay", order).stdout == f"paid {order}\n"
        assert f"{order} 500 paid\n" in command(shared_database_url, "list", "ada").stdout
        again = command(shared_database_url, "pay", order)
        assert (again.returncode, again.stderr) == (1, "the order is paid already\n")

"""The public types, as mypy --strict sees them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def complaints(tmp_path_factory) -> set[tuple[str, int, str]]:
    """What mypy says of the modules beside this one: module, line, code."""
    command = [
        sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary",
        f"--cache-dir={tmp_path_factory.mktemp('mypy')}", "well_typed.py", "ill_typed.py",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE)
    assert done.returncode in (0, 1), done.stderr
    found = re.findall(r"^(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE)
    return {(module, int(line), code) for module, line, code in found}


def test_the_public_types_are_as_promised(complaints):
    assert {complaint for complaint in complaints if complaint[0] == "well_typed.py"} == set()


def test_what_is_wrong_is_refused(complaints):
    lines = (HERE / "ill_typed.py").read_text().splitlines()
    expected = {
        ("ill_typed.py", number, code)
        for number, line in enumerate(lines, start=1)
        for code in re.findall(r"# REFUSED: ([\w-]+)", line)
    }
    assert {complaint for complaint in complaints if complaint[0] == "ill_typed.py"} == expected

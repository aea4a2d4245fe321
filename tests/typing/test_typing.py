"""The public types, as mypy --strict and pyright see them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REFUSED = {
    (number, code)
    for number, line in enumerate((HERE / "ill_typed.py").read_text().splitlines(), start=1)
    for code in re.findall(r"# REFUSED: ([\w-]+)", line)
}
"""The lines that have to be refused, with mypy's code of the refusal."""


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


@pytest.mark.slow
def test_the_public_types_are_as_promised(complaints):
    assert {complaint for complaint in complaints if complaint[0] == "well_typed.py"} == set()


@pytest.mark.slow
def test_what_is_wrong_is_refused(complaints):
    refused = {(line, code) for module, line, code in complaints if module == "ill_typed.py"}
    assert refused == REFUSED


@pytest.mark.slow
def test_pyright_sees_the_same_as_mypy():
    # basedpyright: pyright in a wheel that brings all it needs, so that nothing is loaded during a test.
    command = [
        *(sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable),
        *("--project", str(HERE / "pyrightconfig.json")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE)
    assert done.returncode in (0, 1), done.stderr
    found = [
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1, one["message"])
        for one in json.loads(done.stdout)["generalDiagnostics"]
    ]
    assert [one for one in found if one[0] == "well_typed.py"] == []
    assert {line for module, line, _ in found if module == "ill_typed.py"} == {line for line, _ in REFUSED}

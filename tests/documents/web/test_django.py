"""Appends inside Django's `transaction.atomic`, on the connection that Django has."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.web import DJANGO_TABLES, FOLDER, environment, once


@pytest.mark.slow
def test_an_append_is_part_of_djangos_own_transaction(shared_database_url):
    once(DJANGO_TABLES, shared_database_url)
    program = Path(__file__).with_name("django_program.py")
    variables = environment(shared_database_url, DJANGO_SETTINGS_MODULE="django_site.settings")
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=FOLDER,
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr

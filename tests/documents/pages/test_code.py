"""The code in the README and the documentation runs as it stands, and prints what the comments beside it say.

A page that opens ``sqlite:///events.db``, or a URL from its environment, also runs on PostgreSQL, with nothing but
that URL changed.
"""

import os
import subprocess
import sys

import pytest
from support.documents import (
    PAGES,
    ROOT,
    assert_printed_as_promised,
    blocks,
    name_of,
    printed_by_python_blocks,
    promised_by_comments,
)

FILE = '"sqlite:///events.db"'
TESTING = ROOT / "docs" / "how-to" / "test.md"
"""Its blocks are tests: pytest runs them."""

TUTORIAL = ROOT / "docs" / "tutorial.md"
"""Its blocks are files: `documents/tutorial/test_page.py` writes and runs them."""

CHOSEN = "not TestMyStore or exactly_one_wins"
"""The suite for stores is run elsewhere, on every store."""

WITH_CODE = [
    page
    for page in PAGES
    if page not in (TESTING, TUTORIAL) and blocks(page.read_text(encoding="utf-8"), "python")
]
SEVERAL = ROOT / "docs" / "how-to" / "several-logs.md"
"""It lists the logs that a database has: its own must be the first."""

SERVER_ONLY = [ROOT / "README.md", SEVERAL]
"""They name PostgreSQL's own class, or what only PostgreSQL has."""

ON_POSTGRESQL = [
    page
    for page in WITH_CODE
    if any(
        opened in page.read_text(encoding="utf-8")
        for opened in (FILE, 'environ["EVENTS_URL"]', 'environ["DATABASE_URL"]')
    )
]


@pytest.fixture
def document(request):
    return request.param.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "document", [page for page in WITH_CODE if page not in SERVER_ONLY], indirect=True, ids=name_of
)
def test_the_code_of_a_page_runs_on_sqlite(document, tmp_path):
    run(document, tmp_path, f"sqlite:///{tmp_path / 'events_of_the_page.db'}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "document", [page for page in ON_POSTGRESQL if page != SEVERAL], indirect=True, ids=name_of
)
def test_the_code_of_a_page_runs_on_postgresql(document, tmp_path, postgres_url):
    run(document.replace(FILE, repr(postgres_url)), tmp_path, postgres_url)


def test_the_code_about_several_logs_runs(tmp_path, empty_postgres_url):
    run(SEVERAL.read_text(encoding="utf-8"), tmp_path, empty_postgres_url)


def run(document, folder, url):
    printed = printed_by_python_blocks(
        document, folder, EVENTS_URL=url, DATABASE_URL=url, KEYS_URL=f"sqlite:///{folder / 'keys.db'}"
    )
    assert_printed_as_promised(document, printed)


def test_most_pages_with_code_run_on_both_databases():
    both = {page for page in ON_POSTGRESQL if page not in SERVER_ONLY}
    assert len(both) > len(WITH_CODE) // 2
    assert sum(len(promised_by_comments(page.read_text(encoding="utf-8"))) for page in both) > 40


@pytest.mark.slow
def test_the_tests_on_the_page_about_testing_pass(tmp_path):
    settings, *tests = blocks(TESTING.read_text(encoding="utf-8"), "python")
    (tmp_path / "conftest.py").write_text(settings)
    (tmp_path / "test_page.py").write_text("\n\n".join(tests))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CHOSEN],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "examples", ROOT / "examples" / "decisions"))),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tutorials_account_is_the_one_that_the_guides_import():
    account = (ROOT / "examples" / "accounts.py").read_text(encoding="utf-8").split('"""\n', 1)[1]
    first, second = blocks(TUTORIAL.read_text(encoding="utf-8"), "python")[:2]
    assert account.strip() == f"{first}\n\n{second}".strip()

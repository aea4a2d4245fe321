"""docs/privacy.md: its code runs, and prints what it says."""

from pathlib import Path

from documents import printed_by_python_blocks, promised_by_comments

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "privacy.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs_and_prints_what_it_says(empty_database_url, tmp_path):
    keys = f"sqlite:///{tmp_path / 'keys.db'}"
    printed = printed_by_python_blocks(PAGE, tmp_path, EVENTS_URL=empty_database_url, KEYS_URL=keys)
    promised = promised_by_comments(PAGE)
    assert len(promised) == 8
    assert [line for line in printed if line in promised] == promised

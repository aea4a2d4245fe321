"""The pages about frameworks show what stands in their examples."""

import pytest
from support.documents import PAGES, blocks, name_of
from support.web import FOLDER

SHOWN = [
    page
    for page in PAGES
    if "examples/web/" in (text := page.read_text(encoding="utf-8")) and blocks(text, "py")
]


@pytest.mark.parametrize("page", SHOWN, ids=name_of)
def test_what_a_page_shows_of_an_example_stands_in_it(page):
    files = [file.read_text(encoding="utf-8") for file in FOLDER.rglob("*.py")]
    for block in blocks(page.read_text(encoding="utf-8"), "py"):
        assert any(block in file for file in files), block

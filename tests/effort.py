"""How much the tests that draw examples do: ``ESOURCE_TEST_EFFORT=10`` makes them draw ten times as many."""

import os


def examples(count: int) -> int:
    return count * int(os.environ.get("ESOURCE_TEST_EFFORT", "1"))

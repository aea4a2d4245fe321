"""How much the tests that draw do, ten times as much with ``ESOURCE_TEST_EFFORT=10``, and what they draw from."""

import os


def examples(count: int) -> int:
    return count * int(os.environ.get("ESOURCE_TEST_EFFORT", "1"))


def seed() -> int:
    """What draws start from where a run is to be repeated: ``ESOURCE_TEST_SEED``, or 0."""
    return int(os.environ.get("ESOURCE_TEST_SEED", "0"))

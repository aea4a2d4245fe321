"""Which databases the tests run on: ``ESOURCE_TEST_DATABASES``, comma-separated, or all of them."""

from __future__ import annotations

import os


def databases() -> list[str]:
    chosen = os.environ.get("ESOURCE_TEST_DATABASES", "sqlite,memory,postgresql")
    return [name.strip() for name in chosen.split(",") if name.strip()]


def without_memory() -> list[str]:
    return [name for name in databases() if name != "memory"]

"""Numbers as people read them."""

from __future__ import annotations

import pytest

from esource.browsing.units import duration, size


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (3 * 1024**4, "3.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_a_size_is_in_the_largest_unit_that_it_fills(count, said):
    assert size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (0.25, "0.2 s"), (59, "59 s"), (90, "1.5 min"), (7200, "2.0 h"), (86_400 * 3.5, "3.5 d")],
)
def test_a_duration_is_in_the_largest_unit_that_it_fills(seconds, said):
    assert duration(seconds) == said

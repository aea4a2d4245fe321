"""Numbers and stored texts as people read them."""

from __future__ import annotations

import re

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys; the last of them turn the direction in which what follows is shown."""

_LINE_ENDS = re.compile("[\n\t\u2028\u2029]")


def plain(text: str) -> str:
    """A stored text without characters that a terminal would obey, but for line ends and tabs."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """A stored name without characters that a terminal would obey, line ends and tabs included."""
    return _LINE_ENDS.sub("\N{REPLACEMENT CHARACTER}", plain(text))


def size(count: int) -> str:
    """A number of bytes in the largest unit that it fills."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def duration(seconds: float) -> str:
    """A length of time in the largest unit that it fills."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 or not seconds else f"{seconds:.1f} s"

"""``python -m bench.values``: what the checks of a value cost, as it grows. Each line should double and no more."""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any
from uuid import UUID

from esource import DomainEvent, EventRegistry
from esource.checks import CEILING, check_json
from esource.codec.codec import Codec
from esource.errors import InvalidEventError

Text = Callable[[int], str]

DIGITS = 4299
"""Digits of an integer, one fewer than may be."""

FRACTION = f"{'1' * 1000}.{'1' * 1000}"

TEXTS: dict[str, Text] = {
    "long integers": lambda size: f"[{','.join(['1' * DIGITS] * (size // DIGITS))}]",
    "long integers, one exponent": lambda size: f"[{','.join(['1' * DIGITS] * (size // DIGITS))},1e22]",
    "long fractions, one exponent": lambda size: f"[{','.join([FRACTION] * (size // 2000))},1e22]",
    "many exponents": lambda size: f"[{','.join(['1e9'] * (size // 4))}]",
    "escaped quotes": lambda size: '["' + '\\"' * (size // 2) + '",1e22]',
    "digits in a text": lambda size: '["' + "1" * size + '",1e22]',
    "signs in a text": lambda size: '["' + "-1" * (size // 2) + '",1e22]',
    "exponents in a text": lambda size: '["' + "e1" * (size // 2) + '",1e22]',
    "short texts": lambda size: "[" + '"",' * (size // 3) + "1e22]",
    "short lists": lambda size: f"[{','.join(['[]'] * (size // 3))}]",
}
SIZES = [2**17, 2**18, 2**19]
"""Characters."""


class Noted(DomainEvent):
    aggregate_type: str = "Note"
    value: Any = None
    either: int | list[int | str] = 0


def _encoded(size: int) -> None:
    """An event whose types prove nothing: it is read back, and compared."""
    registry = EventRegistry()
    registry.register(Noted)
    event = Noted(aggregate_id=UUID(int=1), either=["x", 1] * (size // 12), value=("x",) * (size // 12))
    Codec(registry, limits=CEILING).encode(event, "Note", UUID(int=1))


def _measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the processor, and the highest memory in MiB, of a second run."""
    started = time.process_time()
    work()
    seconds = time.process_time() - started
    tracemalloc.start()
    work()
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return seconds, highest / 2**20


def _checked(text: str) -> Callable[[], object]:
    def check() -> object:
        try:
            return check_json("value", text)
        except InvalidEventError as error:  # too long in full, which is found out while it is written
            return error

    return check


def main() -> int:
    print(f"{'':32}" + "".join(f"{size // 2**10:>6} KiB" for size in SIZES) + "   growth      memory")
    works: dict[str, Callable[[int], Callable[[], object]]] = {
        name: (lambda size, text=text: _checked(text(size))) for name, text in TEXTS.items()
    }
    works["an event that is read back"] = lambda size: lambda: _encoded(size)
    worst = 0.0
    for name, make in works.items():
        found = [_measured(make(size)) for size in SIZES]
        growth = (found[-1][0] / max(found[0][0], 1e-6)) / (SIZES[-1] / SIZES[0])
        worst = max(worst, growth)
        seconds = "".join(f"{each:>8.3f} s" for each, _ in found)
        print(f"{name:32}{seconds}   {growth:5.2f}   {found[-1][1]:6.0f} MiB")
    print("growth: the time of the largest by that of the smallest, by their sizes; 1 is linear")
    return 0 if worst < 3 else 1


if __name__ == "__main__":
    sys.exit(main())

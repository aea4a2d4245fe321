"""A process whose tasks decide by random queries: ``python -m support.deciding_worker URL SEED TASKS APPENDS FILE``.

What is about to be appended is written to the file before, what became of it afterwards: one JSON line each.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

from esource import AppendCondition, AppendConditionError, DomainEvent, Query, QueryItem, open_store

TYPES = ["Bought", "Sold", "Seen"]
TAGS = [f"t{n}" for n in range(6)] + ["hot"]


class Bought(DomainEvent):
    aggregate_type: str = "Decision"


class Sold(Bought):
    pass


class Seen(Bought):
    pass


CLASSES = {"Bought": Bought, "Sold": Sold, "Seen": Seen}


def drawn_items(draw: random.Random) -> list[tuple[list[str], list[str]]]:
    return [
        (draw.sample(TYPES, draw.choice([0, 1, 1, 2])), draw.sample(TAGS, draw.choice([0, 1, 1, 2, 3])))
        for _ in range(draw.choice([1, 1, 2, 4]))
    ]


def query_of(items: list[Any]) -> Query:
    return Query(*(QueryItem(types, tags) for types, tags in items))


async def decide(store: Any, draw: random.Random, appends: int, file: TextIO) -> None:
    def note(**what: Any) -> None:
        file.write(json.dumps(what) + "\n")
        file.flush()

    for _ in range(appends):
        items = drawn_items(draw)
        found = await store.read_query(query_of(items))
        after = found.head if draw.random() < 0.8 else draw.randint(0, found.head)
        event = CLASSES[draw.choice(TYPES)](aggregate_id=uuid4())
        tags = draw.sample(TAGS, draw.randint(0, 3))
        name = str(event.event_id)
        condition = AppendCondition(query_of(items), after) if draw.random() < 0.9 else None
        note(tried=name, items=items if condition else None, after=after)
        if draw.random() < 0.3:
            await asyncio.sleep(0)
        try:
            result = await store.append([event], condition=condition, tags=tags)
        except AppendConditionError as error:
            note(
                refused=name, items=items, after=after, position=error.global_position, type=error.event_type
            )
        else:
            note(stored=name, position=result.global_position)


async def main(url: str, seed: str, tasks: str, appends: str, path: str) -> None:
    options: dict[str, Any] = {"synchronous": "NORMAL"} if url.startswith("sqlite") else {}
    async with open_store(url, enable_tracing=False, unknown_events="untyped", **options) as store:
        with Path(path).open("w", encoding="utf-8") as file:
            draws = [random.Random(f"{seed}/{number}") for number in range(int(tasks))]
            await asyncio.gather(*(decide(store, draw, int(appends), file) for draw in draws))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

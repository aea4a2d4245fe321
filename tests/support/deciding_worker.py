"""Tasks that decide by random queries, and whether what they noted and the log contradict each other.

As a process of several: ``python -m support.deciding_worker URL SEED TASKS APPENDS FILE``. What is about to be appended is
written to the file before, what became of it afterwards: one JSON line each.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from bisect import bisect_right
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

    head = 0
    for _ in range(appends):
        items = drawn_items(draw)
        # Only the last ones: otherwise most of the time would go by with reading, and others come first less often.
        found = await store.read_query(query_of(items), max(0, head - 20))
        head = found.head
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


async def work(store: Any, seed: str, tasks: int, appends: int, path: Path) -> None:
    """Let so many tasks decide at the same time."""
    with path.open("w", encoding="utf-8") as file:
        draws = [random.Random(f"{seed}/{number}") for number in range(tasks)]
        await asyncio.gather(*(decide(store, draw, appends, file) for draw in draws))


async def wrong(store: Any, folder: Path) -> list[str]:
    """What the log and the notes of all processes contradict: a condition that did not hold when its events were stored, a
    refusal without a reason, an answer that is not so."""
    log = [(s.global_position, str(s.event_id), s.event_type, s.tags) async for s in store.read_all()]
    places = [place for place, *_ in log]
    place_of = {event_id: place for place, event_id, _, _ in log}
    notes = [
        json.loads(line)
        for file in folder.glob("*.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.endswith("}")
    ]

    def first_between(note: dict[str, Any], before: int) -> int | None:
        query = query_of(note["items"])
        for place, _, event_type, tags in log[bisect_right(places, note["after"]) :]:
            if place >= before:
                return None
            if query.matches(event_type, tags):
                return place
        return None

    found: list[str] = []
    for note in notes:
        if "tried" in note and note["items"] and note["tried"] in place_of:
            own = place_of[note["tried"]]
            between = first_between(note, own)
            if between is not None:
                found.append(f"{note['tried']} is at {own}, and {between} past {note['after']} excludes it")
        elif "stored" in note and place_of.get(note["stored"]) != note["position"]:
            found.append(f"{note['stored']} was said to be at {note['position']}")
        elif "refused" in note:
            if note["refused"] in place_of:
                found.append(f"{note['refused']} was refused, and is stored")
            first = first_between(note, note["position"] + 1)
            if first != note["position"]:
                found.append(f"{note['refused']} was refused for {note['position']}, the first is {first}")
    counts = {each: sum(each in note for note in notes) for each in ("tried", "stored", "refused")}
    assert counts["stored"] and counts["refused"], counts
    print(counts)
    return found


async def main(url: str, seed: str, tasks: str, appends: str, path: str) -> None:
    options: dict[str, Any] = {"synchronous": "NORMAL"} if url.startswith("sqlite") else {}
    async with open_store(url, enable_tracing=False, unknown_events="untyped", **options) as store:
        await work(store, seed, int(tasks), int(appends), Path(path))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

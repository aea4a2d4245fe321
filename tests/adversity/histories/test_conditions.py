"""Random decisions of several processes, and whether each condition held when its events were stored."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

import pytest
from support.deciding_worker import query_of
from support.effort import examples, seed
from support.schemas import CHECKOUT, execute

PROCESSES, TASKS = 4, 5

BROKEN = {
    # The function then sees what its statement sees: the log as it was before the wait for the lock.
    "postgresql": "ALTER FUNCTION esource_refusal(jsonb) STABLE",
    # The index then knows nothing of the tags that are appended.
    "sqlite": "CREATE TRIGGER forgetful AFTER INSERT ON event_tags BEGIN DELETE FROM event_tags; END",
}


async def start(url: str, folder: Path, number: int, appends: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.deciding_worker", url, f"{seed()}/{number}", str(TASKS), str(appends),
        str(folder / f"{number}.jsonl"),
        cwd=CHECKOUT / "tests",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def work(url: str, folder: Path, appends: int, kills: int = 0) -> None:
    """Let the processes decide; some of them are killed in the middle, and others take their place."""
    draw = random.Random(seed())
    number = 0
    running = [await start(url, folder, number := number + 1, appends) for _ in range(PROCESSES)]
    for _ in range(kills):
        victim = running.pop(0)
        file = folder / f"{number - len(running)}.jsonl"
        while victim.returncode is None and (
            not file.exists() or file.stat().st_size < draw.randint(500, 20_000)
        ):
            await asyncio.sleep(0.01)
        if victim.returncode is None:
            victim.kill()
        await victim.communicate()
        running.append(await start(url, folder, number := number + 1, appends))
    for process in running:
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()[-2000:]


async def wrong(store, folder: Path) -> list[str]:
    """What the log and the notes of the processes contradict."""
    log = [(s.global_position, str(s.event_id), s.event_type, s.tags) async for s in store.read_all()]
    place_of = {event_id: place for place, event_id, _, _ in log}
    places = [place for place, _, _, _ in log]
    found: list[str] = []
    notes = [
        json.loads(line)
        for file in folder.glob("*.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.endswith("}")
    ]

    def first_between(items, after, before):
        query = query_of(items)
        start = next((n for n, place in enumerate(places) if place > after), len(log))
        for place, _, event_type, tags in log[start:]:
            if place >= before:
                return None
            if query.matches(event_type, tags):
                return place
        return None

    for note in notes:
        if "tried" in note and note["items"] and note["tried"] in place_of:
            own = place_of[note["tried"]]
            between = first_between(note["items"], note["after"], own)
            if between is not None:
                found.append(
                    f"{note['tried']} is stored at {own}, after {note['after']}, and {between} is excluded"
                )
        elif "stored" in note and place_of.get(note["stored"]) != note["position"]:
            found.append(f"{note['stored']} was stored at {note['position']}")
        elif "refused" in note:
            if note["refused"] in place_of:
                found.append(f"{note['refused']} was refused, and is stored")
            first = first_between(note["items"], note["after"], note["position"] + 1)
            if first != note["position"]:
                found.append(f"{note['refused']} was refused for {note['position']}, the first is {first}")
    assert any("stored" in note for note in notes)
    assert any("refused" in note for note in notes)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kills", [0, 6])
async def test_every_accepted_condition_held_when_its_events_were_stored(
    shared_store, shared_database_url, tmp_path, kills
):
    await work(shared_database_url, tmp_path, examples(40), kills)
    assert await wrong(shared_store, tmp_path) == []


@pytest.mark.slow
async def test_the_check_finds_a_store_that_judges_by_an_older_snapshot(
    shared_store, shared_database_url, tmp_path
):
    await execute(shared_database_url, BROKEN[shared_database_url.partition(":")[0]])
    await work(shared_database_url, tmp_path, 40)
    assert await wrong(shared_store, tmp_path) != []

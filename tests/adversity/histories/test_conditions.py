"""Random decisions of several processes, and whether each condition held when its events were stored.

``ESOURCE_TEST_EFFORT=25`` makes 20 000 of them on each database.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
from pathlib import Path

import pytest
from support.deciding_worker import work, wrong
from support.effort import examples, seed
from support.schemas import CHECKOUT, execute

from esource import AppendConditionError
from esource.log.batch import Batch
from esource.log.writer import LogWriter
from esource.tables.append_function import CREATE

PROCESSES, TASKS = 4, 5


async def start(url: str, folder: Path, number: int, appends: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.deciding_worker", url, f"{seed()}/{number}", str(TASKS), str(appends),
        str(folder / f"{number}.jsonl"),
        cwd=CHECKOUT / "tests",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def work_in_processes(url: str, folder: Path, appends: int, kills: int = 0) -> None:
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


@pytest.mark.slow
@pytest.mark.parametrize("kills", [0, 6])
async def test_every_accepted_condition_held_and_every_refused_one_did_not(
    shared_store, shared_database_url, tmp_path, kills
):
    await work_in_processes(shared_database_url, tmp_path, examples(40), kills)
    assert await wrong(shared_store, tmp_path) == []


async def work_in_stores(
    url: str,
    open_stores,
    folder: Path,
    appends: int = 10,
    *,
    count: int = 2,
    broken=lambda store: store,
    turn=0,
):
    """The same in one process: its tasks share a few stores, so that batches meet as well as transactions do."""
    stores = [await open_stores(url, unknown_events="untyped") for _ in range(count)]
    await asyncio.gather(
        *(
            work(
                broken(store), f"{seed()}/{turn}/{number}", 10, examples(appends), folder / f"{number}.jsonl"
            )
            for number, store in enumerate(stores)
        )
    )
    found = await wrong(stores[0], folder)
    for store in stores:
        await store.close()
    return found


async def is_found(url: str, open_stores, folder: Path, appends: int = 10, **options) -> bool:
    """Whether the check finds something wrong in one of twenty turns: which appends meet differs each time."""
    for turn in range(20):
        (part := folder / str(turn)).mkdir()
        if await work_in_stores(url, open_stores, part, appends, turn=turn, **options):
            return True
    return False


@pytest.mark.slow
async def test_every_condition_of_tasks_that_share_stores_was_judged_rightly(
    shared_database_url, open_stores, tmp_path
):
    assert await work_in_stores(shared_database_url, open_stores, tmp_path, 5) == []


class JudgesBeforeTheLock:
    """Looks, and then appends: others may come in between."""

    def __init__(self, store):
        self.read_query, self.store = store.read_query, store

    async def append(self, events, *, condition, tags):
        if condition is not None:
            found = await self.read_query(condition.query, condition.after)
            if found.events:
                first = found.events[0]
                raise AppendConditionError(
                    "Decision", events[0].aggregate_id, -1, after=condition.after,
                    global_position=first.global_position, event_type=first.event_type,
                )  # fmt: skip
        return await self.store.append(events, tags=tags)


def wanted(change):
    """Break what becomes of each condition on its way to the database."""

    def break_it(monkeypatch):
        right = LogWriter._wanted
        monkeypatch.setattr(LogWriter, "_wanted", lambda self, condition: change(right(self, condition)))

    return break_it


def each_tag_by_itself(condition):
    """The same condition, of whose tags one suffices."""
    items = [(types, some) for types, tags in condition.items for some in ({tag} for tag in tags)]
    untagged = [(types, tags) for types, tags in condition.items if not tags]
    return condition._replace(items=(*items, *untagged))


BROKEN = {
    "after is one too far": wanted(lambda condition: condition._replace(after=condition.after + 1)),
    "after is one too near": wanted(lambda condition: condition._replace(after=max(0, condition.after - 1))),
    "of the tags of an item any will do": wanted(each_tag_by_itself),
    "only the first item counts": wanted(lambda condition: condition._replace(items=condition.items[:1])),
    "types are not looked at": wanted(
        lambda condition: condition._replace(items=tuple((frozenset(), tags) for _, tags in condition.items))
    ),
    "what shares the batch is not judged": lambda monkeypatch: monkeypatch.setattr(
        Batch, "_meets_earlier", lambda self, condition: False
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", BROKEN)
async def test_the_check_finds_that(how, shared_database_url, open_stores, tmp_path, monkeypatch):
    BROKEN[how](monkeypatch)
    assert await is_found(shared_database_url, open_stores, tmp_path)


async def test_the_check_finds_a_store_that_judges_before_it_has_the_lock(
    shared_database_url, open_stores, tmp_path
):
    assert await is_found(shared_database_url, open_stores, tmp_path, broken=JudgesBeforeTheLock)


SOME_PLACES = "WHEN (NEW.tag = 'hot' AND NEW.global_position % 2 = 0)"
FORGETFUL = {
    "sqlite": [
        f"""CREATE TRIGGER forgetful AFTER INSERT ON event_tags {SOME_PLACES} BEGIN
        DELETE FROM event_tags WHERE (tag, global_position) = (NEW.tag, NEW.global_position); END"""
    ],
    "postgresql": [
        "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        f"CREATE TRIGGER forgetful BEFORE INSERT ON event_tags FOR EACH ROW {SOME_PLACES} EXECUTE FUNCTION forget()",
    ],
}


@pytest.mark.slow
async def test_the_check_finds_a_store_that_forgets_some_places_of_one_tag(
    shared_database_url, open_stores, tmp_path
):
    await execute(shared_database_url, *FORGETFUL[shared_database_url.partition(":")[0]])
    assert await is_found(shared_database_url, open_stores, tmp_path, 60)  # some reach far back


@pytest.mark.slow
async def test_the_check_finds_that_postgresql_judges_by_an_older_snapshot(
    postgres_url, open_stores, tmp_path
):
    """As it were if all of an append saw one snapshot: the log as it was before the wait for the lock."""
    found = re.search(r"IF conditions IS NOT NULL THEN\n( .*?)( +FOR i)", CREATE, re.DOTALL)
    begin = CREATE.index("BEGIN\n") + len("BEGIN\n")
    early = f"IF conditions IS NOT NULL THEN\n{found[1]} END IF;\n"
    await execute(postgres_url, CREATE[:begin] + early + CREATE[begin:].replace(found[1], ""))
    assert await is_found(postgres_url, open_stores, tmp_path, 25, count=4)

"""Closed streams leave the log for a file, and come back from it, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import io
import json
import random
import signal
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import uuid4

import pytest
from support.orders import placed, several

from esource import (
    CheckpointRepository,
    DLQRepository,
    EventStore,
    ExpectedVersion,
    OutboxRepository,
    Snapshot,
    SnapshotStore,
    StreamClosedError,
)
from esource.copying import archiving, export_store, import_store
from esource.copying.archiving import archive, remove, restore
from esource.copying.files import RowsWriter
from esource.copying.integrity import verify_store
from esource.copying.lines import members, read_line
from esource.errors import ArchiveRefusedError, FileRefusedError, InvalidOptionError


async def stored(store: EventStore) -> list:
    return [(e.global_position, e.stream_position, e.stored_at, e.event) async for e in store.read_all()]


async def closed(store: EventStore, events: int = 3):
    """A closed stream, between others."""
    order, other = uuid4(), placed()
    await store.append_events(order, "Order", several(events, order), 0)
    await store.append_events(other.aggregate_id, "Order", [other], 0)
    await store.close_stream(order, "Order", reason="done")
    return order


async def test_an_archived_stream_leaves_its_end_and_comes_back_as_it_was(store: EventStore, tmp_path):
    first, second = await closed(store), await closed(store, 5)
    before = await stored(store)
    file = tmp_path / "closed.jsonl.gz"
    result = await archive(store, file)
    assert (result.streams, result.events) == (2, 8)
    left = await stored(store)
    assert [position for position, *_ in left] == [4, 5, 11, 12]
    assert (await verify_store(store)).findings == []
    for order in (first, second):
        assert await store.is_closed(order, "Order")
        with pytest.raises(StreamClosedError):
            await store.append_events(order, "Order", several(1, order), ExpectedVersion.ANY)
    assert (await archive(store, tmp_path / "again.jsonl")).streams == 0
    result = await restore(store, file)
    assert (result.streams, result.events) == (2, 8)
    assert await stored(store) == before
    assert (await restore(store, file)).events == 0
    assert (await remove(store, file)).events == 8
    assert await stored(store) == left
    assert (await remove(store, file)).events == 0


async def test_what_is_chosen_is_archived_and_the_rest_stays(store: EventStore, tmp_path):
    first, second = await closed(store), await closed(store)
    soon, late = (datetime.now(timezone.utc) + timedelta(minutes=step) for step in (-5, 5))
    assert (await archive(store, tmp_path / "a", closed_before=soon)).streams == 0
    assert (await archive(store, tmp_path / "b", streams=[(second, "Order")], keep=True)).events == 3
    assert len((await store.get_events(second, "Order")).events) == 4
    assert (await archive(store, tmp_path / "c", streams=[(second, "Order")])).events == 3
    assert len((await store.get_events(second, "Order")).events) == 1
    assert len((await store.get_events(first, "Order")).events) == 4
    assert (await archive(store, tmp_path / "d", closed_before=late)).streams == 1


async def test_a_stream_that_is_still_needed_stays(store: EventStore, tmp_path):
    order = await closed(store)
    event = (await store.get_events(order, "Order")).events[0]
    file = tmp_path / "closed.jsonl"
    with pytest.raises(ArchiveRefusedError, match="not closed"):
        await archive(store, file, streams=[(uuid4(), "Order")])
    outbox, letters, checkpoints = OutboxRepository(store), DLQRepository(store), CheckpointRepository(store)
    row = await outbox.add_event(event)
    with pytest.raises(ArchiveRefusedError, match="not published"):
        await archive(store, file)
    await outbox.mark_published(row)
    await letters.add_failed_event(event.event_id, "p", "OrderPlaced", event.to_dict(), ValueError("x"))
    with pytest.raises(ArchiveRefusedError, match="dead letter"):
        await archive(store, file)
    [letter] = await letters.get_failed_events()
    await letters.mark_resolved(letter.id, "me")
    await checkpoints.save_position("slow", 2, event.event_id, "OrderPlaced")
    with pytest.raises(ArchiveRefusedError, match="slow is at position 2"):
        await archive(store, file)
    assert list(tmp_path.glob("closed*")) == []
    assert len((await store.get_events(order, "Order")).events) == 4
    assert (await archive(store, file, ignore_projections=["slow"])).events == 3


async def test_its_snapshot_and_its_published_rows_go_with_it(store: EventStore, tmp_path):
    order = await closed(store)
    snapshot = Snapshot(order, "Order", 3, {"a": 1}, 1, datetime.now(timezone.utc))
    await SnapshotStore(store).save_snapshot(snapshot)
    outbox = OutboxRepository(store)
    await outbox.mark_published(await outbox.add_event((await store.get_events(order, "Order")).events[0]))
    await archive(store, tmp_path / "closed.jsonl")
    assert not await SnapshotStore(store).snapshot_exists(order, "Order")
    assert (await outbox.get_stats()).published_count == 0


async def test_a_store_still_knows_its_outbox_when_every_stream_is_archived(
    shared_database_url, open_stores, tmp_path
):
    store: EventStore = await open_stores(shared_database_url, outbox_enabled=True)
    for _ in range(2):
        events = several(2)
        await store.append_events(events[0].aggregate_id, "Order", events)
        await store.close_stream(events[0].aggregate_id, "Order")
    outbox = OutboxRepository(store)
    for row in await outbox.get_pending_events(100):
        await outbox.mark_published(row.id)
    await archive(store, tmp_path / "archive")
    assert (await outbox.get_stats()).published_count == 1

    script: EventStore = await open_stores(shared_database_url)
    event = placed()
    await script.append_events(event.aggregate_id, "Order", [event])
    assert (await outbox.get_stats()).pending_count == 1
    assert (await verify_store(store)).is_whole


async def test_an_archive_of_another_store_or_another_kind_is_refused(
    store: EventStore, open_stores, tmp_path
):
    order = await closed(store)
    file, whole = tmp_path / "closed.jsonl", tmp_path / "whole.jsonl"
    await archive(store, file, keep=True)
    await export_store(store, whole)
    other = await open_stores("sqlite:///:memory:")
    for function in (remove, restore):
        with pytest.raises(FileRefusedError):
            await function(other, file)
        with pytest.raises(FileRefusedError, match="no archive"):
            await function(store, whole)
    with pytest.raises(FileRefusedError, match="no export"):
        await import_store(other, file)
    with pytest.raises(InvalidOptionError, match="is there already"):
        await archive(store, file)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) - 10])
    with pytest.raises(FileRefusedError):
        await remove(store, file)
    assert len((await store.get_events(order, "Order")).events) == 4


def archived_as(file: Path, *lines: dict) -> None:
    """A file that says that it holds closed streams, and is complete."""
    with file.open("wb") as opened:
        writer = RowsWriter(opened, {"holds": archiving.HOLDS}, "/shop")
        for line in lines:
            found = members(json.dumps(line))
            relation, row = read_line(found)
            writer.rows(relation, [row])
        writer.end()


async def test_a_complete_file_that_says_it_is_an_archive_is_not_trusted_for_it(store: EventStore, tmp_path):
    order = await closed(store)
    whole = tmp_path / "whole.jsonl"
    await export_store(store, whole)
    first, *_ = [json.loads(line) for line in whole.read_text().splitlines()[1:-1]]
    open_stream, checkpoint = tmp_path / "open.jsonl", tmp_path / "checkpoint.jsonl"
    archived_as(open_stream, first)
    row = {"projection_name": "p", "created_at": first["time"], "updated_at": first["time"]}
    archived_as(checkpoint, {"esource": "projection_checkpoints", "row": {**row, "events_processed": 0}})
    for file, problem in ((open_stream, "does not end with"), (checkpoint, "is no part of an archive")):
        for function in (remove, restore):
            with pytest.raises(FileRefusedError, match=problem):
                await function(store, file)
    empty = tmp_path / "empty.jsonl"
    archived_as(empty)
    assert [(await function(store, empty)).streams for function in (remove, restore)] == [0, 0]
    assert len((await store.get_events(order, "Order")).events) == 4


async def test_an_archive_is_a_file_with_a_name(store: EventStore):
    with pytest.raises(InvalidOptionError, match="must be named by a path"):
        await archive(store, io.BytesIO())


async def test_a_stream_that_was_archived_before_has_nothing_left_to_archive(store: EventStore, tmp_path):
    order = await closed(store)
    assert (await archive(store, tmp_path / "one.jsonl", streams=[(order, "Order")])).events == 3
    assert (await archive(store, tmp_path / "two.jsonl", streams=[(order, "Order")])).streams == 0
    assert not (tmp_path / "two.jsonl").exists()


KILLED = """
import asyncio, sys
from esource import open_store
from esource.copying.archiving import archive, remove
async def main():
    url, file, resume = sys.argv[1:]
    async with open_store(url) as store:
        print("ready", flush=True)
        await (remove(store, file) if resume == "yes" else archive(store, file))
        print("done", flush=True)
asyncio.run(main())
"""


@pytest.mark.slow
async def test_an_archive_that_is_killed_has_every_event_in_the_log_or_in_the_file(
    shared_store: EventStore, shared_database_url, tmp_path
):
    store = shared_store
    for _ in range(60):
        await closed(store, 4)
    before = await stored(store)
    file = tmp_path / "closed.jsonl"
    chance = random.Random(7)
    for attempt in range(20):
        resume = "yes" if file.exists() else "no"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            KILLED,
            shared_database_url,
            str(file),
            resume,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        try:
            # Later attempts get more time: a loaded machine comes to an end, too.
            patience = chance.uniform(0.02, 0.35) * 1.5**attempt
            finished = await asyncio.wait_for(process.stdout.readline(), patience)
        except asyncio.TimeoutError:
            process.send_signal(signal.SIGKILL)
            finished = b""
        await process.wait()
        if finished == b"done\n":
            break
        if not file.exists():
            assert await stored(store) == before
    else:
        pytest.fail("the archive never came to its end")
    assert len(await stored(store)) == 120
    await restore(store, file)
    assert await stored(store) == before
    assert [path.name for path in Path(tmp_path).glob("closed.jsonl")] == ["closed.jsonl"]


async def test_what_another_tenant_has_written_about_a_stream_holds_its_archive_up_by_nothing(
    shared_database_url, open_stores, tmp_path
):
    store = await open_stores(shared_database_url)
    red, blue = store.for_tenant(uuid4()), store.for_tenant(uuid4())
    stream = uuid4()
    await OutboxRepository(red).add_event(placed(stream))
    await blue.append_events(stream, "Order", several(2, stream), 0)
    await blue.close_stream(stream, "Order", 2)
    await CheckpointRepository(red).save_position("behind", 1, uuid4(), "OrderPlaced")
    assert (await archive(store, tmp_path / "archive.jsonl")).events == 2


async def test_a_checkpoint_of_the_tenants_own_holds_an_archive_up(
    shared_database_url, open_stores, tmp_path
):
    store = await open_stores(shared_database_url)
    blue = store.for_tenant(uuid4())
    stream = uuid4()
    await blue.append_events(stream, "Order", several(2, stream), 0)
    await blue.close_stream(stream, "Order", 2)
    await CheckpointRepository(blue).save_position("behind", 1, uuid4(), "OrderPlaced")
    with pytest.raises(ArchiveRefusedError, match="behind is at position 1"):
        await archive(store, tmp_path / "archive.jsonl")

"""A store goes through a file and comes out the same, or not at all."""

from __future__ import annotations

import io
import json

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from sqlalchemy import select
from support.orders import placed, several
from support.pairs import Pair, fill

from esource import EventStore, SQLiteEventStore
from esource.copying import export_store, files, import_store, verify_copy
from esource.database.sources import database_of
from esource.errors import (
    ConstraintError,
    CopyRefusedError,
    FileRefusedError,
    InvalidEventError,
    InvalidOptionError,
    MissingDriverError,
)
from esource.tables import events
from esource.tables.statement import Statement


@pytest.fixture
async def filled(pair: Pair, open_stores) -> Pair:
    await fill(await open_stores(pair.source))
    return pair


async def exported(store) -> bytes:
    file = io.BytesIO()
    await export_store(store, file)
    return file.getvalue()


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
async def test_an_imported_store_is_the_one_that_was_exported(filled: Pair, ending, tmp_path):
    file = tmp_path / f"events.jsonl{ending}"
    result = await export_store(filled.source, file)
    assert result.rows == {
        "events": 18,
        "snapshots": 5,
        "projection_checkpoints": 5,
        "dead_letter_queue": 3,
        "event_outbox": 3,
    }
    assert (await import_store(filled.target, file)).rows == result.rows
    assert (await verify_copy(filled.source, filled.target)).is_identical


async def test_an_empty_store_goes_through_a_file_too(pair: Pair, open_stores):
    await import_store(pair.target, io.BytesIO(await exported(pair.source)))
    event = placed()
    target = await open_stores(pair.target)
    assert (await target.append_events(event.aggregate_id, "Order", [event], 0)).global_position == 1


async def test_positions_go_on_where_the_exported_store_was(filled: Pair, open_stores):
    await import_store(filled.target, io.BytesIO(await exported(filled.source)))
    target = await open_stores(filled.target)
    event = placed()
    # Position 21 was handed out, and deleted before the export.
    assert (await target.append_events(event.aggregate_id, "Order", [event], 0)).global_position == 22


async def test_each_event_is_a_cloud_event_with_its_payload_as_it_is_stored(store: EventStore):
    order, tenant = placed().aggregate_id, placed().event_id
    [event] = several(1, order, tenant_id=tenant, actor_id="me", metadata={"n": 10**30, "f": 1.10})
    await store.append_events(order, "Order", [event], 0)
    lines = (await exported(store)).splitlines()
    cloud = JSONFormat().read(CloudEvent, lines[1])
    assert (cloud.get_id(), cloud.get_type(), cloud.get_source()) == (
        str(event.event_id),
        event.event_type,
        "/esource",
    )
    assert (cloud.get_subject(), cloud.get_time()) == (f"Order/{order}", event.occurred_at)
    assert cloud.get_extension("globalposition") == "1"
    assert cloud.get_extension("tenantid") == str(tenant)
    assert cloud.get_extension("actorid") == "me"
    [(payload,)] = await database_of(store).rows(Statement(select(events.c.payload)), {})
    assert f'"data":{payload}}}' in lines[1].decode()


async def test_what_is_read_in_a_snapshot_is_of_one_moment(
    shared_store: EventStore, shared_database_url, open_stores
):
    store = shared_store
    database = database_of(store)
    first, second = placed(), placed()
    await store.append_events(first.aggregate_id, "Order", [first], 0)
    other = await open_stores(shared_database_url)
    async with database.reading():
        assert await store.get_global_position() == 1
        await other.append_events(second.aggregate_id, "Order", [second], 0)
        assert await store.get_global_position() == 1
    assert await store.get_global_position() == 2


async def test_a_file_that_is_cut_off_anywhere_is_refused_and_nothing_of_it_stays(filled: Pair, open_stores):
    data = await exported(filled.source)
    target = await open_stores(filled.target)
    lines = data.splitlines(keepends=True)
    for part in (b"", data[:-1], b"".join(lines[:-1]), b"".join(lines[:3]), data[: len(data) // 2]):
        with pytest.raises(FileRefusedError):
            await import_store(target, io.BytesIO(part))
        assert await target.get_global_position() == 0
    await import_store(target, io.BytesIO(data))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
async def test_a_compressed_file_that_is_cut_off_or_damaged_is_refused(filled: Pair, ending, tmp_path):
    file = tmp_path / f"events.jsonl{ending}"
    await export_store(filled.source, file)
    data = file.read_bytes()
    middle = len(data) // 2
    for wrong in (
        data[:middle],
        data[:-3],
        data[:middle] + b"\0\0\0\0" + data[middle + 4 :],
        data[:12] + b"\xff" * len(data),
    ):
        file.write_bytes(wrong)
        with pytest.raises(FileRefusedError):
            await import_store(filled.target, file)


async def test_an_error_of_the_callers_own_file_is_not_taken_for_damage(store: EventStore):
    class Odd(io.BytesIO):
        def readline(self, *_):
            raise RuntimeError("not today")

    with pytest.raises(RuntimeError, match="not today"):
        await import_store(store, Odd())


async def test_a_file_of_many_batches_is_imported_whole(filled: Pair, monkeypatch):
    monkeypatch.setattr(files, "BATCH_ROWS", 7)
    data = await exported(filled.source)
    assert (await import_store(filled.target, io.BytesIO(data))).rows["events"] == 18
    assert (await verify_copy(filled.source, filled.target)).is_identical


async def test_a_file_that_was_changed_is_refused(filled: Pair):
    data = await exported(filled.source)
    changes = {
        "digest": data.replace(b'"actorid":"me"', b'"actorid":"us"', 1),
        "no file of rows": b'{"some": "thing"}\n' + data,
        "no file of rows ": b"PK\x03\x04\n",
        "format is 2": data.replace(b'"format": 1', b'"format": 2', 1),
        "rows follow": data + b"{}\n",
    }
    for word, changed in changes.items():
        assert changed != data
        with pytest.raises(FileRefusedError, match=word.strip()):
            await import_store(filled.target, io.BytesIO(changed))


async def test_lines_that_no_row_can_be_made_of_are_refused_by_number(store: EventStore, open_stores):
    order = placed()
    await store.append_events(order.aggregate_id, "Order", [order], 0)
    header, line, _ = (await exported(store)).splitlines(keepends=True)
    await database_of(store).run_script(["DELETE FROM events"])
    event = json.loads(line)
    for change in (
        {"id": "x"},
        {"id": None},
        {"subject": "Order"},
        {"subject": "Order/1"},
        {"subject": f"{'O' * 256}/{order.aggregate_id}"},
        {"time": "yesterday"},
        {"time": 3},
        {"globalposition": "-1"},
        {"globalposition": "1e3"},
        {"globalposition": 1},
        {"globalposition": 1.5},
        {"globalposition": str(2**64)},
        {"aggregateversion": True},
        {"type": 7},
        {"type": "a\0b"},
        {"tenantid": "T"},
        {"specversion": "2.0"},
        {"data": {"a": "\0"}},
        {"data": [1]},
        {"data": "{}"},
        {"esource": "tables"},
        {"esource": "snapshots"},
        {"esource": "snapshots", "row": []},
        {"esource": "snapshots", "row": {"colour": 1}},
        {"esource": "snapshots", "row": {"id": 1}},
        {"esource": "snapshots", "row": {"id": "1"}},
    ):
        text = json.dumps(event | change).encode() + b"\n"
        with pytest.raises(FileRefusedError, match=r"line 2: ."):
            await import_store(store, io.BytesIO(header + text))
    for text in (
        b"[]",
        b'{"a":1,"a":2}',
        b"{}x",
        b"{'a':1}",
        b'{"a"',
        b'{"a":1,}',
        b'{"a":[' * 9000,
        b"\xff",
    ):
        with pytest.raises(FileRefusedError, match=r"line 2: ."):
            await import_store(store, io.BytesIO(header + text + b"\n"))
    assert await store.get_global_position() == 0


async def test_rows_that_exclude_each_other_are_refused_as_a_whole(filled: Pair, open_stores):
    file = io.BytesIO()
    header, event, *_ = (await exported(filled.source)).splitlines()
    writer = files.RowsWriter(file, {k: v for k, v in json.loads(header).items() if k != "esource"}, "/x")
    relation, row = files.read_line(files.members(event.decode()))
    writer.rows(relation, [row, (row[0] + 1, *row[1:])])
    writer.end()
    file.seek(0)
    target = await open_stores(filled.target)
    with pytest.raises(ConstraintError):
        await import_store(target, file)
    assert await target.get_global_position() == 0


async def test_only_an_empty_store_is_filled(filled: Pair, open_stores):
    data = await exported(filled.source)
    target = await open_stores(filled.target)
    event = placed()
    await target.append_events(event.aggregate_id, "Order", [event], 0)
    with pytest.raises(CopyRefusedError, match="1 rows in events"):
        await import_store(target, io.BytesIO(data))


async def test_on_sqlite_where_others_may_write_anything_a_row_that_is_none_ends_the_export(tmp_path):
    async with SQLiteEventStore(tmp_path / "events.db") as store:
        await store.initialize()
        event = placed()
        await store.append_events(event.aggregate_id, "Order", [event], 0)
        await database_of(store).run_script(["UPDATE events SET payload = '{\"a\": '"])
        file = tmp_path / "events.jsonl"
        with pytest.raises(InvalidEventError, match=r"payload.*row 1 of events"):
            await export_store(store, file)
        await database_of(store).run_script(["UPDATE events SET payload = '{\"a\":\r\n 1.50}'"])
        await export_store(store, file)
        assert b'"data":{"a":   1.50}' in file.read_bytes()
        assert [path.name for path in tmp_path.glob("events.jsonl*")] == ["events.jsonl"]


async def test_an_export_never_overwrites_a_file_and_leaves_none_behind_that_is_not_complete(
    store: EventStore, tmp_path, monkeypatch
):
    file = tmp_path / "events.jsonl"
    await export_store(store, file)
    before = file.read_bytes()
    with pytest.raises(InvalidOptionError, match="is there already"):
        await export_store(store, file)
    assert file.read_bytes() == before

    def stop(progress) -> None:
        raise KeyboardInterrupt

    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)
    with pytest.raises(KeyboardInterrupt):
        await export_store(store, tmp_path / "other.jsonl", on_progress=stop)
    with pytest.raises(InvalidOptionError, match="No such file"):
        await export_store(store, tmp_path / "nowhere" / "other.jsonl")
    with pytest.raises(InvalidOptionError, match="No such file"):
        await import_store(store, tmp_path / "nowhere.jsonl")
    with pytest.raises(InvalidOptionError, match=r"bz2: .* as \.gz or \.zst"):
        await export_store(store, tmp_path / "other.jsonl.bz2")
    with pytest.raises(InvalidOptionError, match="source"):
        await export_store(store, tmp_path / "other.jsonl", source="")
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(MissingDriverError, match=r"esource\[zstd\]"):
        await export_store(store, tmp_path / "other.jsonl.zst")
    assert sorted(path.name for path in tmp_path.iterdir() if "jsonl" in path.name) == ["events.jsonl"]

import asyncio
from datetime import datetime
from uuid import uuid4

import pytest

from esource import InvalidEventError, Snapshot, SnapshotStore
from esource.errors import InvalidOptionError


@pytest.fixture
def snapshots(store):
    return SnapshotStore(store)


async def test_a_snapshot_comes_back_as_it_was(snapshots):
    state = {"text": "ü", "list": [1, 1.5, None, True], "large": 1e300, "deep": {"a": {}}}
    snapshot = Snapshot(uuid4(), "Order", 4, state, schema_version=2)
    assert await snapshots.save_snapshot(snapshot) is True
    found = await snapshots.get_snapshot(snapshot.aggregate_id, "Order")
    assert found == snapshot
    assert type(found.state["large"]) is float
    assert await snapshots.get_snapshot(snapshot.aggregate_id, "Invoice") is None
    assert await snapshots.get_snapshot(uuid4(), "Order") is None


async def test_an_older_snapshot_never_overwrites_a_newer_one(snapshots):
    i = uuid4()
    assert await snapshots.save_snapshot(Snapshot(i, "Order", 4, {"v": 4})) is True
    assert await snapshots.save_snapshot(Snapshot(i, "Order", 3, {"v": 3})) is False
    assert (await snapshots.get_snapshot(i, "Order")).state == {"v": 4}
    assert await snapshots.save_snapshot(Snapshot(i, "Order", 4, {"v": "4b"}, schema_version=2)) is True
    assert await snapshots.save_snapshot(Snapshot(i, "Order", 5, {"v": 5})) is True
    assert (await snapshots.get_snapshot(i, "Order")).version == 5


async def test_of_many_writers_the_newest_wins(snapshots):
    i = uuid4()
    versions = [7, 3, 9, 1, 8, 2]
    await asyncio.gather(*(snapshots.save_snapshot(Snapshot(i, "Order", v, {"v": v})) for v in versions))
    assert (await snapshots.get_snapshot(i, "Order")).state == {"v": 9}


async def test_snapshots_are_deleted(snapshots):
    i = uuid4()
    await snapshots.save_snapshot(Snapshot(i, "Order", 1, {}))
    await snapshots.save_snapshot(Snapshot(i, "Invoice", 1, {}))
    assert await snapshots.snapshot_exists(i, "Order") is True
    assert await snapshots.delete_snapshot(i, "Order") is True
    assert await snapshots.delete_snapshot(i, "Order") is False
    assert await snapshots.snapshot_exists(i, "Order") is False
    assert await snapshots.snapshot_exists(i, "Invoice") is True


async def test_snapshots_of_a_type_are_deleted_all_or_by_schema_version(snapshots):
    for schema_version in (1, 1, 2, 3):
        await snapshots.save_snapshot(Snapshot(uuid4(), "Order", 1, {}, schema_version=schema_version))
    await snapshots.save_snapshot(Snapshot(uuid4(), "Invoice", 1, {}))
    assert await snapshots.delete_snapshots_by_type("Order", schema_version_below=3) == 3
    assert await snapshots.delete_snapshots_by_type("Order") == 1
    assert await snapshots.delete_snapshots_by_type("Order") == 0
    assert await snapshots.delete_snapshots_by_type("Invoice") == 1


async def test_arguments_that_make_no_sense_are_refused(snapshots):
    i = uuid4()
    for state, where in [
        ({"a": ["\x00"]}, r"state.a\[0\]"),
        ({"a": "\ud800"}, "state.a"),
        ({"a": float("nan")}, "state.a"),
        ({"a": object()}, "state"),
    ]:
        with pytest.raises(InvalidEventError, match=where):
            await snapshots.save_snapshot(Snapshot(i, "Order", 1, state))
    for fields in (
        {"version": 0},
        {"version": 2**31},
        {"version": "1"},
        {"schema_version": -1},
        {"schema_version": 2**31},
        {"created_at": datetime(2024, 1, 1)},
        {"aggregate_id": str(i)},
    ):
        values = {"aggregate_id": i, "aggregate_type": "Order", "version": 1, "state": {}, **fields}
        with pytest.raises(InvalidOptionError, match=next(iter(fields))):
            await snapshots.save_snapshot(Snapshot(**values))
    with pytest.raises(InvalidEventError, match="aggregate_type"):
        await snapshots.save_snapshot(Snapshot(i, "x" * 256, 1, {}))
    for call in (snapshots.get_snapshot, snapshots.delete_snapshot, snapshots.snapshot_exists):
        with pytest.raises(InvalidOptionError, match="aggregate_id must be a UUID"):
            await call(str(i), "Order")
    with pytest.raises(InvalidOptionError, match="schema_version_below"):
        await snapshots.delete_snapshots_by_type("Order", 2**31)

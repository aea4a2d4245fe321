"""A copy is the same store in another database, however often it is made and whatever it finds."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import insert
from support.orders import placed, several
from support.pairs import Pair, fill

from esource import (
    CheckpointRepository,
    DLQRepository,
    OptimisticLockError,
    OutboxRepository,
    SnapshotStore,
    schema,
)
from esource.copying import Progress, copy, log, rows, verification, verify_copy
from esource.copying import mirror as beside
from esource.errors import (
    CopyRefusedError,
    InvalidEventError,
    InvalidOptionError,
    SchemaMissingError,
    SchemaOutdatedError,
)
from esource.moments import utc_now
from esource.repositories.lease import Lease
from esource.tables import projection_checkpoints


async def everything(store) -> list:
    """What the store's own readers say, without anything that copying is built on."""
    stored = [
        (e.global_position, e.stream_position, e.stored_at, e.event.model_dump())
        async for e in store.read_all()
    ]
    snapshots = [
        await SnapshotStore(store).get_snapshot(stream, "Order")
        for stream in dict.fromkeys(e[3]["aggregate_id"] for e in stored)
    ]
    checkpoints = await CheckpointRepository(store).get_all_checkpoints()
    letters = await DLQRepository(store).get_failed_events()
    pending = await OutboxRepository(store).get_pending_events()
    return [
        stored,
        snapshots,
        sorted(checkpoints, key=lambda checkpoint: checkpoint.projection_name),
        letters,
        [(row.event_id, row.event_data, row.created_at, row.retry_count) for row in pending],
        await OutboxRepository(store).get_stats(),
    ]


async def test_the_target_of_a_copy_answers_like_the_source(pair: Pair, open_stores):
    source = await open_stores(pair.source)
    await fill(source)
    result = await copy(pair.source, pair.target, verify=True)
    assert (result.events, result.position) == (18, 20)
    assert {name: change.added for name, change in result.tables.items()} == {
        "snapshots": 5,
        "projection_checkpoints": 5,
        "dead_letter_queue": 3,
        "event_outbox": 3,
    }
    assert result.verification.is_identical
    assert result.verification.events == 18
    target = await open_stores(pair.target)
    assert await everything(target) == await everything(source)


async def test_a_copy_goes_on_where_the_source_was(pair: Pair, open_stores):
    source = await open_stores(pair.source)
    orders = await fill(source)
    await copy(pair.source, pair.target)
    target = await open_stores(pair.target)
    with pytest.raises(OptimisticLockError, match="version 4"):
        await target.append_events(orders[3], "Order", [placed(orders[3])], 3)
    for store in (source, target):
        appended = await store.append_events(orders[3], "Order", [placed(orders[3])], 4)
        assert (appended.new_version, appended.global_position) == (5, 22)
        letter = placed(orders[3])
        await DLQRepository(store).add_failed_event(
            letter.event_id, "p", "OrderPlaced", letter.to_dict(), ValueError("y")
        )
    assert (await DLQRepository(target).get_failed_events())[-1].id == (
        await DLQRepository(source).get_failed_events()
    )[-1].id


async def test_who_holds_a_lease_is_not_copied(pair: Pair, open_stores):
    await fill(await open_stores(pair.source))
    await copy(pair.source, pair.target)
    assert await Lease(await open_stores(pair.target), "b").acquire()


async def test_a_second_copy_says_that_nothing_was_to_be_done(pair: Pair, open_stores):
    await fill(await open_stores(pair.source))
    first = await copy(pair.source, pair.target)
    second = await copy(pair.source, pair.target)
    assert first.changed
    assert not second.changed
    assert (second.events, second.position) == (0, 20)


async def test_a_second_copy_brings_over_what_has_changed(pair: Pair, open_stores):
    source = await open_stores(pair.source)
    orders = await fill(source)
    await copy(pair.source, pair.target)
    await source.append_events(orders[0], "Order", several(3, orders[0]))
    await CheckpointRepository(source).save_position("b", 9, uuid4(), "OrderShipped")
    await CheckpointRepository(source).reset_checkpoint("é")
    letters = await DLQRepository(source).get_failed_events()
    await DLQRepository(source).mark_resolved(letters[0].id, "me")
    await SnapshotStore(source).delete_snapshot(orders[1], "Order")
    pending = await OutboxRepository(source).get_pending_events()
    await OutboxRepository(source).mark_published(pending[0].id)
    result = await copy(pair.source, pair.target, verify=True)
    assert result.events == 3
    assert result.verification.is_identical
    assert result.tables["snapshots"] == (0, 1)
    assert result.tables["dead_letter_queue"] == (1, 1)
    assert await everything(await open_stores(pair.target)) == await everything(source)


async def test_a_long_log_is_copied_in_many_transactions(pair: Pair, open_stores, monkeypatch):
    monkeypatch.setattr(log, "CHUNK_EVENTS", 40)
    monkeypatch.setattr(log, "FIRST_PAGE", 8)
    monkeypatch.setattr(rows, "PAGE_ROWS", 16)
    source = await open_stores(pair.source)
    for _ in range(25):
        [first, *_] = events = several(13)
        await source.append_events(first.aggregate_id, "Order", events, 0)
    told: list[Progress] = []
    result = await copy(pair.source, pair.target, verify=True, on_progress=told.append)
    assert result.events == 325
    assert result.verification.is_identical
    assert result.verification.events == 325
    copied = [progress for progress in told if progress.step == "copy"]
    assert [progress.done for progress in copied] == sorted({progress.done for progress in copied})
    assert len(copied) >= 7
    assert copied[-1] == Progress("copy", 325, 325)


async def test_a_copy_into_an_empty_database_makes_the_tables(empty_database_url, open_stores):
    source = await open_stores("sqlite://")
    await fill(source)
    result = await copy(source, empty_database_url, verify=True)
    assert result.events == 18
    assert result.verification.is_identical


async def test_a_log_that_is_no_beginning_of_the_source_is_refused(pair: Pair, open_stores):
    await fill(await open_stores(pair.source))
    target = await open_stores(pair.target)
    await target.append_events((event := placed()).aggregate_id, "Order", [event])
    before = await everything(target)
    with pytest.raises(
        CopyRefusedError, match="it holds 1 events up to position 1, where the source holds 0"
    ):
        await copy(pair.source, pair.target)
    assert await everything(target) == before


async def test_a_log_with_other_events_at_the_same_positions_is_refused(pair: Pair, open_stores):
    for url in pair:
        store = await open_stores(url)
        await store.append_events((event := placed()).aggregate_id, "Order", [event])
    with pytest.raises(CopyRefusedError, match="where the source holds"):
        await copy(pair.source, pair.target)


async def test_an_event_that_was_changed_in_the_target_is_named_without_its_payload(pair: Pair, open_stores):
    await fill(await open_stores(pair.source))
    await copy(pair.source, pair.target)
    target = await open_stores(pair.target)
    async with target.transaction() as tx:
        await tx.connection.exec_driver_sql(
            "UPDATE events SET actor_id = 'mallory', event_type = 'Secret' WHERE global_position = 10"
        )
    with pytest.raises(CopyRefusedError, match="position 10 .*: event_type, actor_id. Nothing") as refused:
        await copy(pair.source, pair.target)
    assert "customer_id" not in str(refused.value)
    assert "mallory" not in str(refused.value)


async def test_a_target_ahead_of_the_source_is_refused(pair: Pair, open_stores):
    await fill(await open_stores(pair.source))
    await copy(pair.source, pair.target)
    target = await open_stores(pair.target)
    await target.append_events((event := placed()).aggregate_id, "Order", [event])
    with pytest.raises(CopyRefusedError, match="its last one is at 20"):
        await copy(pair.source, pair.target)


async def test_rows_beside_an_empty_log_are_not_removed_for_a_copy(pair: Pair, open_stores):
    await fill(await open_stores(pair.source))
    target = await open_stores(pair.target)
    await CheckpointRepository(target).save_position("mine", 1, uuid4(), "OrderPlaced")
    with pytest.raises(CopyRefusedError, match="1 rows in projection_checkpoints"):
        await copy(pair.source, pair.target)
    assert await CheckpointRepository(target).get_position("mine") == 1


async def test_a_database_is_not_copied_onto_itself(shared_database_url, tmp_path):
    other = shared_database_url
    if other.startswith("sqlite"):
        (tmp_path / "link.db").symlink_to(tmp_path / "events.db")
        other = f"sqlite:///{tmp_path / 'link.db'}"
    with pytest.raises(InvalidOptionError, match="the same database"):
        await copy(shared_database_url, other)


async def test_a_source_at_an_older_schema_is_refused(shared_database_url, open_stores):
    await schema.downgrade(shared_database_url, "0002")
    with pytest.raises(SchemaOutdatedError, match="alembic upgrade head"):
        await copy(shared_database_url, "sqlite://")


async def test_a_source_without_our_tables_is_refused(empty_database_url, open_stores):
    with pytest.raises(SchemaMissingError):
        await copy(empty_database_url, await open_stores("sqlite://"))


async def test_a_store_bound_to_a_tenant_is_refused(store):
    with pytest.raises(InvalidOptionError, match="a copy"):
        await copy(store.for_tenant(uuid4()), "sqlite://")


async def test_an_id_that_is_none_is_named_before_it_is_copied_to_postgresql(
    sqlite_url, postgres_url, open_stores
):
    """SQLite only as a source: PostgreSQL itself refuses such rows."""
    source = await open_stores(sqlite_url)
    await fill(source)
    async with source.transaction() as tx:
        await tx.connection.exec_driver_sql("UPDATE events SET tenant_id = 'abcd' WHERE global_position = 12")
    with pytest.raises(InvalidEventError, match="tenant_id.*position 12"):
        await copy(sqlite_url, postgres_url)


async def test_a_row_that_postgresql_cannot_hold_is_named_and_copying_goes_on_after_mending(
    sqlite_url, postgres_url, open_stores, monkeypatch
):
    """SQLite only as a source: PostgreSQL itself refuses such rows."""
    monkeypatch.setattr(log, "CHUNK_EVENTS", 1)
    monkeypatch.setattr(log, "FIRST_PAGE", 3)
    source = await open_stores(sqlite_url)
    await fill(source)
    async with source.transaction() as tx:
        await tx.connection.exec_driver_sql(
            "UPDATE events SET payload = '{\"customer_id\": NaN}' WHERE global_position = 12"
        )
    with pytest.raises(InvalidEventError, match="payload.*position 12.*copy again"):
        await copy(sqlite_url, postgres_url)
    target = await open_stores(postgres_url)
    assert 0 < await target.get_global_position() < 12
    async with source.transaction() as tx:
        await tx.connection.exec_driver_sql("UPDATE events SET payload = '{}' WHERE global_position = 12")
    assert (await copy(sqlite_url, postgres_url, verify=True)).verification.is_identical


TAMPERING = [
    ("events", "UPDATE events SET actor_id = 'x' WHERE global_position = 9"),
    ("events", "DELETE FROM events WHERE global_position = 9"),
    ("events", "DELETE FROM events WHERE global_position = 20"),
    ("snapshots", "UPDATE snapshots SET version = version + 1 WHERE version = 2"),
    ("projection_checkpoints", "DELETE FROM projection_checkpoints WHERE projection_name = 'B'"),
    ("dead_letter_queue", "UPDATE dead_letter_queue SET error_message = 'z' WHERE id = 2"),
    ("event_outbox", "UPDATE event_outbox SET retry_count = 7 WHERE status = 'failed'"),
]


@pytest.mark.slow
async def test_verifying_finds_any_row_that_differs(pair: Pair, open_stores):
    await fill(await open_stores(pair.source))
    await copy(pair.source, pair.target)
    target = await open_stores(pair.target)
    for table, statement in TAMPERING:
        async with target.transaction() as tx:
            await tx.connection.exec_driver_sql(statement)
        found = await verify_copy(pair.source, pair.target)
        assert not found.is_identical, statement
        [difference] = found.differences
        assert difference.startswith(table), statement
        assert found.events == 18, statement
        async with target.transaction() as tx:  # what is left is the beginning of a copy
            await tx.connection.exec_driver_sql("DELETE FROM events WHERE global_position >= 9")
        assert (await copy(pair.source, pair.target, verify=True)).verification.is_identical


async def test_what_only_the_target_has_is_found_in_whichever_range_it_is(
    pair: Pair, open_stores, monkeypatch
):
    monkeypatch.setattr(verification, "RANGE_EVENTS", 5)
    monkeypatch.setattr(verification, "next_size", lambda relation, rows: 5)
    await fill(await open_stores(pair.source))
    found = (await copy(pair.source, pair.target, verify=True)).verification
    assert [part.events for part in found.ranges] == [18]  # the first page is of its own size
    target = await open_stores(pair.target)
    event = placed()
    await target.append_events(event.aggregate_id, "Order", [event])
    [difference] = (await verify_copy(pair.source, pair.target)).differences
    assert difference.startswith("events: only the target has")
    assert str(event.event_id) in difference


async def test_a_copy_cannot_both_follow_and_verify(pair: Pair):
    with pytest.raises(InvalidOptionError, match="cut_over verifies at the end"):
        await copy(pair.source, pair.target, follow=True, verify=True)


async def test_tables_of_many_pages_are_copied_and_compared_whole(pair: Pair, open_stores, monkeypatch):
    monkeypatch.setattr(beside, "BATCH_ROWS", 250)
    source = await open_stores(pair.source)
    event, now = placed(), utc_now()
    await source.append_events(
        event.aggregate_id, "Order", [event]
    )  # else rows of the target's own are in doubt
    rows = [
        {"projection_name": f"p{n:04}", "events_processed": n, "created_at": now, "updated_at": now}
        for n in range(600)
    ]
    async with source.transaction() as tx:
        await tx.connection.execute(insert(projection_checkpoints), rows)
    result = await copy(pair.source, pair.target, verify=True)
    assert result.tables["projection_checkpoints"].added == 600
    assert result.verification.is_identical
    copied = await CheckpointRepository(await open_stores(pair.target)).get_all_checkpoints()
    assert copied == await CheckpointRepository(source).get_all_checkpoints()
    async with source.transaction() as tx:
        await tx.connection.exec_driver_sql("DELETE FROM projection_checkpoints WHERE events_processed > 0")
    assert (await copy(pair.source, pair.target)).tables["projection_checkpoints"] == (0, 599)

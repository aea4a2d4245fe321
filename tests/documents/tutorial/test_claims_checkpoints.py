"""The tutorial's claims about checkpoints and the fixtures (88-98, 100)."""

from uuid import uuid4

import aiosqlite
import pytest
from support.orders import placed

from esource import CheckpointRepository, InMemoryCheckpointRepository, SQLiteEventStore
from esource.errors import SchemaMissingError
from esource.repositories.checkpoint import SQLiteCheckpointRepository


@pytest.fixture
def checkpoints(store):
    return CheckpointRepository(store)


async def save(checkpoints, position, event=None, name="OrderProjection"):
    event = event or placed()
    return await checkpoints.save_position(
        subscription_id=name, position=position, event_id=event.event_id, event_type=event.event_type
    )


async def test_a_checkpoint_is_kept_on_an_open_aiosqlite_connection_sqlite(tmp_path):
    path = tmp_path / "events.db"
    async with SQLiteEventStore(path) as store:
        await store.initialize()
    event = placed()
    async with aiosqlite.connect(path) as db:
        checkpoints = SQLiteCheckpointRepository(db)
        assert await checkpoints.get_position("OrderProjection") is None
        await save(checkpoints, 1000, event)
        assert await checkpoints.get_position("OrderProjection") + 1 == 1001
        assert [(c.projection_name, c.global_position) for c in await checkpoints.get_all_checkpoints()] == [
            ("OrderProjection", 1000)
        ]
    # Committed, not only seen by the connection that wrote it.
    async with aiosqlite.connect(path) as db:
        assert await SQLiteCheckpointRepository(db).get_checkpoint("OrderProjection") == event.event_id


async def test_without_tables_the_error_names_both_cures_sqlite(tmp_path):
    async with aiosqlite.connect(tmp_path / "events.db") as db:
        with pytest.raises(SchemaMissingError, match=r"initialize\(\)(.|\n)*alembic upgrade head"):
            await save(SQLiteCheckpointRepository(db), 1000)


async def test_without_tables_the_error_names_both_cures(empty_database_url):
    checkpoints = CheckpointRepository(empty_database_url)
    with pytest.raises(SchemaMissingError, match=r"initialize\(\)(.|\n)*alembic upgrade head"):
        await save(checkpoints, 1000)
    await checkpoints.close()


async def test_a_position_is_saved_and_read(checkpoints):
    assert await checkpoints.get_position("OrderProjection") is None
    assert await save(checkpoints, 1000)
    assert await checkpoints.get_position("OrderProjection") == 1000


async def test_all_checkpoints_are_listed_by_name(checkpoints):
    await save(checkpoints, 7, name="Shipping")
    await save(checkpoints, 1000, name="Billing")
    found = await checkpoints.get_all_checkpoints()
    assert [(c.projection_name, c.global_position) for c in found] == [("Billing", 1000), ("Shipping", 7)]


async def test_saving_moves_forward_and_never_back(checkpoints):
    first, second = placed(), placed()
    await save(checkpoints, 5, first)
    assert await save(checkpoints, 9, second)
    assert not await save(checkpoints, 9, second)
    assert not await save(checkpoints, 5, first)
    data = await checkpoints.get_checkpoint_data("OrderProjection")
    assert (data.global_position, data.last_event_id, data.events_processed) == (9, second.event_id, 2)


async def test_a_checkpoint_keeps_the_position_and_the_event(checkpoints):
    event = placed()
    await save(checkpoints, 3, event)
    data = await checkpoints.get_checkpoint_data("OrderProjection")
    assert (data.global_position, data.last_event_id, data.last_event_type) == (
        3,
        event.event_id,
        "OrderPlaced",
    )
    assert await checkpoints.get_checkpoint("OrderProjection") == event.event_id


async def test_the_lag_is_what_the_projection_has_not_read(store, checkpoints):
    events = [placed() for _ in range(3)]
    results = [await store.append_events(e.aggregate_id, "Order", [e]) for e in events]
    assert await checkpoints.get_lag_metrics("OrderProjection") is None

    await save(checkpoints, results[0].global_position, events[0])
    behind = await checkpoints.get_lag_metrics("OrderProjection")
    assert (behind.lag_events, behind.latest_event_id) == (2, str(events[-1].event_id))
    assert (await checkpoints.get_lag_metrics("OrderProjection", ["Unheard"])).lag_events == 0

    await save(checkpoints, results[2].global_position, events[2])
    level = await checkpoints.get_lag_metrics("OrderProjection")
    assert (level.lag_events, level.lag_seconds) == (0, 0.0)


async def test_a_projection_may_be_reset(checkpoints):
    await save(checkpoints, 1000)
    await checkpoints.reset_checkpoint("OrderProjection")
    assert await checkpoints.get_position("OrderProjection") is None
    assert await save(checkpoints, 1)
    assert await checkpoints.get_position("OrderProjection") == 1


async def test_checkpoints_in_memory_need_no_arguments():
    one, other = InMemoryCheckpointRepository(), InMemoryCheckpointRepository()
    await save(one, 1000)
    assert (await one.get_position("OrderProjection"), await other.get_position("OrderProjection")) == (
        1000,
        None,
    )


async def test_read_all_needs_no_arguments_and_yields_nothing_from_an_empty_store(store):
    assert [stored async for stored in store.read_all()] == []
    order_id = uuid4()
    events = [placed(order_id), placed(order_id)]
    await store.append_events(order_id, "Order", events)
    assert [stored.event async for stored in store.read_all()] == [
        events[0].with_aggregate_version(1),
        events[1].with_aggregate_version(2),
    ]

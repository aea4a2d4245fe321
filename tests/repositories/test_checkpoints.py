import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, text
from support.orders import OrderShipped, placed

from esource import CheckpointRepository, InvalidEventError
from esource.errors import InvalidOptionError
from esource.moments import utc_now
from esource.tables import projection_checkpoints

FIRST, SECOND = UUID(int=1), UUID(int=2)


@pytest.fixture
def checkpoints(store):
    return CheckpointRepository(store)


async def counted(checkpoints, name="p"):
    return (await checkpoints.get_checkpoint_data(name)).events_processed


async def test_nothing_is_known_of_a_new_projection(checkpoints):
    assert await checkpoints.get_checkpoint("p") is None
    assert await checkpoints.get_position("p") is None
    assert await checkpoints.get_checkpoint_data("p") is None
    assert await checkpoints.get_lag_metrics("p") is None
    assert await checkpoints.get_all_checkpoints() == []
    await checkpoints.reset_checkpoint("p")


async def test_a_checkpoint_is_saved_whole(checkpoints):
    before = utc_now()
    assert (
        await checkpoints.save_position(subscription_id="p", position=5, event_id=FIRST, event_type="E")
        is True
    )
    found = await checkpoints.get_checkpoint_data("p")
    assert (found.projection_name, found.global_position, found.last_event_id) == ("p", 5, FIRST)
    assert (found.last_event_type, found.events_processed) == ("E", 1)
    assert before <= found.last_processed_at <= utc_now()
    assert await checkpoints.get_checkpoint("p") == FIRST
    assert await checkpoints.get_position("p") == 5


async def test_a_checkpoint_moves_only_forward(checkpoints):
    await checkpoints.save_position("p", 5, FIRST, "E")
    for position in (5, 4, 0):
        assert await checkpoints.save_position("p", position, SECOND, "F") is False
    found = await checkpoints.get_checkpoint_data("p")
    assert (found.global_position, found.last_event_id, found.events_processed) == (5, FIRST, 1)
    assert await checkpoints.save_position("p", 6, SECOND, "F") is True
    assert await counted(checkpoints) == 2


async def test_a_reset_is_the_way_back(checkpoints):
    await checkpoints.save_position("p", 5, FIRST, "E")
    await checkpoints.save_position("q", 5, FIRST, "E")
    await checkpoints.reset_checkpoint("p")
    assert await checkpoints.get_position("p") is None
    assert await checkpoints.save_position("p", 1, FIRST, "E") is True
    assert (await counted(checkpoints), await checkpoints.get_position("q")) == (1, 5)


async def test_a_checkpoint_by_event_takes_the_event_s_position(checkpoints, store):
    first, second = placed(), placed()
    for event in (first, second):
        await store.append_events(event.aggregate_id, "Order", [event])
    assert await checkpoints.update_checkpoint("p", second.event_id, "OrderPlaced") is True
    assert await checkpoints.get_position("p") == await store.get_global_position()
    for event in (second, first):
        assert await checkpoints.update_checkpoint("p", event.event_id, "OrderPlaced") is False
    assert await checkpoints.get_checkpoint("p") == second.event_id
    assert await counted(checkpoints) == 1


async def test_a_checkpoint_by_an_event_kept_elsewhere_has_no_position(checkpoints):
    assert await checkpoints.update_checkpoint("p", FIRST, "E") is True
    assert await checkpoints.update_checkpoint("p", FIRST, "E") is False
    before = utc_now()
    assert await checkpoints.update_checkpoint("p", SECOND, "F") is True
    found = await checkpoints.get_checkpoint_data("p")
    assert (found.last_event_id, found.last_event_type) == (SECOND, "F")
    assert before <= found.last_processed_at <= utc_now()
    assert await checkpoints.get_position("p") is None
    assert await counted(checkpoints) == 2
    assert await checkpoints.save_position("p", 1, FIRST, "E") is True


async def test_a_row_of_another_writer_that_names_no_event_can_be_moved_by_one(checkpoints, store):
    async with store.transaction() as tx:
        row = {
            "projection_name": "p",
            "events_processed": 3,
            "created_at": utc_now(),
            "updated_at": utc_now(),
        }
        await tx.connection.execute(insert(projection_checkpoints).values(row))
    assert await checkpoints.update_checkpoint("p", FIRST, "E") is True
    assert (await checkpoints.get_checkpoint("p"), await counted(checkpoints)) == (FIRST, 4)


async def test_all_checkpoints_come_by_name(checkpoints):
    for name in ("b", "a", "c"):
        await checkpoints.save_position(name, 1, FIRST, "E")
    assert [found.projection_name for found in await checkpoints.get_all_checkpoints()] == ["a", "b", "c"]


async def test_lag_counts_what_was_not_processed(checkpoints, store):
    order = uuid4()
    events = [placed(order), *(OrderShipped(aggregate_id=order, tracking_number="t") for _ in range(3))]
    await store.append_events(order, "Order", events)
    await checkpoints.update_checkpoint("p", events[1].event_id, "OrderShipped")

    lag = await checkpoints.get_lag_metrics("p")
    assert (lag.lag_events, lag.events_processed, lag.projection_name) == (2, 1, "p")
    assert (lag.last_event_id, lag.latest_event_id) == (str(events[1].event_id), str(events[3].event_id))
    assert lag.global_position == await checkpoints.get_position("p")
    at = (await checkpoints.get_checkpoint_data("p")).last_processed_at
    assert lag.last_processed_at == at.isoformat()

    shipped = await checkpoints.get_lag_metrics("p", ["OrderShipped"])
    assert (shipped.lag_events, shipped.latest_event_id) == (2, str(events[3].event_id))
    only = await checkpoints.get_lag_metrics("p", ["OrderPlaced"])
    assert (only.lag_events, only.lag_seconds, only.latest_event_id) == (0, 0.0, str(events[0].event_id))
    for types in ([], ["Other"]):
        none = await checkpoints.get_lag_metrics("p", types)
        assert (none.lag_events, none.lag_seconds, none.latest_event_id) == (0, 0.0, None)


async def test_whoever_has_no_position_yet_has_the_whole_log_before_it(checkpoints, store):
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event, placed(event.aggregate_id)])
    await checkpoints.update_checkpoint("p", FIRST, "E")  # of an event that is not in the log
    lag = await checkpoints.get_lag_metrics("p")
    assert (lag.lag_events, lag.global_position, lag.last_event_id) == (2, None, str(FIRST))


async def test_lag_is_the_age_of_the_oldest_event_not_processed(checkpoints, store):
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event])
    await checkpoints.save_position("p", 0, FIRST, "E")
    async with store.transaction() as tx:
        old = (utc_now() - timedelta(hours=2)).isoformat(timespec="microseconds")
        await tx.connection.execute(text(f"UPDATE events SET created_at = '{old}'"))
    assert 7190 < (await checkpoints.get_lag_metrics("p")).lag_seconds < 8000
    await checkpoints.update_checkpoint("p", event.event_id, "E")
    assert (await checkpoints.get_lag_metrics("p")).lag_seconds == 0.0


async def test_two_writers_of_one_checkpoint_leave_the_greatest(
    shared_store, shared_database_url, open_stores
):
    repositories = [
        CheckpointRepository(shared_store),
        CheckpointRepository(await open_stores(shared_database_url)),
    ]
    start = asyncio.Barrier(2) if hasattr(asyncio, "Barrier") else None

    async def work(repository, positions):
        if start is not None:
            await start.wait()
        return [await repository.save_position("p", position, uuid4(), "E") for position in positions]

    moved = await asyncio.gather(
        work(repositories[0], range(1, 61, 2)), work(repositories[1], range(2, 61, 2))
    )
    found = await repositories[0].get_checkpoint_data("p")
    assert found.global_position == 60
    assert found.events_processed == sum(map(sum, moved))


async def test_arguments_that_make_no_sense_are_refused(checkpoints):
    for position in (-1, 2**63, "5", 1.0, None, True):
        with pytest.raises(InvalidOptionError, match="position"):
            await checkpoints.save_position("p", position, FIRST, "E")
    for event_id in ("abc", str(FIRST), 5, None):
        with pytest.raises(InvalidOptionError, match="event_id must be a UUID"):
            await checkpoints.save_position("p", 1, event_id, "E")
        with pytest.raises(InvalidOptionError, match="event_id must be a UUID"):
            await checkpoints.update_checkpoint("p", event_id, "E")
    for name in ("", "x" * 256, "a\x00", "\ud800", 5):
        with pytest.raises(InvalidEventError, match="subscription_id"):
            await checkpoints.save_position(name, 1, FIRST, "E")
        with pytest.raises(InvalidEventError, match="projection_name"):
            await checkpoints.update_checkpoint(name, FIRST, "E")
        with pytest.raises(InvalidEventError, match="event_type"):
            await checkpoints.save_position("p", 1, FIRST, name)
    assert await checkpoints.get_all_checkpoints() == []
    assert await checkpoints.save_position("p" * 255, 2**63 - 1, FIRST, "E")

"""A subscription's checkpoint passes over no event in silence, and does not stand still."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from support.orders import placed
from support.read_models import append, ship, until

from esource import CheckpointRepository, EventStore, InvalidOptionError
from esource.copying.archiving import archive
from esource.log.streams import partition_of


async def work_off(store: EventStore, limit: int | None = None, **options) -> list[int]:
    """The positions that a subscription hands over, each saved."""
    found: list[int] = []
    async with store.subscribe(live=False, **options) as subscription:
        async for stored in subscription:
            found.append(stored.global_position)
            await subscription.save()
            if len(found) == limit:
                break
    return found


async def test_partitions_of_one_name_have_a_checkpoint_each(store: EventStore):
    positions = await append(store, *"abcdefghij")
    handled = await work_off(store, 2, checkpoint="mails", partition=(0, 2))
    handled += await work_off(store, checkpoint="mails", partition=(1, 2))
    handled += await work_off(store, checkpoint="mails", partition=(0, 2))
    assert sorted(handled) == positions
    names = [found.projection_name for found in await CheckpointRepository(store).get_all_checkpoints()]
    assert names == ["mails[0/2]", "mails[1/2]"]
    assert store.subscribe(checkpoint="mails", partition=(1, 2)).checkpoint == "mails[1/2]"


async def test_a_partition_begins_where_the_checkpoint_without_partitions_is(store: EventStore):
    positions = await append(store, *"abcd")
    assert await work_off(store, 2, checkpoint="mails") == positions[:2]
    rest = [await work_off(store, checkpoint="mails", partition=(number, 2)) for number in (0, 1)]
    assert sorted(rest[0] + rest[1]) == positions[2:]


async def test_another_number_of_partitions_is_refused(store: EventStore):
    await append(store, *"ab")
    await work_off(store, checkpoint="mails", partition=(0, 2))
    for other in ({"partition": (0, 3)}, {}):
        with pytest.raises(InvalidOptionError, match=r"mails\[0/2\]"):
            await work_off(store, checkpoint="mails", **other)


async def test_a_checkpoint_moves_past_what_the_filters_leave_out(store: EventStore):
    stream = uuid4()
    await append(store, "a", stream=stream)
    assert len(await work_off(store, checkpoint="mails", event_types={"OrderPlaced"})) == 1
    shipped = await ship(store, stream)
    assert await work_off(store, checkpoint="mails", event_types={"OrderPlaced"}) == []
    assert await CheckpointRepository(store).get_position("mails") == shipped


async def test_a_checkpoint_of_nothing_at_all_moves_with_the_log_live(store: EventStore):
    checkpoints = CheckpointRepository(store)
    async with store.subscribe(checkpoint="mails", event_types={"OrderShipped"}) as subscription:
        reading = asyncio.create_task(anext(subscription))
        positions = await append(store, "a", "b")

        async def moved() -> bool:
            return await checkpoints.get_position("mails") == positions[-1]

        await until(moved)
        positions += await append(store, "c")
        await until(moved)
        await subscription.close()
        with pytest.raises(StopAsyncIteration):
            await reading
    assert (await checkpoints.get_checkpoint_data("mails")).events_processed == 0


async def test_what_was_handed_over_and_not_saved_is_not_passed(store: EventStore):
    stream = uuid4()
    positions = await append(store, "a", stream=stream)
    await ship(store, stream)
    async with store.subscribe(checkpoint="mails", event_types={"OrderPlaced"}, live=False) as subscription:
        assert [stored.global_position async for stored in subscription] == positions
    assert await CheckpointRepository(store).get_position("mails") is None
    assert await work_off(store, checkpoint="mails", event_types={"OrderPlaced"}) == positions


async def test_a_checkpoint_that_the_application_saves_itself_moves_on_too(store: EventStore):
    stream = uuid4()
    await append(store, "a", stream=stream)
    last = await ship(store, stream)
    checkpoints = CheckpointRepository(store)
    async with store.subscribe(checkpoint="mails", event_types={"OrderPlaced"}, live=False) as subscription:
        async for stored in subscription:
            await checkpoints.save_position(
                subscription.checkpoint, stored.global_position, stored.event_id, stored.event_type
            )
    assert await checkpoints.get_position("mails") == last


async def test_a_checkpoint_that_was_set_back_meanwhile_is_left_alone(store: EventStore):
    stream = uuid4()
    await append(store, "a", stream=stream)
    checkpoints = CheckpointRepository(store)
    async with store.subscribe(checkpoint="mails", event_types={"OrderPlaced"}) as subscription:
        await anext(subscription)
        await subscription.save()
        await ship(store, stream)
        await checkpoints.reset_checkpoint("mails")
        reading = asyncio.create_task(anext(subscription))
        await until(lambda: subscription.position == 2)
        await subscription.close()
        with pytest.raises(StopAsyncIteration):
            await reading
    assert await checkpoints.get_position("mails") is None


@pytest.mark.awaited
async def test_streams_can_be_archived_behind_a_filtered_subscription(shared_store: EventStore, tmp_path):
    store, stream = shared_store, uuid4()
    await store.append_events(stream, "Order", [placed(stream)])
    await store.close_stream(stream, "Order")
    await work_off(store, checkpoint="mails", event_types={"OrderShipped"})
    result = await archive(store, tmp_path / "closed.jsonl")
    assert result.streams == 1
    # The position of what was archived is still one of this log.
    assert await work_off(store, checkpoint="mails", event_types={"OrderShipped"}) == []


async def test_a_checkpoint_ahead_of_the_log_is_refused(store: EventStore):
    [position] = await append(store, "a")
    await CheckpointRepository(store).save_position("mails", position + 10, uuid4(), "OrderPlaced")
    with pytest.raises(InvalidOptionError, match="restored from an older copy"):
        await work_off(store, checkpoint="mails")


async def test_every_partition_moves_past_the_events_of_the_others(store: EventStore):
    positions = await append(store, *"abcd")
    events = [stored async for stored in store.read_all()]
    own = [stored.global_position for stored in events if partition_of(str(stored.aggregate_id), 2) == 0]
    assert await work_off(store, checkpoint="mails", partition=(0, 2)) == own
    assert await CheckpointRepository(store).get_position("mails[0/2]") == positions[-1]

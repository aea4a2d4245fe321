"""Moving a store that is being written to: nothing is lost between the two databases, whatever goes wrong."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from support.orders import placed, several
from support.pairs import Pair, fill

from esource import (
    AppendCondition,
    CheckpointRepository,
    DLQRepository,
    EventStore,
    OutboxRepository,
    Query,
    QueryItem,
    SnapshotStore,
)
from esource.copying import copy, cut_over, log, reopen, verify_copy
from esource.copying import stores as moving
from esource.errors import CopyRefusedError, EventSourceError, StoreMovedError

ANY_PLACED = AppendCondition(Query(QueryItem(types=["OrderPlaced"])), after=0)


async def write_until_moved(store: EventStore, acknowledged: dict[UUID, int]) -> StoreMovedError:
    """What was acknowledged, with its positions, and the error that ended it."""
    while True:
        events = several(3)
        try:
            result = await store.append_events(events[0].aggregate_id, "Order", events, 0)
        except StoreMovedError as error:
            return error
        for offset, event in enumerate(events):
            acknowledged[event.event_id] = result.global_position - 2 + offset


@pytest.mark.slow
async def test_a_store_moves_while_it_is_written_to(pair: Pair, open_stores):
    source = await open_stores(pair.source, **patience(pair.source))
    await fill(source)
    acknowledged: dict[UUID, int] = {}
    writers = [asyncio.create_task(write_until_moved(source, acknowledged)) for _ in range(4)]
    following = asyncio.create_task(copy(pair.source, pair.target, follow=True))
    target = await open_stores(pair.target, **patience(pair.target))
    await reaching(target, 400)
    result = await cut_over(pair.source, pair.target)
    errors = await asyncio.gather(*writers)
    assert {error.moved_to for error in errors} == {result.target}
    followed = await following
    assert followed.position <= result.position
    assert result.verification.is_identical
    assert (await verify_copy(pair.source, pair.target)).is_identical
    stored = {e.event_id: e.global_position async for e in target.read_all()}
    assert acknowledged.items() <= stored.items()
    assert len(stored) == len(acknowledged) + 18
    # The application goes on in the target, with its next position.
    event = placed()
    appended = await target.append_events(event.aggregate_id, "Order", [event])
    assert appended.global_position == max(stored.values()) + 1


def patience(url: str) -> dict[str, int]:
    return {"busy_timeout": 30_000} if url.startswith("sqlite") else {}


async def reaching(store: EventStore, position: int) -> None:
    """Wait until the log is so long."""
    while await store.get_global_position() < position:
        await asyncio.sleep(0.01)


async def test_a_moved_store_refuses_every_write_and_answers_readers(pair: Pair, open_stores):
    source = await open_stores(pair.source)
    orders = await fill(source)
    await cut_over(pair.source, pair.target)
    event = placed(orders[0])

    async def in_transaction():
        async with source.transaction() as tx:
            await tx.append_events(orders[0], "Order", [event])

    writes = [
        lambda: source.append_events(orders[0], "Order", [event]),
        # Somebody may have gone on in the new place: a version that is not the one here is no conflict.
        lambda: source.append_events(orders[0], "Order", [event], 999),
        lambda: source.append_events(orders[0], "Order", [event], condition=ANY_PLACED),
        in_transaction,
        lambda: CheckpointRepository(source).save_position("new", 1, uuid4(), "OrderPlaced"),
        lambda: CheckpointRepository(source).save_position("b", 21, uuid4(), "OrderPlaced"),
        lambda: CheckpointRepository(source).reset_checkpoint("b"),
        lambda: OutboxRepository(source).add_event(event),
        lambda: SnapshotStore(source).delete_snapshot(orders[0], "Order"),
        lambda: DLQRepository(source).add_failed_event(
            event.event_id, "p", "OrderPlaced", event.to_dict(), ValueError("x")
        ),
    ]
    for write in writes:
        with pytest.raises(StoreMovedError, match="has moved to .*esource reopen"):
            await write()
    assert len([e async for e in source.read_all()]) == 18
    assert (await verify_copy(pair.source, pair.target)).is_identical


async def test_a_store_moves_once(pair: Pair, open_stores):
    await fill(await open_stores(pair.source))
    await cut_over(pair.source, pair.target)
    with pytest.raises(StoreMovedError):
        await cut_over(pair.source, pair.target)


async def test_a_reopened_store_takes_writes_again_and_knows_no_fence_any_more(pair: Pair, open_stores):
    source = await open_stores(pair.source)
    await fill(source)
    result = await cut_over(pair.source, pair.target)
    assert await reopen(pair.source) == result.target
    assert await reopen(pair.source) is None
    event = placed()
    assert (await source.append_events(event.aggregate_id, "Order", [event])).global_position == 22
    assert (await cut_over(pair.source, pair.target)).events == 1


async def test_a_store_moves_there_and_back_again(pair: Pair, open_stores):
    await fill(await open_stores(pair.source))
    await cut_over(pair.source, pair.target)
    target = await open_stores(pair.target)
    event = placed()
    await target.append_events(event.aggregate_id, "Order", [event])
    await reopen(pair.source)
    back = await cut_over(pair.target, pair.source)
    assert (back.events, back.position) == (1, 22)
    source = await open_stores(pair.source)
    assert await source.event_exists(event.event_id)


async def test_a_cut_over_that_finds_a_difference_leaves_the_source_writable(
    pair: Pair, open_stores, monkeypatch
):
    monkeypatch.setattr(log, "COMPARED_EVENTS", 1)  # or it would be found before it begins
    source = await open_stores(pair.source)
    await fill(source)
    await copy(pair.source, pair.target)
    target = await open_stores(pair.target)
    async with target.transaction() as tx:
        await tx.connection.exec_driver_sql("UPDATE events SET actor_id = 'x' WHERE global_position = 10")
    with pytest.raises(CopyRefusedError, match=r"not equal to the source: events: .* takes writes as before"):
        await cut_over(pair.source, pair.target)
    event = placed()
    assert await source.append_events(event.aggregate_id, "Order", [event])


async def test_a_cut_over_that_is_cancelled_leaves_the_source_writable(pair: Pair, open_stores):
    source = await open_stores(pair.source)
    await fill(source)
    moving = asyncio.create_task(cut_over(pair.source, pair.target))
    await reaching(await open_stores(pair.target), 20)
    moving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await moving
    event = placed()
    assert await source.append_events(event.aggregate_id, "Order", [event])


async def test_a_cut_over_may_trust_what_was_copied_before(pair: Pair, open_stores):
    """The tables beside the log are compared all the same."""
    source = await open_stores(pair.source)
    await fill(source)
    await copy(pair.source, pair.target)
    event = placed()
    await source.append_events(event.aggregate_id, "Order", [event])
    result = await cut_over(pair.source, pair.target, verify=False)
    assert (result.events, result.verification.events, len(result.verification.tables)) == (1, 0, 4)


async def test_a_copy_that_follows_brings_the_tables_beside_the_log_along(
    pair: Pair, open_stores, monkeypatch
):
    monkeypatch.setattr(moving, "MIRROR_SECONDS", 0)
    source = await open_stores(pair.source)
    await fill(source)
    following = asyncio.create_task(copy(pair.source, pair.target, follow=True))
    target = await open_stores(pair.target)
    await reaching(target, 20)
    await CheckpointRepository(source).save_position("late", 1, uuid4(), "OrderPlaced")
    while await CheckpointRepository(target).get_position("late") is None:
        event = placed()  # whoever follows looks when something is appended, or a second later
        await source.append_events(event.aggregate_id, "Order", [event])
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


async def test_a_copy_that_follows_ends_when_somebody_else_writes_to_the_target(pair: Pair, open_stores):
    source = await open_stores(pair.source)
    await fill(source)
    following = asyncio.create_task(copy(pair.source, pair.target, follow=True))
    target = await open_stores(pair.target, **patience(pair.target))
    await reaching(target, 20)
    for store in (target, source):
        event = placed()
        await store.append_events(event.aggregate_id, "Order", [event])
    with pytest.raises(CopyRefusedError):
        await following


async def test_a_private_store_in_memory_moves_into_a_file(sqlite_url, open_stores):
    """SQLite only: PostgreSQL has no private databases."""
    source = await open_stores("sqlite://")
    await fill(source)
    assert (await cut_over(source, sqlite_url)).events == 18
    with pytest.raises(EventSourceError, match="has moved"):
        await source.append_events((event := placed()).aggregate_id, "Order", [event])

"""Checkpoints, snapshots, dead letters and the outbox of a bound store, and of its transactions."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy import update
from support.orders import placed, several

from esource import CheckpointRepository, DLQRepository, OutboxRepository, Snapshot, SnapshotStore
from esource.errors import InvalidEventError, TenantMismatchError
from esource.tables import event_outbox

RED = UUID("00000000-0000-7000-8000-00000000000a")
BLUE = UUID("00000000-0000-7000-8000-00000000000b")
OURS, THEIRS = uuid4(), uuid4()


@pytest.fixture(params=["store", "transaction"])
async def sources(request, database_url, open_stores):
    """Two tenants' ways into one database: their stores, or transactions of them, one in the other."""
    store = await open_stores(database_url, outbox_enabled=True)
    red, blue = store.for_tenant(RED), store.for_tenant(BLUE)
    await red.append_events(OURS, "Order", several(2, OURS), 0)
    await blue.append_events(THEIRS, "Order", several(3, THEIRS), 0)
    if request.param == "store":
        yield store, red, blue
    else:
        async with red.transaction() as ours, blue.transaction() as theirs:
            yield store, ours, theirs


async def event_of(store, stream):
    return (await store.get_events(stream, "Order")).events[0]


async def test_checkpoints_of_one_name_are_each_tenants_own(sources):
    whole, ours, theirs = map(CheckpointRepository, sources)
    assert await ours.save_position("audit", 5, uuid4(), "OrderPlaced")
    assert await theirs.get_position("audit") is None
    assert await theirs.save_position("audit", 3, uuid4(), "OrderPlaced")
    assert [found.projection_name for found in await theirs.get_all_checkpoints()] == ["audit"]
    await ours.reset_checkpoint("audit")
    assert await ours.get_all_checkpoints() == []
    assert await theirs.get_position("audit") == 3
    assert [found.projection_name for found in await whole.get_all_checkpoints()] == [f"{BLUE}:audit"]


async def test_lag_counts_the_tenants_own_events(sources):
    store, red, _ = sources
    checkpoints = CheckpointRepository(red)
    own = (await store.get_events(OURS, "Order")).events
    await checkpoints.update_checkpoint("audit", own[0].event_id, "OrderPlaced")
    lag = await checkpoints.get_lag_metrics("audit")
    assert (lag.projection_name, lag.global_position, lag.lag_events) == ("audit", 1, 1)
    assert lag.latest_event_id == str(own[1].event_id)


async def test_a_checkpoint_does_not_tell_where_another_tenants_event_is(sources):
    store, red, _ = sources
    checkpoints = CheckpointRepository(red)
    await checkpoints.update_checkpoint("audit", (await event_of(store, THEIRS)).event_id, "OrderPlaced")
    assert await checkpoints.get_position("audit") is None


async def test_a_checkpoints_name_has_room_for_the_tenant(sources):
    _, red, _ = sources
    checkpoints = CheckpointRepository(red)
    assert await checkpoints.save_position("n" * 218, 1, uuid4(), "OrderPlaced")
    for name in ("n" * 219, "", None):
        with pytest.raises(InvalidEventError):
            await checkpoints.save_position(name, 1, uuid4(), "OrderPlaced")


async def test_snapshots_are_those_of_its_own_streams(sources):
    store, red, blue = sources
    ours, theirs = SnapshotStore(red), SnapshotStore(blue)
    assert await ours.save_snapshot(Snapshot(OURS, "Order", 2, {"a": 1}))
    assert await theirs.save_snapshot(Snapshot(THEIRS, "Order", 3, {"a": 2}))
    for foreign in (THEIRS, uuid4()):
        with pytest.raises(TenantMismatchError):
            await ours.save_snapshot(Snapshot(foreign, "Order", 9, {}))
        assert await ours.get_snapshot(foreign, "Order") is None
        assert not await ours.snapshot_exists(foreign, "Order")
        assert not await ours.delete_snapshot(foreign, "Order")
    assert (await ours.get_snapshot(OURS, "Order")).state == {"a": 1}
    assert await ours.delete_snapshots_by_type("Order") == 1
    assert (await theirs.get_snapshot(THEIRS, "Order")).version == 3
    assert await theirs.delete_snapshot(THEIRS, "Order")


async def test_dead_letters_are_those_of_its_own_events(sources):
    store, red, blue = sources
    ours, theirs = DLQRepository(red), DLQRepository(blue)
    own, foreign = await event_of(store, OURS), await event_of(store, THEIRS)
    await ours.add_failed_event(own.event_id, "p", "OrderPlaced", {"a": 1}, ValueError("ours"))
    entry = await theirs.add_failed_event(
        foreign.event_id, "p", "OrderPlaced", {"a": 2}, ValueError("theirs")
    )
    for event_id in (foreign.event_id, uuid4()):
        with pytest.raises(TenantMismatchError):
            await ours.add_failed_event(event_id, "p", "OrderPlaced", {}, ValueError("forged"))
    assert [found.event_id for found in await ours.get_failed_events()] == [own.event_id]
    assert await ours.get_failed_event(entry) is None
    assert not await ours.mark_resolved(entry, "me")
    assert not await ours.mark_retrying(entry)
    assert (await ours.get_failure_stats()).total_failed == 1
    assert [count.failure_count for count in await ours.get_projection_failure_counts()] == [1]
    found = await theirs.get_failed_event(entry)
    assert (found.error_message, found.status, found.retry_count) == ("ValueError: theirs", "failed", 0)
    assert await theirs.mark_resolved(entry, "them")
    assert await ours.delete_resolved_events(0) == 0
    assert await theirs.delete_resolved_events(0) == 1


async def test_the_outbox_is_its_own(sources):
    store, red, blue = sources
    ours, theirs = OutboxRepository(red), OutboxRepository(blue)
    pending = await ours.get_pending_events()
    assert {entry.tenant_id for entry in pending} == {RED}
    assert {entry.event_data["tenant_id"] for entry in pending} == {str(RED)}
    assert ((await ours.get_stats()).pending_count, (await theirs.get_stats()).pending_count) == (2, 3)
    [foreign, *_] = await theirs.get_pending_events()
    assert not await ours.mark_published(foreign.id)
    assert not await ours.mark_failed(foreign.id, "no")
    assert await ours.increment_retry(foreign.id) == 0
    assert (await theirs.get_pending_events())[0] == foreign
    assert await theirs.mark_published(foreign.id)
    assert await ours.cleanup_published(0) == 0


async def test_an_outbox_row_by_hand_gets_the_tenant_or_is_refused(sources):
    _, red, _ = sources
    outbox = OutboxRepository(red)
    await outbox.add_event(placed())
    entry = (await outbox.get_pending_events())[-1]
    assert (entry.tenant_id, entry.event_data["tenant_id"]) == (RED, str(RED))
    with pytest.raises(TenantMismatchError):
        await outbox.add_event(placed(tenant_id=BLUE))


async def test_an_outbox_row_that_names_another_tenants_event_carries_nothing_of_it(sources):
    store, red, _ = sources
    foreign = await event_of(store, THEIRS)
    [entry, *_] = await OutboxRepository(red).get_pending_events()
    async with store.transaction() as transaction:
        await transaction.connection.execute(
            update(event_outbox).where(event_outbox.c.id == entry.id).values(event_id=foreign.event_id)
        )
    forged = [found for found in await OutboxRepository(store).get_pending_events() if found.id == entry.id]
    assert [found.event_data for found in forged] == [{}]


async def test_a_row_by_hand_names_no_stream_of_another_tenant(sources):
    whole, red, _ = sources
    with pytest.raises(TenantMismatchError, match="is not a stream of its own"):
        await OutboxRepository(red).add_event(placed(THEIRS))
    new = placed()
    await OutboxRepository(red).add_event(new)  # a stream that is not there yet may become its own
    await OutboxRepository(red).add_event(placed(OURS))
    assert len(await OutboxRepository(whole).get_pending_events()) == 7


async def test_a_row_by_hand_does_not_tell_where_another_tenants_event_is(sources):
    whole, red, _ = sources
    theirs, ours = await event_of(whole, THEIRS), await event_of(whole, OURS)
    for event in (placed(OURS, event_id=theirs.event_id), placed(event_id=theirs.event_id)):
        await OutboxRepository(red).add_event(event)
    await OutboxRepository(red).add_event(ours.model_copy(update={"tenant_id": None}))
    found = await OutboxRepository(red).get_pending_events()
    assert [entry.global_position for entry in found if entry.event_id == theirs.event_id] == [None, None]
    assert [entry.global_position for entry in found if entry.event_id == ours.event_id] == [1, 1]

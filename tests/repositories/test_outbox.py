from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, text
from support.orders import OrderPlaced, placed

from esource import InvalidEventError, OutboxRepository
from esource.errors import InvalidOptionError
from esource.moments import utc_now
from esource.tables import events


@pytest.fixture
def outbox(store):
    return OutboxRepository(store)


@pytest.fixture
async def sending(database_url, open_stores):
    """A store that writes an outbox row with every event."""
    return await open_stores(database_url, outbox_enabled=True)


def unknown_id(like):
    return uuid4() if isinstance(like, UUID) else like + 1


async def test_an_event_that_would_not_come_back_is_not_added(outbox):
    for update, field in (({"total": "much"}, "total"), ({"event_id": "order-77"}, "event_id")):
        with pytest.raises(InvalidEventError) as refused:
            await outbox.add_event(placed().model_copy(update=update))
        assert refused.value.field == field
    assert await outbox.get_pending_events() == []


async def test_an_event_added_by_hand_is_kept_whole(outbox):
    event = placed(tenant_id=uuid4(), actor_id="me", metadata={"a": [1e300]}, aggregate_version=3)
    before = utc_now()
    number = await outbox.add_event(event)
    (entry,) = await outbox.get_pending_events()
    assert (entry.id, entry.event_id, entry.event_type) == (number, event.event_id, "OrderPlaced")
    assert (entry.aggregate_id, entry.aggregate_type) == (event.aggregate_id, "Order")
    assert (entry.tenant_id, entry.status, entry.retry_count) == (event.tenant_id, "pending", 0)
    assert OrderPlaced.from_dict(entry.event_data) == event
    assert entry.event_data.keys() == event.to_dict().keys()
    assert entry.event_data["event_type"] == "OrderPlaced"
    assert before <= entry.created_at <= utc_now()
    assert entry.global_position is entry.published_at is entry.last_error is None


async def test_a_row_that_refers_to_the_log_carries_the_event(sending):
    i = uuid4()
    batch = [
        placed(i, tenant_id=uuid4(), actor_id="me", metadata={"n": 1}),
        placed(i, aggregate_version=2),
    ]
    await sending.append_events(i, "Order", batch)
    entries = await OutboxRepository(sending).get_pending_events()
    assert [OrderPlaced.from_dict(entry.event_data) for entry in entries] == batch
    positions = [stored.global_position async for stored in sending.read_all()]
    assert [entry.global_position for entry in entries] == positions
    async with sending.transaction() as tx:
        await tx.connection.execute(delete(events))
    assert [e.event_data for e in await OutboxRepository(sending).get_pending_events()] == [{}, {}]


async def test_pending_rows_come_in_the_order_of_the_log(sending):
    outbox = OutboxRepository(sending)
    by_hand = placed()
    await outbox.add_event(by_hand)
    appended = [placed() for _ in range(3)]
    for event in appended:
        await sending.append_events(event.aggregate_id, "Order", [event])
    found = [entry.event_id for entry in await outbox.get_pending_events()]
    assert found == [*(event.event_id for event in appended), by_hand.event_id]
    for limit in (1, 2):
        assert [entry.event_id for entry in await outbox.get_pending_events(limit)] == found[:limit]


async def test_a_published_row_is_done(outbox):
    number = await outbox.add_event(placed())
    assert await outbox.mark_published(number) is True
    assert await outbox.get_pending_events() == []
    assert await outbox.mark_published(unknown_id(number)) is False


async def test_a_failed_row_is_given_up(outbox):
    number = await outbox.add_event(placed())
    assert await outbox.mark_failed(number, "no\x00route\ud800") is True
    assert await outbox.get_pending_events() == []
    assert (await outbox.get_stats()).failed_count == 1
    assert await outbox.mark_failed(unknown_id(number), "x") is False


async def test_rows_that_were_given_up_are_seen_with_their_reason_and_can_be_tried_again(outbox):
    given_up, other, published, pending = [await outbox.add_event(placed()) for _ in range(4)]
    await outbox.increment_retry(given_up, "first")
    await outbox.mark_failed(given_up, "no\x00route")
    await outbox.mark_failed(other, "gone")
    await outbox.mark_published(published)
    failed = await outbox.get_failed_events()
    assert [(entry.id, entry.status, entry.last_error) for entry in failed] == [
        (given_up, "failed", "no\\x00route"),
        (other, "failed", "gone"),
    ]
    assert [entry.id for entry in await outbox.get_failed_events(limit=1)] == [given_up]

    assert await outbox.retry_failed() == 2
    assert (await outbox.retry_failed(), await outbox.get_failed_events()) == (0, [])
    again = {entry.id: entry for entry in await outbox.get_pending_events()}
    assert set(again) == {given_up, other, pending}
    assert (again[given_up].status, again[given_up].retry_count) == ("pending", 0)


async def test_attempts_are_counted(outbox):
    number = await outbox.add_event(placed())
    assert await outbox.increment_retry(number, "first\x00") == 1
    assert await outbox.increment_retry(str(number)) == 2
    (entry,) = await outbox.get_pending_events()
    assert (entry.retry_count, entry.last_error) == (2, "first\\x00")
    assert await outbox.increment_retry(unknown_id(number), "x") == 0


async def test_only_old_published_rows_are_cleaned_up(outbox, store):
    old, young, pending = [await outbox.add_event(placed()) for _ in range(3)]
    for number in (old, young):
        await outbox.mark_published(number)
    async with store.transaction() as tx:
        for number, days in ((old, 7.5), (young, 6.5)):
            moment = (utc_now() - timedelta(days=days)).isoformat(timespec="microseconds")
            await tx.connection.execute(
                text(f"UPDATE event_outbox SET published_at = '{moment}' WHERE id = '{number}'")
            )
    assert await outbox.cleanup_published() == 1
    assert await outbox.cleanup_published(days=7) == 0
    stats = await outbox.get_stats()
    assert (stats.pending_count, stats.published_count) == (1, 1)
    assert await outbox.cleanup_published(days=6) == 1
    assert [entry.id for entry in await outbox.get_pending_events()] == [pending]


async def test_stats_count_by_status(outbox):
    stats = await outbox.get_stats()
    assert (stats.pending_count, stats.published_count, stats.failed_count) == (0, 0, 0)
    assert (stats.oldest_pending, stats.avg_retries) == (None, 0.0)
    numbers = [await outbox.add_event(placed()) for _ in range(4)]
    entries = {entry.id: entry for entry in await outbox.get_pending_events()}
    await outbox.mark_published(numbers[0])
    await outbox.mark_failed(numbers[1], "x")
    await outbox.increment_retry(numbers[2])
    stats = await outbox.get_stats()
    assert (stats.pending_count, stats.published_count, stats.failed_count) == (2, 1, 1)
    assert (stats.oldest_pending, stats.avg_retries) == (entries[numbers[2]].created_at, 0.5)


async def test_arguments_that_make_no_sense_are_refused(outbox):
    number = await outbox.add_event(placed())
    foreign = 1 if isinstance(number, UUID) else uuid4()
    for wrong in (foreign, "abc", None, 1.5, True):
        for call in (
            outbox.mark_published(wrong),
            outbox.mark_failed(wrong, "x"),
            outbox.increment_retry(wrong),
        ):
            with pytest.raises(InvalidOptionError, match="an outbox row's id is of type"):
                await call
    for limit in (-1, 0, 2**63, "5"):
        with pytest.raises(InvalidOptionError, match="limit"):
            await outbox.get_pending_events(limit)
        with pytest.raises(InvalidOptionError, match="limit"):
            await outbox.get_failed_events(limit)
    for days in (-1, 10**9, 1.5):
        with pytest.raises(InvalidOptionError, match="days"):
            await outbox.cleanup_published(days)
    for fields, where in [
        ({"actor_id": "a\x00"}, "actor_id"),
        ({"event_type": ""}, "event_type"),
        ({"aggregate_type": "x" * 256}, "aggregate_type"),
        ({"total": float("nan")}, "total"),
        ({"occurred_at": utc_now().replace(tzinfo=None)}, "occurred_at"),
    ]:
        with pytest.raises(InvalidEventError) as refused:
            await outbox.add_event(placed().model_copy(update=fields))
        assert refused.value.field == where
    assert len(await outbox.get_pending_events()) == 1


async def test_an_error_that_is_no_text_is_refused(outbox):
    row = await outbox.add_event(placed())
    with pytest.raises(InvalidEventError, match="error.*is not text"):
        await outbox.mark_failed(row, 5)
    assert [pending.id for pending in await outbox.get_pending_events()] == [row]

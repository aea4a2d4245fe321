import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from support.orders import placed

from esource import DLQRepository, InvalidEventError
from esource.errors import InvalidOptionError
from esource.moments import utc_now


@pytest.fixture
def letters(store):
    return DLQRepository(store)


def failure(message="no such customer"):
    try:
        raise LookupError(message)
    except LookupError as error:
        return error


async def add(letters, projection="p", event=None, error=None, **fields):
    event = event or placed()
    return await letters.add_failed_event(
        event.event_id, projection, event.event_type, event.to_dict(), error or failure(), **fields
    )


async def test_a_failure_is_recorded_with_its_traceback(letters):
    event, before = placed(), utc_now()
    number = await add(letters, event=event, retry_count=2)
    entry = await letters.get_failed_event(number)
    assert (entry.id, entry.event_id, entry.projection_name) == (number, event.event_id, "p")
    assert (entry.event_type, entry.event_data) == ("OrderPlaced", event.to_dict())
    assert (entry.error_message, entry.retry_count, entry.status) == (
        "LookupError: no such customer",
        2,
        "failed",
    )
    assert "Traceback" in entry.error_stacktrace
    assert "in failure" in entry.error_stacktrace
    assert before <= entry.first_failed_at == entry.last_failed_at <= utc_now()
    assert entry.resolved_at is entry.resolved_by is None
    assert await letters.get_failed_event(str(number)) == entry
    assert await letters.get_failed_event(number + 1) is None


async def test_failing_again_updates_the_entry_and_opens_it(letters):
    event = placed()
    number = await add(letters, event=event)
    first = await letters.get_failed_event(number)
    await letters.mark_resolved(number, "me")
    assert await add(letters, event=event, error=failure("again"), retry_count=3) == number
    entry = await letters.get_failed_event(number)
    assert (entry.error_message, entry.retry_count, entry.status) == ("LookupError: again", 3, "failed")
    assert entry.first_failed_at == first.first_failed_at
    assert entry.last_failed_at > first.last_failed_at
    assert entry.resolved_at is entry.resolved_by is None
    assert await add(letters, "q", event) != number


async def test_entries_move_through_their_statuses(letters):
    number = await add(letters)
    assert await letters.mark_retrying(number) is True
    entry = await letters.get_failed_event(number)
    assert (entry.status, entry.retry_count) == ("retrying", 1)
    by = uuid4()
    assert await letters.mark_resolved(number, resolved_by=by) is True
    entry = await letters.get_failed_event(number)
    assert (entry.status, entry.resolved_by) == ("resolved", str(by))
    assert entry.resolved_at <= utc_now()
    assert await letters.mark_retrying(number) is False
    assert await letters.mark_resolved(number + 1, "me") is False
    assert await letters.mark_retrying(number + 1) is False


async def test_entries_are_listed_oldest_first(letters):
    numbers = [await add(letters, projection) for projection in ("p", "q", "p", "p")]
    await letters.mark_retrying(numbers[2])
    await letters.mark_resolved(numbers[3], "me")

    async def listed(*arguments, **options):
        return [entry.id for entry in await letters.get_failed_events(*arguments, **options)]

    assert await listed() == numbers[:2]
    assert await listed(limit=1) == numbers[:1]
    assert await listed("p") == numbers[:1]
    assert await listed("p", status=None) == [numbers[0], numbers[2], numbers[3]]
    assert await listed(status="retrying") == [numbers[2]]
    assert await listed(status="resolved") == [numbers[3]]
    assert await listed(status=None) == numbers
    assert await listed("other") == []


async def test_stats_and_counts_leave_out_what_is_resolved(letters):
    stats = await letters.get_failure_stats()
    assert (stats.total_failed, stats.total_retrying, stats.affected_projections) == (0, 0, 0)
    assert stats.oldest_failure is None
    assert await letters.get_projection_failure_counts() == []

    numbers = [await add(letters, projection) for projection in ("r", "p", "q", "p", "p")]
    await letters.mark_resolved(numbers[0], "me")
    await letters.mark_retrying(numbers[1])
    entries = {entry.id: entry for entry in await letters.get_failed_events(status=None)}
    stats = await letters.get_failure_stats()
    assert (stats.total_failed, stats.total_retrying, stats.affected_projections) == (3, 1, 2)
    assert stats.oldest_failure == entries[numbers[1]].first_failed_at.isoformat()
    first, second = await letters.get_projection_failure_counts()
    assert (first.projection_name, first.failure_count) == ("p", 3)
    assert (second.projection_name, second.failure_count) == ("q", 1)
    assert first.oldest_failure == entries[numbers[1]].first_failed_at.isoformat()
    assert first.most_recent_failure == entries[numbers[4]].last_failed_at.isoformat()


async def test_only_old_resolved_entries_are_deleted(letters, store):
    old, young, open_ = [await add(letters) for _ in range(3)]
    for number in (old, young):
        await letters.mark_resolved(number, "me")
    async with store.transaction() as tx:
        moment = (utc_now() - timedelta(days=31)).isoformat(timespec="microseconds")
        await tx.connection.execute(
            text(f"UPDATE dead_letter_queue SET resolved_at = '{moment}' WHERE id = {old}")
        )
    assert await letters.delete_resolved_events(older_than_days=30) == 1
    assert await letters.delete_resolved_events(older_than_days=30) == 0
    assert [entry.id for entry in await letters.get_failed_events(status=None)] == [young, open_]
    assert await letters.delete_resolved_events(older_than_days=0) == 1


async def test_many_writers_of_one_event_make_one_entry(letters):
    event = placed()
    assert len(set(await asyncio.gather(*(add(letters, event=event) for _ in range(10))))) == 1


async def test_an_error_whose_text_cannot_be_stored_is_recorded_all_the_same(letters):
    entry = await letters.get_failed_event(await add(letters, error=failure("a\x00b\ud800")))
    assert entry.error_message == "LookupError: a\\x00b\\ud800"


async def test_arguments_that_make_no_sense_are_refused(letters):
    for number in ("abc", "", None, "1.5", -1, 2**63, uuid4()):
        for call in (letters.get_failed_event, letters.mark_retrying):
            with pytest.raises(InvalidOptionError, match="dlq_id"):
                await call(number)
        with pytest.raises(InvalidOptionError, match="dlq_id"):
            await letters.mark_resolved(number, "me")
    for limit in (-1, 0, 2**63, "5", 1.5):
        with pytest.raises(InvalidOptionError, match="limit"):
            await letters.get_failed_events(limit=limit)
    with pytest.raises(InvalidOptionError, match="status must be one of failed, retrying, resolved"):
        await letters.get_failed_events(status="gone")
    for days in (-1, 10**9, 0.5):
        with pytest.raises(InvalidOptionError, match="older_than_days"):
            await letters.delete_resolved_events(days)
    with pytest.raises(InvalidOptionError, match="retry_count"):
        await add(letters, retry_count=-1)
    with pytest.raises(InvalidOptionError, match="event_id must be a UUID"):
        await letters.add_failed_event("abc", "p", "E", {}, failure())
    for data, where in [({"a": "\x00"}, "event_data.a"), ({"a": object()}, "event_data")]:
        with pytest.raises(InvalidEventError, match=where):
            await letters.add_failed_event(uuid4(), "p", "E", data, failure())
    for name in ("", "x" * 256, "\x00"):
        with pytest.raises(InvalidEventError, match="projection_name"):
            await add(letters, name)
    with pytest.raises(InvalidEventError, match="resolved_by"):
        await letters.mark_resolved(await add(letters), "x" * 256)
    assert len(await letters.get_failed_events(status=None)) == 1


@pytest.mark.parametrize("dlq_id", [1.5, True, None, "x", "1.5", -1])
async def test_an_id_that_is_no_whole_number_names_no_entry(store, dlq_id):
    letters = DLQRepository(store)
    assert await letters.add_failed_event(uuid4(), "p", "E", {}, ValueError()) == 1
    for work in (letters.get_failed_event, letters.mark_retrying):
        with pytest.raises(InvalidOptionError, match="dlq_id"):
            await work(dlq_id)
    with pytest.raises(InvalidOptionError, match="dlq_id"):
        await letters.mark_resolved(dlq_id, "somebody")


async def test_what_is_no_dict_or_no_exception_is_refused(store):
    letters = DLQRepository(store)
    with pytest.raises(InvalidEventError, match="event_data"):
        await letters.add_failed_event(uuid4(), "p", "E", [1], ValueError())
    with pytest.raises(InvalidOptionError, match="error must be an exception"):
        await letters.add_failed_event(uuid4(), "p", "E", {}, "it failed")

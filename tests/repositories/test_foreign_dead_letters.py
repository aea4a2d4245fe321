"""Dead letters that another program wrote: what cannot be read is said in its row, and the others are listed."""

from __future__ import annotations

from uuid import uuid4

import pytest
from support.orders import placed

from esource import DLQRepository
from esource.browsing.followers import dead_letters_page


async def plant(store, event_data, **columns):
    values = {
        "event_id": str(uuid4()),
        "projection_name": "totals",
        "event_type": "Foreign",
        "event_data": event_data,
        "error_message": "it failed",
        **columns,
    }
    quoted = ", ".join("'" + value + "'" for value in values.values())
    async with store.transaction() as transaction:
        await transaction.connection.exec_driver_sql(
            f"INSERT INTO dead_letter_queue ({', '.join(values)}) VALUES ({quoted})"
        )


@pytest.mark.parametrize("data", ["[1]", "7", '{"a":' + "[" * 3000 + "]" * 3000 + "}", '{"a": 1e9000}'])
@pytest.mark.awaited
async def test_one_that_cannot_be_read_hides_no_other(database_url, open_stores, data):
    store = await open_stores(database_url)
    letters = DLQRepository(store)
    event = placed()
    await letters.add_failed_event(event.event_id, "totals", "OrderPlaced", {"a": 1}, ValueError("no"))
    await plant(store, data)

    sound, foreign = sorted(await letters.get_failed_events(), key=lambda letter: letter.id)
    assert (sound.event_data, sound.unreadable) == ({"a": 1}, None)
    assert foreign.event_data == {}
    assert foreign.unreadable.startswith("event_data cannot be read: ")
    assert await letters.get_failed_event(foreign.id) == foreign
    assert (await dead_letters_page(store._opened.database)).rows == [foreign, sound]


async def test_on_postgresql_a_moment_that_no_program_can_read_hides_no_other(postgres_url, open_stores):
    store = await open_stores(postgres_url)
    letters = DLQRepository(store)
    await plant(store, "{}", first_failed_at="20000-01-01", last_failed_at="infinity")
    [foreign] = await letters.get_failed_events()
    assert foreign.unreadable.startswith("first_failed_at cannot be read: ")
    assert (await letters.get_failure_stats()).oldest_failure is None
    [count] = await letters.get_projection_failure_counts()
    assert (count.failure_count, count.oldest_failure, count.most_recent_failure) == (1, None, None)

"""The function that appends on PostgreSQL, beside what others do to its table and lay beside it."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from support.orders import placed
from support.schemas import execute, rows

from esource import AppendCondition, Query, QueryItem
from esource.errors import DatabaseReadOnlyError
from esource.schema import partitioning
from esource.tables.append_function import SIGNATURE
from esource.testing.server import dsn

WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


async def appended(store, **options):
    event = placed()
    return await store.append_events(event.aggregate_id, "Order", [event], 0, **options)


async def wait_for_waiting(url: str, count: int) -> None:
    while (await rows(url, WAITING))[0][0] < count:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("is_partitioned", [False, True], ids=["becomes partitioned", "is merged"])
async def test_appends_that_waited_while_the_log_on_postgresql_changes_its_table_stay_in_order(
    postgres_url, open_stores, is_partitioned
):
    first = await open_stores(postgres_url, outbox_enabled=True)
    second = await open_stores(postgres_url)
    if is_partitioned:
        await partitioning.partition(postgres_url)
    for store in (first, second):
        await appended(store)
    reads, outbox = [await asyncpg.connect(**dsn(make_url(postgres_url))) for _ in range(2)]
    try:
        await reads.execute("BEGIN")
        await reads.execute("LOCK TABLE events IN ACCESS SHARE MODE")
        change = partitioning.merge if is_partitioned else partitioning.partition
        changing = asyncio.create_task(change(postgres_url))
        await wait_for_waiting(postgres_url, 1)
        waited = asyncio.create_task(appended(first))
        await wait_for_waiting(postgres_url, 2)
        await outbox.execute("BEGIN")
        await outbox.execute("LOCK TABLE event_outbox IN SHARE MODE")
        await reads.execute("COMMIT")
        await changing
        await wait_for_waiting(postgres_url, 1)  # it has its position, and is not committed

        later = asyncio.create_task(appended(second))
        await wait_for_waiting(postgres_url, 2)
        await outbox.execute("COMMIT")
        assert [(await waited).global_position, (await later).global_position] == [3, 4]
    finally:
        await reads.close()
        await outbox.close()


async def test_a_transaction_on_postgresql_that_holds_the_table_appends_while_another_append_waits(
    postgres_url, open_stores
):
    store = await open_stores(postgres_url)
    engine = create_async_engine(make_url(postgres_url).set(drivername="postgresql+asyncpg"))
    async with engine.connect() as connection:
        await connection.execute(text("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE"))  # as CREATE TRIGGER
        waited = asyncio.create_task(appended(store))
        await wait_for_waiting(postgres_url, 1)
        assert (await appended(store, connection=connection)).global_position == 1
        await connection.commit()
    await engine.dispose()
    assert (await waited).global_position == 2


async def test_another_function_of_the_name_is_not_called_on_postgresql(postgres_url, open_stores):
    others = SIGNATURE.replace("text[], integer[], integer[], uuid[]", "text, integer[], integer[], uuid[]")
    assert others != SIGNATURE
    for other in (others, f"esource_append({', '.join(['text'] * 17)})"):
        await execute(
            postgres_url,
            f"CREATE FUNCTION {other} RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE division_by_zero; END'",
        )
    store = await open_stores(postgres_url)
    assert (await appended(store)).global_position == 1
    assert (await appended(store)).global_position == 2


async def test_columns_of_the_application_may_have_the_names_of_variables_on_postgresql(
    postgres_url, open_stores
):
    names = (
        "stream_id",
        "stream_type",
        "tenant",
        "last",
        "reached",
        "accepted",
        "wanted",
        "since",
        "found",
        "most",
    )
    await execute(postgres_url, *(f"ALTER TABLE events ADD COLUMN {name} text" for name in names))
    store = await open_stores(postgres_url)
    await appended(store)
    none = AppendCondition(Query(QueryItem(types=["Placed"], tags=["order:1"])), after=0)
    some = AppendCondition(Query(QueryItem(types=["Placed"])), after=0)
    assert (await appended(store, condition=none)).global_position == 2
    done = await asyncio.gather(*(appended(store, condition=each) for each in (none, some, none)))
    assert len(done) == 3


async def test_who_may_only_read_is_told_that_and_of_no_conflict_on_postgresql(postgres_url, open_stores):
    store = await open_stores(postgres_url)
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)
    reader = await open_stores(postgres_url, read_only=True)
    for expected in (0, 1):
        with pytest.raises(DatabaseReadOnlyError):
            await reader.append_events(event.aggregate_id, "Order", [placed(event.aggregate_id)], expected)

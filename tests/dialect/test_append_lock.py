"""A log that draws its positions from the row that appends lock: 1 to n without holes, and one way for all stores."""

from __future__ import annotations

import asyncio
import io
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from support.commands import esource
from support.orders import placed, several
from support.schemas import described, execute, rows

from esource import AppendCondition, AppendConditionError, OptimisticLockError, Query, QueryItem, schema
from esource.copying import copy, cut_over, export_store, import_store
from esource.copying.archiving import archive, restore
from esource.copying.integrity import verify_store
from esource.errors import ConstraintError, DatabaseError, InvalidOptionError, StoreMovedError
from esource.schema import partitioning
from esource.testing.server import dsn

ROW = {"append_lock": "row"}
LAST = "SELECT last_position FROM esource_append_lock"


class RolledBack(Exception):
    """Raised on purpose inside a transaction."""


@pytest.fixture
async def by_row(postgres_url, open_stores):
    """A store whose log draws its positions from the row."""
    return await open_stores(postgres_url, **ROW)


async def append(store, number=1):
    """Events of a stream of their own; their positions."""
    events = several(number)
    result = await store.append_events(events[0].aggregate_id, "Order", events, 0)
    return result.global_position


async def positions(url):
    return [position for (position,) in await rows(url, "SELECT global_position FROM events ORDER BY 1")]


async def test_what_is_rolled_back_refused_or_given_up_leaves_no_hole(by_row, postgres_url, open_stores):
    other = await open_stores(postgres_url, **ROW)
    order = uuid4()
    assert await append(by_row, 3) == 3
    with pytest.raises(RolledBack):
        async with by_row.transaction() as transaction:
            assert (await transaction.append_events(order, "Order", several(5, order))).global_position == 8
            raise RolledBack
    assert await append(other) == 4
    async with by_row.transaction():
        assert await append(by_row) == 5
        with pytest.raises(RolledBack):
            async with by_row.transaction():
                assert await append(by_row, 4) == 9
                raise RolledBack
        assert await append(by_row, 2) == 7
    outcomes = await asyncio.gather(
        *(store.append_events(order, "Order", [placed(order)], 0) for store in (by_row, other) * 5),
        *(append(store, 2) for store in (by_row, other) * 5),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, OptimisticLockError) for outcome in outcomes) == 9
    assert await positions(postgres_url) == list(range(1, 29))
    assert await rows(postgres_url, LAST) == [(28,)]
    assert (await verify_store(by_row)).findings == []


async def test_events_of_one_batch_have_their_positions_in_the_order_of_the_appends(by_row):
    batches = [several(1 + number % 3) for number in range(30)]
    results = await asyncio.gather(
        *(by_row.append_events(batch[0].aggregate_id, "Order", batch, 0) for batch in batches)
    )
    log = [event.event_id async for event in by_row.read_all()]
    assert log == [event.event_id for batch in batches for event in batch]
    assert [result.global_position for result in results] == [
        sum(map(len, batches[: number + 1])) for number in range(30)
    ]


async def test_a_log_goes_to_the_row_and_back_with_its_events_and_uses_no_position_twice(
    postgres_url, open_stores
):
    before = await described(postgres_url)
    store = await open_stores(postgres_url)
    await append(store, 5)
    await execute(
        postgres_url, "DELETE FROM events WHERE global_position > 3"
    )  # positions that readers have seen
    await execute(  # what earlier releases made
        postgres_url,
        "CREATE TABLE esource_append_lock (id int PRIMARY KEY CHECK (id = 1))",
        "INSERT INTO esource_append_lock VALUES (1)",
    )
    for _ in range(2):
        await schema.create_append_lock(postgres_url)
    with pytest.raises(InvalidOptionError, match=r"draws its positions from the row .*append_lock='row'"):
        await append(store)
    by_row = await open_stores(postgres_url, **ROW)
    assert await append(by_row, 2) == 7
    await execute(postgres_url, "DELETE FROM events WHERE global_position > 5")
    for _ in range(2):
        await schema.drop_append_lock(postgres_url)
    with pytest.raises(DatabaseError, match="create_append_lock"):
        await append(by_row)
    assert await append(store) == 8
    assert await described(postgres_url) == before
    assert await positions(postgres_url) == [1, 2, 3, 8]


async def test_stores_of_both_ways_on_one_log_are_told_before_anything_is_written(postgres_url, open_stores):
    standard = await open_stores(postgres_url)
    await append(standard)
    with pytest.raises(InvalidOptionError, match=r"opened with append_lock='row', .*create_append_lock"):
        await open_stores(postgres_url, **ROW)
    await schema.create_append_lock(postgres_url)
    with pytest.raises(InvalidOptionError, match="drop_append_lock"):
        await open_stores(postgres_url)
    reader = await open_stores(postgres_url, read_only=True)
    assert await reader.get_global_position() == 1
    for _ in range(2):
        with pytest.raises(InvalidOptionError, match="Nothing was written"):
            async with standard.transaction():
                await append(standard)
    with pytest.raises(asyncpg.NotNullViolationError):  # whatever program it is
        await execute(
            postgres_url,
            "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, version, timestamp, payload) "
            "VALUES (gen_random_uuid(), gen_random_uuid(), 'Order', 'E', 1, now(), '{}')",
        )
    assert await positions(postgres_url) == [1]


async def test_whoever_takes_the_standard_lock_of_such_a_log_waits_for_its_appends(by_row, postgres_url):
    from esource.database.database import Database

    other = Database.from_url(postgres_url)
    admin = await asyncpg.connect(**dsn(make_url(postgres_url)))
    try:
        async with by_row.transaction():
            await append(by_row)

            async def locked():
                async with other.transaction() as unit:
                    await other.backend.lock_log(unit.driver)

            waiting = asyncio.create_task(locked())
            while not await admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not waiting.done()
        await waiting
    finally:
        await admin.close()
        await other.close()


async def test_a_condition_is_judged_after_the_lock_of_the_row(by_row, postgres_url, open_stores):
    other = await open_stores(postgres_url, **ROW)
    condition = AppendCondition(Query(QueryItem(types=["OrderPlaced"])), after=0)
    async with other.transaction():
        await append(other)
        late = asyncio.create_task(by_row.append([placed()], condition=condition))
    with pytest.raises(AppendConditionError):
        await late
    assert await append(by_row) == 2


async def test_a_log_of_a_row_is_copied_moved_exported_and_imported_with_its_positions(
    by_row, postgres_url, postgres_databases, sqlite_url, open_stores
):
    await append(by_row, 3)
    await execute(postgres_url, "DELETE FROM events WHERE global_position = 3")
    await copy(postgres_url, sqlite_url)
    assert await append(await open_stores(sqlite_url)) == 4
    file = io.BytesIO()
    await export_store(postgres_url, file)
    with postgres_databases.with_tables() as there:
        await schema.create_append_lock(there)
        file.seek(0)
        await import_store(there, file)
        assert await rows(there, LAST) == [(3,)]
        assert await append(await open_stores(there, **ROW)) == 4
    with postgres_databases.without_tables() as there:
        await copy(postgres_url, there)
        assert await append(await open_stores(there, **ROW)) == 4
    with postgres_databases.with_tables() as there:
        await schema.create_append_lock(there)
        await cut_over(postgres_url, there)
        with pytest.raises(StoreMovedError):
            await append(by_row)
        assert await append(await open_stores(there, **ROW)) == 4


async def test_what_was_archived_from_a_log_of_a_row_comes_back_to_its_positions(
    by_row, postgres_url, open_stores, tmp_path
):
    events = several(2)
    stream = events[0].aggregate_id
    await append(by_row)
    await by_row.append_events(stream, "Order", events, 0)
    await by_row.close_stream(stream, "Order")
    file = tmp_path / "archive.jsonl"
    await archive(by_row, file)
    assert await positions(postgres_url) == [1, 4]  # the mark that the stream is closed stays
    assert await append(by_row) == 5
    await restore(by_row, file)
    assert await positions(postgres_url) == [1, 2, 3, 4, 5]
    assert await append(by_row) == 6


async def test_a_log_of_a_row_is_partitioned_and_merged(by_row, postgres_url):
    await append(by_row, 3)
    await partitioning.partition(postgres_url)
    await partitioning.begin_partition(postgres_url)
    assert await append(by_row, 2) == 5
    await schema.drop_append_lock(postgres_url)
    await schema.create_append_lock(postgres_url)
    await partitioning.merge(postgres_url)
    assert await append(by_row, 2) == 7


@pytest.mark.slow
async def test_a_row_that_is_lost_or_behind_its_log_is_found_and_mended(by_row, postgres_url):
    await append(by_row, 3)
    for damage, told in (
        ("UPDATE esource_append_lock SET last_position = 1", "is behind the log"),
        ("DELETE FROM esource_append_lock", "has lost its row"),
        (
            "ALTER TABLE events ALTER COLUMN global_position SET DEFAULT nextval('events_global_position_seq')",
            "has a default all the same",
        ),
    ):
        await execute(postgres_url, damage)
        doctor = await esource("doctor", "--url", postgres_url)
        assert told in " ".join(doctor.output.split()), doctor.output
        if "default" not in damage.lower():
            with pytest.raises((ConstraintError, DatabaseError), match="create_append_lock"):
                await append(by_row)
        mended = await esource("append-lock", "row", "--url", postgres_url)
        assert mended.exit_code == 0, mended.output
        assert told not in " ".join((await esource("doctor", "--url", postgres_url)).output.split())
    assert await append(by_row) == 4


async def test_a_log_is_made_with_the_row_and_taken_back_without_it(
    empty_postgres_url, sqlite_url, open_stores
):
    await schema.create_append_lock(empty_postgres_url)  # makes the tables, too
    assert (await esource("init", "--url", empty_postgres_url)).exit_code == 0
    await append(await open_stores(empty_postgres_url, **ROW))
    await schema.downgrade(empty_postgres_url, "base")
    assert await append(await open_stores(empty_postgres_url)) == 1
    back = await esource("append-lock", "advisory", "--url", empty_postgres_url)
    assert back.exit_code == 0, back.output
    with pytest.raises(InvalidOptionError, match="one writer at a time"):
        await schema.drop_append_lock(sqlite_url)

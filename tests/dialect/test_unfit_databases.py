"""A database or a pool that does not fit is told at once, with what to do."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from support.orders import placed
from support.schemas import execute

from esource import DLQRepository, EventStore, PostgreSQLEventStore, open_store, schema
from esource.browsing.overview import examine
from esource.database.database import Database
from esource.errors import ConstraintError, DatabaseUnavailableError, InvalidOptionError
from esource.testing.server import dsn


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
async def other_encoding(request: pytest.FixtureRequest, postgres_server):
    """The URL of a database whose encoding is not UTF-8."""
    name = f"encoded_{uuid4().hex}"
    server: Any = await asyncpg.connect(**dsn(postgres_server))
    await server.execute(
        f"CREATE DATABASE {name} ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    yield postgres_server.set(database=name).render_as_string(hide_password=False)
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close()


async def test_a_database_that_lacks_characters_is_refused_before_it_holds_anything_on_postgresql(
    other_encoding,
):
    encoding = "LATIN1|SQL_ASCII"
    store = open_store(other_encoding, enable_tracing=False)
    for use in (store.open, store.initialize, store.get_global_position):
        with pytest.raises(DatabaseUnavailableError, match=f"its encoding is ({encoding}).*ENCODING 'UTF8'"):
            await use()
    with pytest.raises(DatabaseUnavailableError, match="its encoding is"):
        await schema.upgrade(other_encoding)
    engine = create_async_engine(make_url(other_encoding).set(drivername="postgresql+asyncpg"))
    with pytest.raises(DatabaseUnavailableError, match="its encoding is"):
        await EventStore(Database.from_engine(engine), enable_tracing=False).initialize()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await engine.dispose()


async def test_a_sequence_behind_its_rows_is_told_with_the_statement_that_sets_it_on_postgresql(
    postgres_url: str, open_stores
):
    store = await open_stores(postgres_url)
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)
    await DLQRepository(store).add_failed_event(event.event_id, "totals", event.event_type, {}, ValueError())
    await execute(
        postgres_url,
        "ALTER SEQUENCE events_global_position_seq RESTART WITH 1",
        "ALTER SEQUENCE dead_letter_queue_id_seq RESTART WITH 1",
    )
    other = placed()
    with pytest.raises(
        ConstraintError, match=r"counts events\.global_position is behind the rows"
    ) as refused:
        await store.append_events(other.aggregate_id, "Order", [other], 0)
    assert refused.value.constraint == "events_pkey"
    await execute(postgres_url, str(refused.value).partition("writes: ")[2])
    result = await store.append_events(other.aggregate_id, "Order", [other], 0)
    assert result.global_position == 2
    with pytest.raises(ConstraintError, match=r"counts dead_letter_queue\.id is behind"):
        await DLQRepository(store).add_failed_event(other.event_id, "totals", "Order", {}, ValueError())


async def test_a_sequence_whose_next_number_is_a_hole_of_the_log_is_told_before_it_is_drawn_on_postgresql(
    postgres_url: str, open_stores, caplog
):
    store = await open_stores(postgres_url)
    for _ in range(3):
        event = placed()
        await store.append_events(event.aggregate_id, "Order", [event], 0)
    await store.initialize()
    healthy = [str(symptom) for symptom in await examine(store)]
    await execute(
        postgres_url,
        "DELETE FROM events WHERE global_position = 2",
        "ALTER SEQUENCE events_global_position_seq RESTART WITH 2",
    )
    assert caplog.records == []
    await store.initialize()
    assert "its next number is 2, and the log ends at 3" in caplog.text
    [symptom] = [each for each in await examine(store) if str(each) not in healthy]
    assert "readers have passed" in symptom.problem
    await execute(postgres_url, symptom.remedy.partition("table: ")[2])
    assert [str(each) for each in await examine(store)] == healthy
    event = placed()
    assert (await store.append_events(event.aggregate_id, "Order", [event], 0)).global_position == 4


async def test_a_pool_without_a_free_connection_is_told_in_our_words(shared_database_url: str, open_stores):
    url = (await open_stores(shared_database_url))._opened.database.connections.engine.url
    engine = create_async_engine(url, pool_size=2, max_overflow=0, pool_timeout=0.05)
    async with EventStore(Database.from_engine(engine), enable_tracing=False) as store:
        async with engine.connect():
            with pytest.raises(DatabaseUnavailableError, match="pool"):
                async with store.reading():
                    pass
    await engine.dispose()


@pytest.mark.parametrize(
    "options", [{"pool_size": "5"}, {"no_such_option": 1}, {"connect_args": {"no_such_option": 1}}]
)
async def test_options_that_the_engine_does_not_take_are_told_in_our_words_on_postgresql(
    postgres_url: str, options: Any
):
    store = PostgreSQLEventStore(postgres_url, enable_tracing=False, **options)
    for use in (store.open, store.get_global_position):
        with pytest.raises(InvalidOptionError, match="the options of its engine do not fit"):
            await use()
    assert not store.is_connected

"""Conditions of appends wherever an append may be: other doors, roles, keys, and transactions of the application's own."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from support.schemas import execute

from esource import (
    AppendCondition,
    AppendConditionError,
    DomainEvent,
    InvalidOptionError,
    OptimisticLockError,
    Query,
    QueryItem,
    Tag,
    register_event,
    sync,
)
from esource.checks.arguments import LARGEST_POSITION
from esource.errors import DatabaseBusyError
from esource.privacy import InMemoryKeyStore, Personal
from esource.testing.server import dsn


@register_event
class SeatBooked(DomainEvent):
    seat: Annotated[str, Tag("seat")]


@register_event
class GuestNamed(DomainEvent):
    aggregate_type: str = "Guest"
    seat: Annotated[str, Tag("seat")]
    name: Annotated[str, Personal()]


def free(seat: str, after: int = 0) -> AppendCondition:
    return AppendCondition(Query(QueryItem(tags=[f"seat:{seat}"])), after)


def booked(seat: str) -> list[SeatBooked]:
    return [SeatBooked(seat=seat)]


# -- the synchronous door --------------------------------------------------------------------------------


def test_a_program_without_an_event_loop_appends_on_a_condition(database_url):
    with sync.open_store(database_url, enable_tracing=False) as store:
        store.initialize()
        found = store.read_query(Query(QueryItem([SeatBooked])))
        assert (found.events, found.head) == ([], 0)
        assert store.append(booked("1a"), condition=found.condition).global_position == 1
        with pytest.raises(AppendConditionError, match="SeatBooked at global position 1"):
            store.append(booked("1b"), condition=found.condition)
        order = uuid4()
        with pytest.raises(AppendConditionError):
            store.append_events(order, "Order", booked("1c"), 0, condition=free("1a"))
        held = AppendCondition(streams={(order, "Order"): 1})
        with pytest.raises(OptimisticLockError):
            store.append(booked("1c"), condition=held)
        with store.transaction() as transaction:
            transaction.append(booked("2a"), condition=free("2a"))
            with pytest.raises(AppendConditionError):
                transaction.append(booked("2a"), condition=free("2a"))
            with pytest.raises(AppendConditionError):
                transaction.append_events(order, "Order", booked("2a"), condition=free("2a"))
        assert [stored.event.seat for stored in store.read_all()] == ["1a", "2a"]


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_synchronous_connection_that_cannot_judge_is_told_so(postgres_url, isolation):
    psycopg = pytest.importorskip("psycopg")
    arguments = dsn(make_url(postgres_url))
    with (
        sync.open_store(postgres_url, enable_tracing=False) as store,
        psycopg.connect(dbname=arguments.pop("database"), **arguments) as connection,
    ):
        connection.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        with pytest.raises(InvalidOptionError, match=f"{isolation}.*READ COMMITTED"):
            store.append(booked("1a"), condition=free("1a"), connection=connection)
        connection.rollback()
        assert store.append(booked("1a"), condition=free("1a"), connection=connection).success
        connection.commit()
        assert store.get_global_position() == 1


# -- transactions and savepoints -------------------------------------------------------------------------


@pytest.fixture
async def engine(shared_database_url, shared_store):
    """The application's own engine, on the database of the store."""
    url = make_url(shared_database_url)
    driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}[url.drivername]
    engine = create_async_engine(url.set(drivername=driver))
    yield engine
    await engine.dispose()


async def test_a_savepoint_that_is_rolled_back_takes_what_was_in_the_way_with_it(store):
    async with store.transaction() as transaction:
        with pytest.raises(ZeroDivisionError):
            async with store.transaction():
                await transaction.append(booked("1a"), condition=free("1a"))
                with pytest.raises(AppendConditionError):
                    await transaction.append(booked("1a"), condition=free("1a"))
                raise ZeroDivisionError
        async with store.transaction():
            result = await transaction.append(booked("1a"), condition=free("1a"))
        with pytest.raises(AppendConditionError) as caught:
            await transaction.append(booked("1a"), condition=free("1a"))
        assert caught.value.global_position == result.global_position
    assert len((await store.read_query(Query(QueryItem([SeatBooked])))).events) == 1


async def test_a_refusal_leaves_the_transaction_of_the_application_usable(shared_store, engine):
    store = shared_store
    await store.append(booked("1a"))
    async with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            await connection.exec_driver_sql(
                "BEGIN IMMEDIATE"
            )  # its driver begins at the first write, and no sooner
        with pytest.raises(AppendConditionError):
            await store.append(booked("1a"), condition=free("1a"), connection=connection)
        savepoint = await connection.begin_nested()
        await store.append(booked("1b"), condition=free("1b"), connection=connection)
        await savepoint.rollback()
        first = await store.append(booked("1b"), condition=free("1b"), connection=connection)
        with pytest.raises(AppendConditionError, match=str(first.global_position)):
            await store.append(booked("1b"), condition=free("1b", after=1), connection=connection)
        await store.append(
            booked("1b"), condition=free("1b", after=first.global_position), connection=connection
        )
    assert [stored.event.seat async for stored in store.read_all()] == ["1a", "1b", "1b"]


async def test_on_sqlite_a_transaction_that_sees_an_older_log_does_not_judge(sqlite_url, open_stores):
    store = await open_stores(sqlite_url)
    engine = create_async_engine(make_url(sqlite_url).set(drivername="sqlite+aiosqlite"))
    async with engine.connect() as connection:
        await connection.exec_driver_sql("BEGIN")
        await connection.execute(text("SELECT count(*) FROM events"))
        await store.append(booked("1a"))
        with pytest.raises(DatabaseBusyError):
            await store.append(booked("1a"), condition=free("1a"), connection=connection)
    await engine.dispose()
    assert await store.get_global_position() == 1


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_on_postgresql_an_append_without_a_condition_beside_it_is_judged_by_its_version_alone(
    postgres_url, open_stores, isolation
):
    store = await open_stores(postgres_url)
    url = make_url(postgres_url).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url, isolation_level=isolation)
    order = uuid4()
    async with engine.begin() as connection:
        for condition in (free("1a"), AppendCondition(streams={(order, "Order"): 0})):
            with pytest.raises(InvalidOptionError, match="READ COMMITTED"):
                await store.append_events(
                    order, "Order", booked("1a"), 0, condition=condition, connection=connection
                )
        await store.append_events(order, "Order", booked("1a"), 0, connection=connection)
    await engine.dispose()
    assert await store.get_global_position() == 1


# -- ahead of the log ------------------------------------------------------------------------------------


async def test_what_comes_up_to_a_position_ahead_of_the_log_is_not_in_the_way(store):
    await store.append(booked("1a"))
    for _ in range(3):
        assert await store.append(booked("1a"), condition=free("1a", after=3)) is not None
    with pytest.raises(AppendConditionError) as caught:
        await store.append(booked("1a"), condition=free("1a", after=3))
    assert caught.value.global_position == 4
    result = await store.append(booked("1a"), condition=free("1a", after=LARGEST_POSITION))
    assert result.global_position == 5
    found = await store.read_query(Query(QueryItem([SeatBooked])), after=LARGEST_POSITION)
    assert (found.events, found.head) == ([], 5)


async def test_tags_that_another_program_has_damaged_hold_up_nobody(shared_store, shared_database_url):
    store = shared_store
    await store.append(booked("1a"))
    await store.append(booked("1b"))
    await execute(shared_database_url, """UPDATE events SET tags = '[1]' WHERE global_position = 1""")
    with pytest.raises(AppendConditionError, match="global position 2"):
        await store.append(booked("1b"), condition=free("1b"))
    assert await store.append(booked("1a"), condition=free("1a"))


# -- personal fields -------------------------------------------------------------------------------------


async def test_a_condition_holds_over_events_with_personal_fields_also_when_they_are_forgotten(
    database_url, open_stores
):
    keys = InMemoryKeyStore()
    store = await open_stores(database_url, key_store=keys)
    guest = uuid4()
    named = [GuestNamed(aggregate_id=guest, seat="1a", name="Ada")]
    assert await store.append(named, condition=free("1a"))
    await keys.destroy(str(guest))
    found = await store.read_query(Query(QueryItem([GuestNamed], ["seat:1a"])))
    assert len(found.events) == 1
    other = [GuestNamed(aggregate_id=uuid4(), seat="1a", name="Bob")]
    with pytest.raises(AppendConditionError, match="GuestNamed at global position 1"):
        await store.append(other, condition=free("1a"))
    async with store.transaction() as transaction:
        with pytest.raises(AppendConditionError):
            await transaction.append(other, condition=free("1a"))
        await transaction.append(other, condition=found.condition)

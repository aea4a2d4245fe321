"""Inside a transaction an error was caught: either everything that returned is stored, or the block raises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from sqlalchemy.exc import SQLAlchemyError
from support.orders import placed

from esource import (
    CheckpointRepository,
    EventSourceError,
    EventStore,
    OptimisticLockError,
    OutboxRepository,
)
from esource.errors import DatabaseError
from esource.store.transaction import Transaction

Failing = Callable[[EventStore, Transaction], Awaitable[Any]]


async def a_statement(store: EventStore, tx: Transaction) -> None:
    await tx.connection.exec_driver_sql("SELECT * FROM there_is_no_such_table")


async def a_constraint(store: EventStore, tx: Transaction) -> None:
    for _ in range(2):
        await tx.connection.exec_driver_sql(
            "INSERT INTO projection_checkpoints (projection_name, events_processed, created_at, updated_at) "
            "VALUES ('twice', 0, '2026-01-01 00:00:00+00', '2026-01-01 00:00:00+00')"
        )


async def a_conflict(store: EventStore, tx: Transaction) -> None:
    event = placed()
    await tx.append_events(event.aggregate_id, "Order", [event], 7)


async def an_append_that_took_too_long(store: EventStore, tx: Transaction) -> None:
    event = placed()
    appending = asyncio.ensure_future(tx.append_events(event.aggregate_id, "Order", [event]))
    if not store._opened.database.connections.are_in_caller:  # there it would be stored by then
        await asyncio.sleep(0)
    appending.cancel()
    await appending


async def what_rolls_back_by_itself(store: EventStore, tx: Transaction) -> None:
    """SQLite ends the whole transaction with such a statement."""
    if store._opened.database.backend.name != "sqlite":
        await a_constraint(store, tx)
        return
    for _ in range(2):
        await tx.connection.exec_driver_sql(
            "INSERT OR ROLLBACK INTO projection_checkpoints "
            "(projection_name, events_processed, created_at, updated_at) "
            "VALUES ('twice', 0, '2026-01-01', '2026-01-01')"
        )


FAILINGS = [a_statement, a_constraint, a_conflict, an_append_that_took_too_long, what_rolls_back_by_itself]
CAUGHT = (EventSourceError, SQLAlchemyError, asyncio.CancelledError)


@pytest.fixture
async def store(database_url: str, open_stores) -> EventStore:
    return await open_stores(database_url, outbox_enabled=True)


@asynccontextmanager
async def judged(store: EventStore) -> AsyncIterator[Callable[[Transaction], Awaitable[None]]]:
    """A transaction writes through what is yielded; afterwards it is all there, or nothing is and the block raised."""
    written = []

    async def write(tx: Transaction) -> None:
        event = placed()
        result = await tx.append_events(event.aggregate_id, "Order", [event], 0)
        await tx.checkpoints.save_position("p", result.global_position, event.event_id, "OrderPlaced")
        written.append((event.event_id, result.global_position))

    try:
        yield write
    except DatabaseError:
        expected = []
    else:
        expected = written
    log = [(stored.event_id, stored.global_position) async for stored in store.read_all()]
    assert log == expected
    position = await CheckpointRepository(store).get_position("p")
    assert position == (expected[-1][1] if expected else None)
    assert len(await OutboxRepository(store).get_pending_events()) == len(expected)
    # Nothing is left behind that a later one would meet.
    for _ in range(20):
        async with store.transaction() as tx:
            event = placed()
            await tx.append_events(event.aggregate_id, "Order", [event], 0)
    assert len([stored async for stored in store.read_all()]) == len(expected) + 20


@pytest.mark.parametrize("fail", FAILINGS)
async def test_what_returned_is_stored_or_the_block_raises(store: EventStore, fail: Failing):
    async with judged(store) as write, store.transaction() as tx:
        await write(tx)
        with suppress(*CAUGHT):
            await fail(store, tx)


@pytest.mark.parametrize("fail", FAILINGS)
async def test_what_is_written_after_the_error_is_stored_too_or_the_block_raises(
    store: EventStore, fail: Failing
):
    async with judged(store) as write, store.transaction() as tx:
        await write(tx)
        with suppress(*CAUGHT):
            await fail(store, tx)
        with suppress(EventSourceError):
            await write(tx)


@pytest.mark.parametrize("fail", FAILINGS)
async def test_an_error_that_a_savepoint_caught_is_no_error_of_the_transaction(
    store: EventStore, fail: Failing
):
    """The savepoint raises or keeps what returned inside it; the transaction around it goes on."""
    async with judged(store) as write, store.transaction() as tx:
        await write(tx)
        with suppress(*CAUGHT):
            async with store.transaction():
                await fail(store, tx)
        if fail is not what_rolls_back_by_itself or store._opened.database.backend.name != "sqlite":
            await write(tx)


@pytest.mark.parametrize("fail", FAILINGS)
async def test_a_savepoint_in_which_an_error_was_caught_keeps_what_returned_or_raises(
    store: EventStore, fail: Failing
):
    inside = placed()
    kept = None
    ended = False
    with suppress(DatabaseError):
        async with store.transaction() as tx:
            try:
                async with store.transaction():
                    await tx.append_events(inside.aggregate_id, "Order", [inside], 0)
                    with suppress(*CAUGHT):
                        await fail(store, tx)
                kept = True
            except DatabaseError:
                kept = False
            outside = placed()
            await tx.append_events(outside.aggregate_id, "Order", [outside], 0)
        ended = True
    log = [stored.event_id async for stored in store.read_all()]
    if not ended:
        assert log == []
    else:
        assert log == ([inside.event_id] if kept else []) + [outside.event_id]


async def test_the_error_at_the_end_says_what_came_before_it_on_postgresql_which_gives_up(
    postgres_url: str, open_stores: Any
):
    store = await open_stores(postgres_url)
    with pytest.raises(DatabaseError, match="nothing of it is stored") as caught:
        async with store.transaction() as tx:
            event = placed()
            await tx.append_events(event.aggregate_id, "Order", [event], 0)
            with suppress(SQLAlchemyError):
                await a_statement(store, tx)
    assert "savepoint" in str(caught.value)


async def test_a_conflict_that_is_caught_is_stored_around_on_both_databases(store: EventStore):
    """It is found out before anything is written, so that it fails nothing else."""
    event, other = placed(), placed()
    async with store.transaction() as tx:
        await tx.append_events(event.aggregate_id, "Order", [event], 0)
        with pytest.raises(OptimisticLockError):
            await tx.append_events(event.aggregate_id, "Order", [placed(event.aggregate_id)], 0)
        await tx.append_events(other.aggregate_id, "Order", [other], 0)
    assert [stored.event_id async for stored in store.read_all()] == [event.event_id, other.event_id]

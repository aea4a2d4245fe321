"""The connection of a transaction is lent: the application cannot end the transaction with it."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from support.orders import OrderPlaced, placed
from support.read_models import Journal, append, rows

from esource import EventSourceError, EventStore, InvalidOptionError, ProjectionRunner, handles

ENDS = ["commit", "rollback", "close", "aclose", "invalidate"]


@pytest.mark.parametrize("end", ENDS)
async def test_the_end_of_a_transaction_is_refused_and_the_transaction_goes_on(store: EventStore, end: str):
    event = placed()
    async with store.transaction() as transaction:
        await transaction.append_events(event.aggregate_id, "Order", [event])
        with pytest.raises(InvalidOptionError, match=rf"connection.{end}\(\)"):
            await getattr(transaction.connection, end)()
        await transaction.connection.execute(text("SELECT 1"))
    assert await store.get_stream_version(event.aggregate_id, "Order") == 1
    await append(store, "a")


async def test_another_beginning_is_refused_and_a_savepoint_is_not(store: EventStore):
    async with store.transaction() as transaction:
        with pytest.raises(InvalidOptionError, match="begin_nested"):
            async with transaction.connection.begin():
                pass
        async with transaction.connection.begin_nested():
            await append(store, "a")
    assert await store.get_global_position() > 0


async def test_the_connection_as_a_context_manager_is_refused(store: EventStore):
    event = placed()
    async with store.transaction() as transaction:
        await transaction.append_events(event.aggregate_id, "Order", [event])
        with pytest.raises(Exception):
            async with transaction.connection:
                pass
    assert await store.get_stream_version(event.aggregate_id, "Order") == 1


async def test_a_session_on_the_connection_joins_the_transaction(store: EventStore):
    event = placed()
    async with store.transaction() as transaction:
        async with AsyncSession(bind=transaction.connection) as session:
            await session.execute(text("CREATE TABLE notes (n INTEGER)"))
            await session.execute(text("INSERT INTO notes VALUES (1)"))
            await store.append_events(event.aggregate_id, "Order", [event], connection=session)
            await session.commit()
        await transaction.append_events(event.aggregate_id, "Order", [placed(event.aggregate_id)])
    assert await store.get_stream_version(event.aggregate_id, "Order") == 2
    async with store.transaction() as transaction:
        assert (await transaction.connection.execute(text("SELECT n FROM notes"))).scalar() == 1


async def test_the_connection_may_be_named_for_an_append(store: EventStore):
    event = placed()
    with pytest.raises(LookupError):
        async with store.transaction() as transaction:
            await store.append_events(event.aggregate_id, "Order", [event], connection=transaction.connection)
            raise LookupError
    assert await store.get_stream_version(event.aggregate_id, "Order") == 0


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_an_end_behind_our_back_is_an_error_of_the_block(store: EventStore, end: str):
    event = placed()
    with pytest.raises(EventSourceError):
        async with store.transaction() as transaction:
            await transaction.append_events(event.aggregate_id, "Order", [event])
            await transaction.connection.run_sync(lambda connection: getattr(connection, end)())
    version = await store.get_stream_version(event.aggregate_id, "Order")
    # SQLite has committed with it; on PostgreSQL the end of the block alone commits.
    assert version <= (1 if end == "commit" else 0)
    await append(store, "a")


async def test_a_session_that_rolls_back_is_an_error_of_the_block(store: EventStore):
    event = placed()
    with pytest.raises(EventSourceError):
        async with store.transaction() as transaction:
            await transaction.append_events(event.aggregate_id, "Order", [event])
            async with AsyncSession(bind=transaction.connection) as session:
                await session.execute(text("SELECT 1"))
                await session.rollback()
    assert await store.get_stream_version(event.aggregate_id, "Order") == 0
    await append(store, "a")


class Hasty(Journal):
    """Commits by itself, and fails then."""

    name = "hasty"

    def __init__(self, end: str) -> None:
        super().__init__()
        self.end = end
        self.refused = 0

    @handles(OrderPlaced)
    async def placed(self, event, context):
        await super().placed(event, context)
        try:
            await getattr(context.connection, self.end)()
        except InvalidOptionError:
            self.refused += 1


@pytest.mark.parametrize("end", ENDS)
async def test_a_handler_that_commits_by_itself_applies_no_event_twice(store: EventStore, end: str):
    positions = await append(store, *"abc")
    projection = Hasty(end)
    await ProjectionRunner(store, projection).run(live=False)
    assert projection.refused == 3
    assert await rows(store, projection.table, "position") == positions

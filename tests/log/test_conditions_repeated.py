"""An append with a condition that is sent again while its first copy is still being written."""

from __future__ import annotations

import asyncio
from typing import Annotated

import pytest

from esource import (
    AppendCondition,
    AppendConditionError,
    DomainEvent,
    Query,
    QueryItem,
    Tag,
    register_event,
)


@register_event
class SeatTaken(DomainEvent):
    seat: Annotated[str, Tag("seat")]


def nobody_has(seat: str) -> AppendCondition:
    return AppendCondition(Query(QueryItem(tags=[f"seat:{seat}"])), 0)


async def until_waiting(connection) -> None:
    """Wait until another connection waits for a lock of the log; on SQLite nothing shows it."""
    while connection.dialect.name == "postgresql":
        found = await connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted")
        if found.scalar_one():
            return
        await asyncio.sleep(0)


async def test_a_copy_that_waits_for_the_first_gets_its_answer_and_a_rival_is_refused(
    shared_store, open_stores
):
    other = await open_stores(str(shared_store._opened.database.url.render_as_string(False)))
    event, rival = SeatTaken(seat="1a"), SeatTaken(seat="1a")
    async with shared_store.transaction() as transaction:
        first = await transaction.append([event], condition=nobody_has("1a"))
        copy = asyncio.create_task(other.append([event], condition=nobody_has("1a")))
        await until_waiting(transaction.connection)
    again = await copy
    assert (again.global_position, again.idempotent) == (first.global_position, True)
    with pytest.raises(AppendConditionError, match="SeatTaken at global position 1"):
        await other.append([rival], condition=nobody_has("1a"))


async def test_copies_that_share_a_batch_get_the_first_answer_as_well(shared_store, open_stores):
    other = await open_stores(str(shared_store._opened.database.url.render_as_string(False)))
    await asyncio.gather(*(other.append([SeatTaken(seat=f"0{letter}")]) for letter in "abc"))
    event, rival, free = SeatTaken(seat="1a"), SeatTaken(seat="1a"), SeatTaken(seat="1b")
    async with shared_store.transaction() as transaction:
        first = await transaction.append([event], condition=nobody_has("1a"))
        waiting = [
            asyncio.create_task(other.append([each], condition=nobody_has(each.seat)))
            for each in (event, rival, free)
        ]
        await until_waiting(transaction.connection)
    again, refused, written = await asyncio.gather(*waiting, return_exceptions=True)
    assert (again.global_position, again.idempotent) == (first.global_position, True)
    assert isinstance(refused, AppendConditionError)
    assert written.global_position == first.global_position + 1

"""A row of the log that cannot be read is an error of ours with its position, and ends nothing for good."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import pytest
from pydantic import AfterValidator
from sqlalchemy import text
from support.orders import OrderPlaced
from support.read_models import Letters, append

from esource import (
    DLQRepository,
    DomainEvent,
    EventStore,
    ProjectionFailedError,
    ProjectionRunner,
    register_event,
)
from esource.errors import EventDecodeError
from esource.privacy import InMemoryKeyStore

UNREADABLE = {
    "a list": "[1]",
    "a number": "1",
    "null": "null",
    # PostgreSQL takes it; Python 3.13 reads up to 9 998 levels, the older ones fewer than 3 000.
    "11 000 levels": '{"a": ' + "[" * 11000 + "]" * 11000 + ', "customer_id": "c", "total": 1}',
    "a list that is called sealed": '["esource:sealed"]',
    "another event": '{"total": []}',
}


async def spoil(store: EventStore, position: int, payload: str) -> None:
    """Write a payload as another program would."""
    cast = "CAST(:payload AS jsonb)" if "postgresql" in store.name.lower() else ":payload"
    async with store.transaction() as transaction:
        await transaction.connection.execute(
            text(f"UPDATE events SET payload = {cast} WHERE global_position = :position"),  # noqa: S608
            {"payload": payload, "position": position},
        )


@pytest.fixture(params=UNREADABLE)
async def spoilt(request, store: EventStore) -> tuple[EventStore, list[int]]:
    """A store, and the positions of three events, of which the second cannot be read."""
    positions = await append(store, "a", "b", "c")
    await spoil(store, positions[1], UNREADABLE[request.param])
    return store, positions


async def test_reading_goes_on_behind_it(spoilt):
    store, positions = spoilt
    read, refused = [], []
    async for stored in store.read_all():
        try:
            assert isinstance(stored.event, OrderPlaced)
            read.append(stored.global_position)
        except EventDecodeError as error:
            refused.append(error.global_position)
    assert (read, refused) == ([positions[0], positions[2]], [positions[1]])


class Skipping(Letters):
    name = "skipping"
    on_failure = "skip"


async def test_a_projection_makes_a_dead_letter_of_it(spoilt):
    store, positions = spoilt
    projection = Skipping()
    runner = ProjectionRunner(store, projection)
    await runner.run(live=False)
    assert projection.sent == [positions[0], positions[2]]
    [letter] = await DLQRepository(store).get_failed_events(projection_name="skipping")
    assert "EventDecodeError" in letter.error_message
    assert str(positions[1]) in letter.error_message
    assert (await runner.retry_dead_letters()).failed == 1


async def test_a_projection_that_stops_says_where(spoilt):
    store, positions = spoilt
    with pytest.raises(ProjectionFailedError) as caught:
        await ProjectionRunner(store, Letters()).run(live=False)
    assert caught.value.global_position == positions[1]


async def test_an_endless_number_ends_nothing(store: EventStore):
    """It is read as an infinity, or refused: a float on SQLite, a number of 9 001 digits on PostgreSQL."""
    positions = await append(store, "a", "b", "c")
    await spoil(store, positions[1], '{"customer_id": "c", "total": 1e9000}')
    projection = Skipping()
    await ProjectionRunner(store, projection).run(live=False)
    assert {positions[0], positions[2]} <= set(projection.sent)


async def test_a_store_with_keys_reads_on_behind_it(open_stores, database_url):
    store = await open_stores(database_url, key_store=InMemoryKeyStore())
    positions = await append(store, "a", "b")
    await spoil(store, positions[0], '{"esource:sealed": ' + "[" * 3000 + "]" * 3000 + "}")
    projection = Skipping()
    await ProjectionRunner(store, projection).run(live=False)
    assert projection.sent == positions[1:]


class Halting(Letters):
    name = "halting"
    on_failure = "halt_stream"


@pytest.mark.parametrize("kind", [Skipping, Halting])
@pytest.mark.parametrize("column", ["event_id", "aggregate_id", "timestamp", "version", "tenant_id"])
async def test_a_column_that_cannot_be_read_ends_nothing(sqlite_url, open_stores, column, kind):
    """PostgreSQL refuses such values itself."""
    store = await open_stores(sqlite_url)
    positions = await append(store, "a", "b", "c")
    async with store.transaction() as transaction:
        await transaction.connection.execute(
            text(f"UPDATE events SET {column} = 'odd' WHERE global_position = :position"),  # noqa: S608
            {"position": positions[1]},
        )
    first, again = kind(), kind()
    await ProjectionRunner(store, first).run(live=False)
    await ProjectionRunner(store, again).run(live=False)
    assert (first.sent, again.sent) == ([positions[0], positions[2]], [])
    assert len(await DLQRepository(store).get_failed_events(projection_name=kind.name)) == 1


@pytest.mark.parametrize("tags", ['[["k:z"], "k:z"]', "[{}]", "[1]", "null", '{"k": 1}', '"k:z"', "7"])
async def test_tags_that_are_no_list_of_texts_are_an_error_of_ours_with_the_position(store: EventStore, tags):
    positions = await append(store, "a", "b")
    cast = "CAST(:tags AS jsonb)" if "postgresql" in store.name.lower() else ":tags"
    async with store.transaction() as transaction:
        if "postgresql" in store.name.lower():  # the index is not what is looked at
            await transaction.connection.execute(text("DROP TRIGGER esource_event_tags_update ON events"))
        else:
            await transaction.connection.execute(text("DROP TRIGGER esource_event_tags_update"))
        await transaction.connection.execute(
            text(f"UPDATE events SET tags = {cast} WHERE global_position = :position"),  # noqa: S608
            {"tags": tags, "position": positions[0]},
        )
    spoilt, sound = [stored async for stored in store.read_all()]
    with pytest.raises(EventDecodeError, match="tags are no list of texts") as caught:
        _ = spoilt.tags
    assert caught.value.global_position == positions[0]
    assert sound.tags == frozenset()


KNOWN_NAMES = {"ada"}


def _known(name: str) -> str:
    if name not in KNOWN_NAMES:
        raise LookupError(name)  # pydantic lets through what is no ValueError
    return name


@register_event
class NameKnown(DomainEvent):
    aggregate_type: str = "Order"
    name: Annotated[str, AfterValidator(_known)]


async def test_whatever_a_validator_raises_on_reading_is_told_with_the_position(store, monkeypatch):
    event = NameKnown(aggregate_id=uuid4(), name="ada")
    await store.append_events(event.aggregate_id, "Order", [event], 0)
    monkeypatch.setattr(f"{__name__}.KNOWN_NAMES", set())
    with pytest.raises(EventDecodeError) as refused:
        await store.get_events(event.aggregate_id, "Order")
    assert refused.value.global_position == 1

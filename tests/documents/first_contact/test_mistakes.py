"""What somebody gets wrong on the first day, and the answer that says what to do."""

import asyncio
import gc
from typing import Literal
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel

from esource import (
    AggregateRepository,
    AggregateRoot,
    DeclarativeAggregate,
    DomainEvent,
    EventRegistry,
    InvalidEventError,
    InvalidOptionError,
    OutboxRepository,
    handles,
    open_store,
    register_event,
)
from esource.errors import AsyncRequiredError, SchemaMissingError, StoreClosedError, UnknownEventTypeError


@register_event
class CupFilled(DomainEvent):
    aggregate_type: str = "Cup"
    millilitres: int = 200


class Spilled(DomainEvent):
    """Nobody registers it."""


class CupState(BaseModel):
    millilitres: int = 0


class Cup(DeclarativeAggregate[CupState]):
    @handles(CupFilled)
    def _filled(self, event: CupFilled) -> None:
        self.current.millilitres += event.millilitres


# -- opening, and the loop ---------------------------------------------------------------------------------


async def test_a_database_without_tables_says_initialize(empty_database_url):
    async with open_store(empty_database_url) as store:
        for work in (
            store.append_events(i := uuid4(), "Cup", [CupFilled(aggregate_id=i)]),
            store.get_events(i, "Cup"),
            AggregateRepository(store, Cup).load(i),
        ):
            with pytest.raises(SchemaMissingError, match=r"Create them with `await store\.initialize\(\)`"):
                await work


async def test_a_store_is_entered_with_async_with(store):
    with pytest.raises(AsyncRequiredError, match="a store is asynchronous: write `async with store`"):
        with store:
            pass


async def test_events_are_read_with_async_for(store):
    with pytest.raises(AsyncRequiredError, match="write `async for stored in store.read_all"):
        list(store.read_all())
    with pytest.raises(AsyncRequiredError, match="write `async for stored in store.read_all"):
        await store.read_all()
    with pytest.raises(AsyncRequiredError, match="write `async for stored in store.read_stream"):
        list(store.read_stream(f"{uuid4()}:Cup"))
    with pytest.raises(AsyncRequiredError, match="write `async for stored in store.subscribe"):
        list(store.subscribe())


async def test_python_names_the_call_that_was_not_awaited(store):
    with pytest.warns(RuntimeWarning, match=r"'EventStore\.append_events' was never awaited"):
        try:
            _ = store.append_events(uuid4(), "Cup", [CupFilled()]).new_version
        except AttributeError as error:
            assert str(error) == "'coroutine' object has no attribute 'new_version'"
        gc.collect()


def test_a_store_of_another_loop_says_how_a_program_is_built(empty_database_url):
    store = open_store(empty_database_url)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    first.run_until_complete(store.initialize())
    with pytest.raises(StoreClosedError, match=r"one asyncio\.run\(main\(\)\), with `async with store:`"):
        second.run_until_complete(store.get_stream_version(uuid4(), "Cup"))
    first.run_until_complete(store.close())
    for loop in (first, second):
        loop.close()


def test_a_store_may_be_opened_in_one_loop_after_another(shared_database_url):
    store = open_store(shared_database_url)

    async def fill() -> int:
        async with store:
            result = await store.append_events(CUP, "Cup", [CupFilled()])
            return result.new_version

    assert [asyncio.run(fill()), asyncio.run(fill())] == [1, 2]


CUP = uuid4()


async def test_a_closed_store_says_async_with(store):
    await store.close()
    with pytest.raises(StoreClosedError, match="Use it inside `async with store:`"):
        await store.get_events(uuid4())


# -- events and their classes ------------------------------------------------------------------------------


async def test_a_class_that_was_not_registered_is_named(store):
    with pytest.raises(InvalidEventError, match=r"Put @register_event above .*test_mistakes\.Spilled"):
        await store.append_events(i := uuid4(), "Cup", [Spilled(aggregate_id=i)])
    store.event_registry.register(Spilled)  # in the program that writes
    await store.append_events(i, "Cup", [Spilled(aggregate_id=i)])
    store.event_registry.unregister("Spilled")  # not in the one that reads
    with pytest.raises(
        UnknownEventTypeError, match=r"Put @register_event above .*test_mistakes\.Spilled"
    ) as found:
        await store.get_events(i, "Cup")
    assert found.value.forgotten.endswith("Spilled")


async def test_a_class_that_was_not_imported_is_to_be_imported(database_url, open_stores):
    store = await open_stores(database_url)
    store.event_registry.register(CupFilled, "Mended")
    await store.append_events(i := uuid4(), "Cup", [CupFilled(event_type="Mended")])
    store.event_registry.unregister("Mended")
    with pytest.raises(
        UnknownEventTypeError, match="Import the module that defines it under @register_event"
    ):
        await store.get_events(i, "Cup")


async def test_a_text_is_no_id_on_any_database(store):
    i = uuid4()
    event = CupFilled(aggregate_id=str(i))
    assert event.aggregate_id == i  # pydantic converts it
    await store.append_events(i, "Cup", [event])
    for work in (
        lambda: store.append_events(str(i), "Cup", [event]),
        lambda: store.get_events(str(i), "Cup"),
        lambda: store.get_events("cup-1"),
        lambda: store.get_stream_version(str(i), "Cup"),
        lambda: store.close_stream(str(i), "Cup"),
        lambda: store.event_exists(str(event.event_id)),
        lambda: AggregateRepository(store, Cup).load(str(i)),
        lambda: AggregateRepository(store, Cup).exists(str(i)),
    ):
        with pytest.raises(InvalidOptionError, match=r"must be a UUID, not '.*': pass uuid\.UUID"):
            await work()
    with pytest.raises(InvalidOptionError, match="must be a UUID, not Cup"):
        await store.append_events(Cup(i), "Cup", [event])
    with pytest.raises(InvalidOptionError, match="must be a UUID"):
        Cup(str(i))
    with pytest.raises(InvalidOptionError, match="a stream id is the text"):
        store.read_stream(i)


async def test_what_is_no_list_of_events_says_what_to_pass(store):
    i = uuid4()
    for wrong, kind in (
        (CupFilled(aggregate_id=i), "a tuple"),
        ([{"a": 1}], "a dict"),
        ([CupFilled], "the class"),
    ):
        with pytest.raises(
            InvalidEventError, match=rf"holds {kind}.*Pass a list of events, even of one: \[event\]"
        ):
            await store.append_events(i, "Cup", wrong)


async def test_an_event_that_names_another_stream_is_refused(store):
    event = CupFilled(aggregate_id=(i := uuid4()))
    with pytest.raises(InvalidEventError, match=rf"aggregate_id: the event belongs to Cup {i}, not to Cup"):
        await store.append_events(uuid4(), "Cup", [event])
    with pytest.raises(InvalidEventError, match="aggregate_type: the event belongs to Cup"):
        await store.append_events(i, "Mug", [event])


async def test_an_outbox_row_needs_an_aggregate(store):
    with pytest.raises(InvalidEventError, match="aggregate_id: is not given. Name the aggregate"):
        await OutboxRepository(store).add_event(CupFilled())
    with pytest.raises(InvalidEventError, match="aggregate_type: is empty"):
        await OutboxRepository(store).add_event(Spilled(aggregate_id=uuid4()))


def test_a_mutable_default_belongs_to_one_event():
    class Listed(DomainEvent):
        items: list[str] = []  # noqa: RUF012

    one = Listed()
    one.items.append("tea")
    assert Listed().items == []


def test_a_field_may_not_take_the_place_of_what_every_event_has():
    with pytest.raises(
        InvalidOptionError, match=r"Numbered\.event_id: every event has a field .* \(UUID, not int\)"
    ):

        class Numbered(DomainEvent):
            event_id: int = 5

    with pytest.raises(InvalidOptionError, match=r"Noted\.metadata: .* Call yours something else"):

        class Noted(DomainEvent):
            metadata: str = ""

    with pytest.warns(UserWarning, match='"to_dict" in .*Told" shadows an attribute'):

        class Told(DomainEvent):
            to_dict: int = 1


def test_a_field_of_every_event_may_be_narrowed():
    class Narrow(DomainEvent):
        aggregate_type: Literal["Cup"] = "Cup"
        tenant_id: UUID
        event_version: int = 2
        metadata: dict[str, str] = {}  # noqa: RUF012

    assert Narrow(tenant_id=uuid4()).event_version == 2


def test_what_is_registered_is_a_class_of_events():
    with pytest.raises(InvalidOptionError, match=r"register_event\(event_type='filled'\)"):
        register_event("filled")
    with pytest.raises(InvalidOptionError, match="only a class derived from DomainEvent can be registered"):
        register_event(registry=EventRegistry())(CupState)


# -- aggregates --------------------------------------------------------------------------------------------


def test_a_wrong_version_is_to_be_left_out():
    with pytest.raises(InvalidEventError, match="is 7, the next one is 1. Leave aggregate_version out"):
        Cup(uuid4()).apply_event(CupFilled(aggregate_version=7))


def test_a_state_that_needs_arguments_asks_for_the_initial_one():
    class Needy(BaseModel):
        size: int

    class Bowl(AggregateRoot[Needy]):
        pass

    with pytest.raises(
        InvalidOptionError, match=r"Needy cannot be made .* Bowl a method _get_initial_state\(\)"
    ):
        _ = Bowl(uuid4()).current


def test_a_state_without_a_type_asks_for_the_initial_one():
    class Bowl(AggregateRoot):
        pass

    with pytest.raises(InvalidOptionError, match=r"Bowl a method _get_initial_state\(\)"):
        _ = Bowl(uuid4()).current


def test_an_event_of_an_aggregate_has_no_field_that_nobody_declared():
    with pytest.raises(
        InvalidEventError, match=r"millilitre: is no field of CupFilled \(its own: millilitres\)"
    ):
        Cup(uuid4()).create_event(CupFilled, millilitre=1)


def test_classes_and_events_are_told_apart():
    cup = Cup(uuid4())
    with pytest.raises(InvalidOptionError, match="apply_event takes an event, not <class"):
        cup.apply_event(CupFilled)
    with pytest.raises(InvalidOptionError, match="create_event takes the class of an event"):
        cup.create_event(CupFilled())


def test_a_method_of_an_aggregate_changes_the_state_and_returns_nothing():
    class Returning(DeclarativeAggregate[CupState]):
        @handles(CupFilled)
        def _filled(self, event: CupFilled) -> None:
            return CupState(millilitres=1)

    with pytest.raises(
        InvalidOptionError, match=r"Returning\._filled returned something, .* set self\._state"
    ):
        Returning(uuid4()).apply_event(CupFilled())

    with pytest.raises(InvalidOptionError, match=r"Waiting\._filled must be a plain `def`"):

        class Waiting(DeclarativeAggregate[CupState]):
            @handles(CupFilled)
            async def _filled(self, event: CupFilled) -> None: ...


def test_handles_takes_a_class_or_finds_one_in_the_signature():
    with pytest.raises(InvalidOptionError, match="handles takes the class of an event, not 'CupFilled'"):
        handles("CupFilled")
    for method in (lambda self, event: None, lambda: None):
        with pytest.raises(
            InvalidOptionError, match="which event\\? Write the event's class in its signature"
        ):
            handles(method)


async def test_a_repository_says_what_it_is_made_of(store):
    with pytest.raises(InvalidOptionError, match="event_store must be a store, as open_store.* not str"):
        AggregateRepository("postgresql://me:secret@host/db", Cup)
    with pytest.raises(InvalidOptionError, match="not Cup"):
        AggregateRepository(Cup, store)
    with pytest.raises(InvalidOptionError, match="aggregate_factory must be the class of an aggregate"):
        AggregateRepository(store, Cup(uuid4()))

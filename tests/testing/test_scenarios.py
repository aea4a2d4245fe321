"""Given, when, then: what passes, what does not, and what is said about it."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import pytest
from sqlalchemy import func, select
from support.orders import Order, OrderPlaced, OrderShipped
from support.read_models import Journal

from esource import (
    DomainEvent,
    EventRegistry,
    InvalidOptionError,
    ProjectionFailedError,
    Tag,
    View,
    handles,
    register_event,
)
from esource.testing import an_event, given, given_events, same_event

PLACED = an_event(OrderPlaced, customer_id="c-1", total=5.0)
SHIPPED = an_event(OrderShipped, tracking_number="T-1")


def test_a_command_records_what_was_expected():
    given(Order).when(Order.place, "c-1", 5.0).then(PLACED)
    given(Order, PLACED).when(Order.ship, "T-1").then(SHIPPED)
    given(Order, PLACED).when(Order.ship, tracking_number="T-1").then(OrderShipped)
    given(Order, PLACED).when(lambda order: order.ship("T-1")).then(SHIPPED)
    given(Order, PLACED).when(lambda order: None).then()


def test_ids_times_and_places_are_left_out():
    elsewhere = an_event(OrderPlaced, customer_id="c-1", total=5.0, aggregate_id=uuid4(), aggregate_version=7)
    assert elsewhere.event_id != PLACED.event_id
    assert same_event(elsewhere, PLACED)
    given(Order, aggregate_id=uuid4()).when(Order.place, "c-1", 5.0).then(elsewhere)


@pytest.mark.parametrize(
    "field",
    [{"total": 6.0}, {"tenant_id": uuid4()}, {"actor_id": "me"}, {"metadata": {"a": 1}}],
    ids=lambda field: next(iter(field)),
)
def test_whatever_an_event_says_counts(field):
    assert not same_event(PLACED, PLACED.model_copy(update=field))
    with pytest.raises(AssertionError, match=next(iter(field))):
        given(Order).when(Order.place, "c-1", 5.0).then(PLACED.model_copy(update=field))


@pytest.mark.parametrize("expected", [(), (SHIPPED,), (PLACED, PLACED), (OrderShipped,)], ids=len)
def test_other_events_than_expected_are_a_failure_that_lists_both(expected):
    with pytest.raises(AssertionError, match=r"found events:\n  OrderPlaced\(customer_id='c-1', total=5.0\)"):
        given(Order).when(Order.place, "c-1", 5.0).then(*expected)


def test_what_happened_before_is_no_new_event_and_has_the_aggregates_versions():
    order = given(Order, PLACED, SHIPPED).when(lambda order: None).then().aggregate
    assert (order.version, order.state.status) == (2, "shipped")


def test_a_refusal_is_expected_by_its_kind_and_text():
    refused = given(Order, PLACED).when(Order.place, "c-1", 5.0)
    refused.then_raises(ValueError, match="already placed")
    refused.then_raises((KeyError, ValueError))
    with pytest.raises(AssertionError, match="found 'Order already placed'"):
        refused.then_raises(ValueError, match="something else")
    for otherwise in (lambda: refused.then_raises(KeyError), refused.then, lambda: refused.then_state(None)):
        with pytest.raises(ValueError, match="already placed"):
            otherwise()


def test_a_refusal_that_does_not_come_or_comes_too_late_is_a_failure():
    with pytest.raises(AssertionError, match="nothing was raised"):
        given(Order).when(Order.place, "c-1", 5.0).then_raises(ValueError)

    def place_and_refuse(order):
        order.place("c-1", 5.0)
        raise ValueError("too late")

    with pytest.raises(AssertionError, match="after recording:\n  OrderPlaced"):
        given(Order).when(place_and_refuse).then_raises(ValueError)


def test_the_state_may_be_looked_at():
    then = given(Order).when(Order.place, "c-1", 5.0)
    then.then_state(then.aggregate.state)
    with pytest.raises(AssertionError, match="found state"):
        then.then_state(None)


def test_a_command_that_is_to_be_awaited_is_refused():
    async def command(order):
        pass

    with pytest.raises(InvalidOptionError, match="plain function"):
        given(Order).when(command)


def test_an_event_needs_its_own_fields_only():
    class Bare(DomainEvent):
        pass

    assert an_event(Bare).aggregate_type == "Aggregate"
    assert PLACED.aggregate_type == "Order"
    assert an_event(Bare, actor_id="me", aggregate_type="Other").aggregate_type == "Other"


async def test_events_are_handed_to_a_projection_in_order_with_versions():
    seen, other = [], an_event(OrderPlaced, customer_id="c-2", total=1.0, aggregate_id=uuid4())

    async def handle(event):
        seen.append((event.aggregate_id, event.aggregate_version))

    scenario = given_events(PLACED, other, SHIPPED).when_handled_by(handle)
    i, j = PLACED.aggregate_id, other.aggregate_id
    await scenario.then(lambda: seen, [(i, 1), (j, 1), (i, 2)])


async def test_a_projection_and_what_reads_it_may_be_plain_functions_or_coroutines():
    totals = []

    async def read():
        return sum(totals)

    scenario = given_events(PLACED, PLACED).when_handled_by(lambda event: totals.append(event.total))
    await scenario.then(read, 10.0)
    with pytest.raises(AssertionError, match="found: 20.0"):
        await scenario.then(read, 10.0)


async def test_a_projection_that_fails_is_expected_by_kind_and_text():
    async def handle(event):
        raise KeyError(event.event_type)

    scenario = given_events(PLACED).when_handled_by(handle)
    await scenario.then_raises(KeyError, match="OrderPlaced")
    with pytest.raises(KeyError):
        await scenario.then(list, [])
    with pytest.raises(AssertionError, match="nothing was raised"):
        await given_events().when_handled_by(handle).then_raises(KeyError)


async def test_a_projection_runs_in_the_database_of_a_store(store):
    journal = Journal()

    async def total():
        async with store.reading() as connection:
            return await connection.scalar(select(func.sum(journal.table.c.total)))

    other = an_event(OrderPlaced, customer_id="c-2", total=2.0, aggregate_id=uuid4())
    await given_events(PLACED, other, SHIPPED).when_handled_by(journal, store).then(total, 7.0)
    journal.bad.add("c-3")
    bad = an_event(OrderPlaced, customer_id="c-3", total=1.0, aggregate_id=uuid4())
    await (
        given_events(bad)
        .when_handled_by(journal, store)
        .then_raises(ProjectionFailedError, match="cannot stand c-3")
    )


def test_what_handles_no_events_is_refused_with_what_to_give():
    with pytest.raises(InvalidOptionError, match="handlers of Journal work in a database: give .* the store"):
        given_events(PLACED).when_handled_by(Journal())
    for handler, store in ((5, None), (Journal, Journal()), (print, "sqlite://")):
        with pytest.raises(
            InvalidOptionError, match="takes a function of an event, or a projection and its store"
        ):
            given_events(PLACED).when_handled_by(handler, store)
    with pytest.raises(InvalidOptionError, match="the class of an aggregate first"):
        given(Order(uuid4()))


SHELF = Tag("shelf")


@register_event
class BookShelved(DomainEvent):
    shelf: Annotated[str, SHELF]
    title: str


class Shelf(View):
    def __init__(self, shelf: str) -> None:
        super().__init__(SHELF.of(shelf))
        self.shelf = shelf
        self.books = 0

    @handles
    def shelved(self, event: BookShelved) -> None:
        self.books += 1


def shelve(shelf: Shelf, title: str = "Emma") -> BookShelved:
    if shelf.books == 2:
        raise ValueError("the shelf is full")
    return BookShelved(shelf=shelf.shelf, title=title)


EMMA, DUNE = BookShelved(shelf="a", title="Emma"), BookShelved(shelf="b", title="Dune")


def test_a_decision_comes_to_the_events_that_are_expected():
    decided = given_events(EMMA).beside(DUNE).when(shelve, Shelf("a"))
    decided.then(EMMA).then(BookShelved)
    assert len(decided.events) == 1
    given_events(EMMA, EMMA).when(shelve, Shelf("a")).then_raises(ValueError, match="full")
    given_events().when(lambda shelf: [], Shelf("a")).then()
    with pytest.raises(AssertionError, match="title='Dune'"):
        given_events().when(shelve, Shelf("b")).then(DUNE)


def test_a_boundary_that_would_not_have_seen_a_given_event_fails():
    with pytest.raises(
        AssertionError, match=r"(?s)no view would have seen.*title='Dune'.*tags: shelf:b.*Shelf\('a'\)"
    ):
        given_events(EMMA, DUNE).when(shelve, Shelf("a"))
    with pytest.raises(AssertionError, match="one beside the boundary"):
        given_events().beside(EMMA).when(shelve, Shelf("a"))


def test_a_boundary_knows_the_classes_of_the_registry_that_is_given():
    class OldShelving(BookShelved):
        event_type: str = "ShelvedBook"

    registry = EventRegistry()
    registry.register(OldShelving)
    old = OldShelving(shelf="a", title="Emma")
    with pytest.raises(AssertionError, match="no view would have seen"):
        given_events(old).when(shelve, Shelf("a"))
    given_events(old, old).when(shelve, Shelf("a"), registry=registry).then_raises(ValueError, match="full")


def test_a_decision_that_fails_in_another_way_than_expected_says_so():
    with pytest.raises(AssertionError, match="and this was decided on"):
        given_events().when(shelve, Shelf("a")).then_raises(ValueError)
    with pytest.raises(AssertionError, match="a text matching 'empty'"):
        given_events(EMMA, EMMA).when(shelve, Shelf("a")).then_raises(ValueError, match="empty")
    with pytest.raises(ValueError, match="full"):
        given_events(EMMA, EMMA).when(shelve, Shelf("a")).then(EMMA)


def test_a_decision_in_a_scenario_is_a_plain_function():
    async def later(shelf: Shelf) -> BookShelved:
        return shelve(shelf)

    with pytest.raises(InvalidOptionError, match="a plain function"):
        given_events().when(later, Shelf("a"))
    with pytest.raises(InvalidOptionError, match="returned nothing"):
        given_events().when(lambda shelf: None, Shelf("a"))

"""The tutorial's claims about events, aggregates and repositories (8-26), on every database."""

from datetime import timedelta, timezone
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel
from support.orders import Order, OrderPlaced, OrderShipped, OrderState, placed

from esource import (
    AggregateNotFoundError,
    AggregateRepository,
    AggregateRoot,
    DomainEvent,
    default_registry,
    register_event,
)


@register_event
class TicketOpened(DomainEvent):
    event_type: str = "TicketOpened"
    aggregate_type: str = "Ticket"
    subject: str


class TicketState(BaseModel):
    ticket_id: str
    subject: str = ""


class Ticket(AggregateRoot[TicketState]):
    aggregate_type = "Ticket"

    def _get_initial_state(self) -> TicketState:
        return TicketState(ticket_id=str(self.aggregate_id))

    def _apply(self, event: DomainEvent) -> None:
        assert isinstance(event, TicketOpened)
        self._state = self._get_initial_state().model_copy(update={"subject": event.subject})

    def open(self, subject: str) -> None:
        self.apply_event(
            TicketOpened(
                aggregate_id=self.aggregate_id, subject=subject, aggregate_version=self.get_next_version()
            )
        )


@pytest.fixture
def orders(store):
    return AggregateRepository(event_store=store, aggregate_factory=Order, aggregate_type="Order")


def test_register_event_as_a_bare_decorator_registers_in_the_default_registry():
    assert default_registry.get("TicketOpened") is TicketOpened


def test_an_event_class_fixes_its_types_by_defaults():
    event = TicketOpened(aggregate_id=uuid4(), subject="Broken lamp")
    assert (event.event_type, event.aggregate_type) == ("TicketOpened", "Ticket")


def test_an_events_id_and_moment_are_filled_in():
    first, second = (TicketOpened(aggregate_id=uuid4(), aggregate_version=1, subject="?") for _ in range(2))
    assert isinstance(first.event_id, UUID)
    assert first.event_id != second.event_id
    assert first.occurred_at.utcoffset() == timedelta(0)
    assert first.occurred_at.tzinfo is timezone.utc


async def test_an_events_fields_are_the_same_after_reading(store):
    event = placed(customer_id="customer-123", total=99.99)
    await store.append_events(event.aggregate_id, "Order", [event])
    [read] = (await store.get_events(event.aggregate_id, "Order")).events
    assert type(read) is OrderPlaced
    for field in ("event_id", "event_type", "aggregate_id", "aggregate_type", "occurred_at", "total"):
        assert getattr(read, field) == getattr(event, field)


def test_an_aggregate_starts_at_version_0_without_state():
    order = Order(uuid4())
    assert order.version == 0
    assert order.get_next_version() == 1
    assert not order.state
    assert order.state is None


def test_a_command_applies_its_event_and_records_it():
    order = Order(uuid4())
    order.place("customer-123", 99.99)
    assert (order.version, order.get_next_version()) == (1, 2)
    assert order.state == OrderState(
        order_id=order.aggregate_id, customer_id="customer-123", total=99.99, status="placed"
    )
    assert [type(event) for event in order.uncommitted_events] == [OrderPlaced]


def test_the_state_may_be_a_model_with_a_uuid_or_a_text_id():
    order, ticket = Order(uuid4()), Ticket(uuid4())
    order.place("customer-123", 99.99)
    order.ship("TRACK-ABC123")
    ticket.open("Broken lamp")
    assert (order.state.order_id, order.state.status) == (order.aggregate_id, "shipped")
    assert (ticket.state.ticket_id, ticket.state.subject) == (str(ticket.aggregate_id), "Broken lamp")


def test_a_command_may_refuse():
    order = Order(uuid4())
    with pytest.raises(ValueError, match="Order must be placed to ship"):
        order.ship("TRACK-ABC123")
    order.place("customer-123", 99.99)
    with pytest.raises(ValueError, match="Order already placed"):
        order.place("customer-123", 99.99)
    assert order.version == 1


async def test_create_new_touches_no_storage(store, orders):
    order = orders.create_new(uuid4())
    assert type(order) is Order
    assert await store.get_global_position() == 0
    with pytest.raises(AggregateNotFoundError):
        await orders.load(order.aggregate_id)


async def test_an_order_is_saved_loaded_changed_and_loaded_again(orders):
    order = orders.create_new(uuid4())
    order.place("customer-123", 99.99)
    await orders.save(order)
    assert order.version == 1
    assert not order.has_uncommitted_events

    loaded = await orders.load(order.aggregate_id)
    assert (loaded.version, loaded.state) == (1, order.state)
    loaded.ship("TRACK-ABC123")
    await orders.save(loaded)
    assert loaded.version == 2

    verified = await orders.load(order.aggregate_id)
    assert (verified.version, verified.state) == (2, loaded.state)
    assert verified.state.tracking_number == "TRACK-ABC123"


async def test_the_long_and_the_short_form_of_a_repository_are_the_same(store, orders):
    order = orders.create_new(uuid4())
    order.place("customer-123", 99.99)
    await orders.save(order)
    assert (await AggregateRepository(store, Order).load(order.aggregate_id)).state == order.state


async def test_events_of_an_aggregate_type_are_read_from_the_same_log(store, orders):
    order = orders.create_new(uuid4())
    order.place("customer-123", 99.99)
    order.ship("TRACK-ABC123")
    await orders.save(order)
    ticket = Ticket(uuid4())
    ticket.open("Broken lamp")
    await AggregateRepository(store, Ticket).save(ticket)
    assert [type(event) for event in await store.get_events_by_type("Order")] == [OrderPlaced, OrderShipped]
    assert [stored.aggregate_type async for stored in store.read_all()] == ["Order", "Order", "Ticket"]

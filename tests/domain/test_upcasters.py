"""Old payloads becoming new ones, on every database: JSONB hands them over in its own spelling."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from esource import DomainEvent, EventRegistry, UntypedEvent, upcaster
from esource.errors import EventDecodeError, InvalidOptionError
from esource.tables import events


class PriceV1(DomainEvent):
    event_type: str = "Priced"
    aggregate_type: str = "Item"
    price: str


class PriceV2(DomainEvent):
    event_type: str = "Priced"
    aggregate_type: str = "Item"
    event_version: int = 2
    price: str
    currency: str

    @upcaster(from_version=1)
    def add_currency(payload):
        return {**payload, "currency": "EUR"}


class PriceV3(PriceV2):
    event_type: str = "Priced"
    event_version: int = 3
    currency: str = ""
    price: str = ""
    cents: int
    item_id: UUID

    @upcaster(from_version=2)
    @staticmethod
    def count_cents(payload):
        # what is no JSON value, such as a UUID, is written as one
        return {**payload, "cents": round(float(payload.pop("price")) * 100), "item_id": UUID(int=7)}


def only(event_class):
    registry = EventRegistry()
    registry.register(event_class)
    return registry


@pytest.fixture
async def read_as(store):
    """Appends an event, and reads it back as another class would."""

    async def read(event, event_class):
        store.codec.registry = only(type(event))
        await store.append_events(event.aggregate_id, "Item", [event])
        store.codec.registry = only(event_class)
        (found,) = (await store.get_events(event.aggregate_id, "Item")).events
        return found

    return read


def priced(price="1.50", **fields):
    return PriceV1(aggregate_id=uuid4(), price=price, **fields)


async def test_an_old_payload_is_lifted_step_by_step(read_as):
    event = priced(metadata={"user": "u"})
    found = await read_as(event, PriceV3)
    assert type(found) is PriceV3
    assert (found.cents, found.currency, found.item_id, found.event_version) == (150, "EUR", UUID(int=7), 3)
    assert (found.event_id, found.occurred_at) == (event.event_id, event.occurred_at)
    assert found.metadata == {"user": "u"}


async def test_a_payload_that_says_no_version_is_of_the_first(store):
    event = priced()
    store.codec.registry = only(PriceV3)
    async with store.transaction() as tx:
        await store.append_events(event.aggregate_id, "Item", [event])
        await tx.connection.execute(update(events).values(payload='{"price": "1.50"}'))
    (found,) = (await store.get_events(event.aggregate_id, "Item")).events
    assert (found.cents, found.currency, found.event_version) == (150, "EUR", 3)


async def test_a_payload_in_between_takes_only_the_steps_it_needs(read_as):
    event = PriceV2(aggregate_id=uuid4(), price="2", currency="CHF")
    found = await read_as(event, PriceV3)
    assert (found.cents, found.currency) == (200, "CHF")


async def test_a_current_payload_takes_no_step(read_as):
    event = PriceV3(aggregate_id=uuid4(), cents=5, item_id=uuid4())
    assert await read_as(event, PriceV3) == event


async def test_a_subclass_inherits_the_steps(read_as):
    class Special(PriceV2):
        event_type: str = "Priced"

    assert (await read_as(priced(), Special)).currency == "EUR"


async def test_a_newer_payload_is_refused(read_as):
    event = PriceV3(aggregate_id=uuid4(), cents=5, item_id=uuid4())
    with pytest.raises(EventDecodeError, match="its event_version is 3, this program knows 2") as refused:
        await read_as(event, PriceV2)
    assert (refused.value.event_type, refused.value.event_id) == ("Priced", str(event.event_id))


async def test_a_missing_step_is_named(read_as):
    class Gap(DomainEvent):
        event_type: str = "Priced"
        aggregate_type: str = "Item"
        event_version: int = 3

        @upcaster(from_version=2)
        def second(payload):
            return payload

    with pytest.raises(EventDecodeError, match=r"no upcaster from event_version 1 \(needed: 3\)"):
        await read_as(priced(), Gap)


def fails(payload):
    raise LookupError("no rate for it")


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (fails, r"the upcaster from event_version 1 failed: LookupError\('no rate for it'\)"),
        (lambda payload: None, "the upcaster from event_version 1 failed: TypeError"),
        (lambda payload: {**payload, "currency": object()}, "what its upcasters returned is no JSON"),
        (lambda payload: {**payload, "currency": 5}, "currency"),
    ],
)
async def test_a_failing_step_is_told(read_as, step, problem):
    class Broken(PriceV2):
        event_type: str = "Priced"
        lift = upcaster(from_version=1)(step)

    with pytest.raises(EventDecodeError, match=problem):
        await read_as(priced(), Broken)


async def test_a_step_sees_the_values_that_were_stored(read_as):
    seen = []

    class Watching(PriceV2):
        event_type: str = "Priced"

        @upcaster(from_version=1)
        def watch(payload):
            seen.append(dict(payload))
            return {**payload, "currency": "EUR"}

    event = priced("1.0", metadata={"whole": 1, "float": 1.0, "large": 1e300, "text": "ü"})
    await read_as(event, Watching)
    assert seen[0]["metadata"] == event.metadata
    kinds = {name: type(value) for name, value in seen[0]["metadata"].items()}
    assert kinds == {"whole": int, "float": float, "large": float, "text": str}
    assert seen[0]["event_version"] == 1
    assert "aggregate_version" not in seen[0]


def test_steps_count_from_one():
    with pytest.raises(InvalidOptionError, match="from_version must be 1 or more, not 0"):
        upcaster(from_version=0)


async def test_an_event_read_without_its_class_is_not_lifted(store):
    store.codec.unknown_events = "untyped"
    store.codec.registry = EventRegistry()
    event = priced("1.50", metadata={"user_id": str(UUID(int=3))})
    await store.append_events(event.aggregate_id, "Item", [event])
    (found,) = (await store.get_events(event.aggregate_id, "Item")).events
    assert type(found) is UntypedEvent
    assert (found.event_type, found.event_version, found.price) == ("Priced", 1, "1.50")
    assert found.metadata["user_id"] == str(UUID(int=3))
    assert found.correlation_id == event.correlation_id
    # and can be appended again as it is
    await store.append_events(found.aggregate_id, "Item", [found.model_copy(update={"event_id": uuid4()})])
    again = (await store.get_events(event.aggregate_id, "Item")).events[1]
    assert (again.event_type, again.price) == ("Priced", "1.50")


async def test_a_version_that_is_no_number_is_told(store):
    event = priced()
    store.codec.registry = only(PriceV3)
    async with store.transaction() as tx:
        await store.append_events(event.aggregate_id, "Item", [event])
        payload = '{"price": "1.50", "event_version": "two"}'
        await tx.connection.execute(update(events).values(payload=payload))
    with pytest.raises(EventDecodeError, match="its event_version is 'two'"):
        (await store.get_events(event.aggregate_id, "Item")).events

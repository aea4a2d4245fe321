"""The tutorial's claims about UUIDs (68-71, 83-87). Declared types decide; names only where there is none."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from support.orders import placed

from esource import DomainEvent, EventRegistry, SQLiteEventStore, register_event


@register_event
class InvoiceSent(DomainEvent):
    event_type: str = "InvoiceSent"
    aggregate_type: str = "Invoice"
    user_id: UUID
    stripe_customer_id: str
    reference: str
    details: dict[str, Any]


VALUE = str(uuid4())

NAMES = ("user_id", "parent_id", "stripe_customer_id", "reference", "note")

READERS = {
    "auto": {},
    "uuid_fields": {"uuid_fields": {"parent_id", "reference"}},
    "string_id_fields": {"string_id_fields": {"stripe_customer_id", "external_api_id"}},
    "strict": {"auto_detect_uuid": False, "uuid_fields": {"event_id", "aggregate_id", "tenant_id"}},
}

UUIDS_FOUND = {
    "auto": {"user_id", "parent_id", "stripe_customer_id"},
    "uuid_fields": {"user_id", "parent_id", "stripe_customer_id", "reference"},
    "string_id_fields": {"user_id", "parent_id"},
    "strict": set(),
}


@pytest.fixture
async def invoice(shared_store):
    event = InvoiceSent(
        aggregate_id=uuid4(),
        tenant_id=uuid4(),
        user_id=UUID(VALUE),
        stripe_customer_id=VALUE,
        reference=VALUE,
        details={**dict.fromkeys(NAMES, VALUE), "nested": [{"user_id": VALUE}]},
    )
    await shared_store.append_events(event.aggregate_id, "Invoice", [event])
    return event


@pytest.mark.parametrize("reader", READERS)
async def test_a_declared_type_decides_whatever_the_options_say(
    shared_database_url, open_stores, invoice, reader
):
    store = await open_stores(shared_database_url, **READERS[reader])
    [read] = (await store.get_events(invoice.aggregate_id, "Invoice")).events
    assert (read.user_id, read.stripe_customer_id, read.reference) == (UUID(VALUE), VALUE, VALUE)


@pytest.mark.parametrize("reader", READERS)
async def test_an_events_own_ids_are_always_uuids(shared_database_url, open_stores, invoice, reader):
    store = await open_stores(shared_database_url, **READERS[reader])
    [read] = (await store.get_events(invoice.aggregate_id, "Invoice")).events
    assert (read.event_id, read.aggregate_id, read.tenant_id) == (
        invoice.event_id,
        invoice.aggregate_id,
        invoice.tenant_id,
    )


@pytest.mark.parametrize("reader", READERS)
async def test_where_no_type_is_declared_the_name_decides(shared_database_url, open_stores, invoice, reader):
    store = await open_stores(shared_database_url, **READERS[reader])
    [read] = (await store.get_events(invoice.aggregate_id, "Invoice")).events
    assert {name for name in NAMES if read.details[name] == UUID(VALUE)} == UUIDS_FOUND[reader]
    assert {name for name in NAMES if read.details[name] == VALUE} == set(NAMES) - UUIDS_FOUND[reader]
    found = read.details["nested"][0]["user_id"]
    assert found == (UUID(VALUE) if "user_id" in UUIDS_FOUND[reader] else VALUE)


@pytest.mark.parametrize("reader", READERS)
async def test_without_its_class_the_names_of_an_events_fields_decide(
    shared_database_url, open_stores, invoice, reader
):
    options = {"event_registry": EventRegistry(), "unknown_events": "untyped", **READERS[reader]}
    store = await open_stores(shared_database_url, **options)
    [read] = (await store.get_events(invoice.aggregate_id, "Invoice")).events
    names = {"user_id", "stripe_customer_id", "reference"}
    assert {name for name in names if isinstance(getattr(read, name), UUID)} == UUIDS_FOUND[reader] & names


async def test_a_customer_id_declared_as_text_comes_back_as_text_whatever_it_looks_like(store):
    event = placed(customer_id=VALUE)
    await store.append_events(event.aggregate_id, "Order", [event])
    [read] = (await store.get_events(event.aggregate_id, "Order")).events
    assert read.customer_id == VALUE


async def test_strict_detection_is_a_constructor_of_its_own_sqlite(tmp_path):
    event = placed(metadata={"user_id": VALUE, "tenant_id": VALUE})
    async with SQLiteEventStore.with_strict_uuid_detection(
        database=tmp_path / "events.db", uuid_fields={"tenant_id"}
    ) as store:
        await store.initialize()
        await store.append_events(event.aggregate_id, "Order", [event])
        [read] = (await store.get_events(event.aggregate_id, "Order")).events
    assert read.metadata == {"user_id": VALUE, "tenant_id": UUID(VALUE)}

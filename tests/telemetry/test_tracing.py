"""OpenTelemetry spans where it is installed and wanted; nothing at all otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.orders import Order, placed

from esource import AggregateRepository, OptimisticLockError, open_store
from esource.errors import SchemaMissingError


@pytest.fixture
def exporter(monkeypatch):
    """Collects the spans of one test, without touching the provider of the process."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def names_of(exporter):
    return [span.name for span in exporter.get_finished_spans()]


async def test_appending_and_reading_leave_spans(exporter, database_url, open_stores):
    store = await open_stores(database_url, enable_tracing=True)
    order = uuid4()
    await store.append_events(order, "Order", [placed(order), placed(order)], 0)
    await store.get_events(order, "Order")
    assert [e async for e in store.read_all()]
    assert names_of(exporter) == ["esource.append", "esource.read_stream", "esource.read_all"]
    append = exporter.get_finished_spans()[0]
    assert append.attributes["esource.aggregate_type"] == "Order"
    assert append.attributes["esource.aggregate_id"] == str(order)
    assert append.attributes["esource.event_count"] == 2
    for span in exporter.get_finished_spans():
        assert span.attributes["db.system"] == store._opened.database.backend.name


async def test_the_span_of_a_reading_lasts_as_long_as_it_and_is_never_the_consumers(
    exporter, database_url, open_stores
):
    store = await open_stores(database_url, enable_tracing=True)
    order = uuid4()
    await store.append_events(order, "Order", [placed(order), placed(order)], 0)
    exporter.clear()

    for events in (store.read_all(), store.read_stream(f"{order}:Order")):
        await events.__anext__()
        assert not trace.get_current_span().get_span_context().is_valid
        assert names_of(exporter) == []
        await events.aclose()  # left before the end
        [span] = exporter.get_finished_spans()
        assert span.status.is_ok or span.status.is_unset
        exporter.clear()


async def test_a_reading_that_fails_says_so_in_its_span(exporter, empty_database_url):
    async with open_store(empty_database_url) as store:
        with pytest.raises(SchemaMissingError):
            await store.read_all().__anext__()
    [span] = exporter.get_finished_spans()
    assert span.name == "esource.read_all"
    assert not span.status.is_ok
    assert span.events[0].attributes["exception.type"].endswith("SchemaMissingError")


async def test_a_repository_leaves_spans_around_those_of_the_store(exporter, database_url, open_stores):
    store = await open_stores(database_url, enable_tracing=True)
    repository = AggregateRepository(store, Order)
    order = repository.create_new(uuid4())
    order.place("c", 1.0)
    await repository.save(order)
    await repository.load(order.aggregate_id)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {
        "esource.append",
        "esource.repository.save",
        "esource.read_stream",
        "esource.repository.load",
    }
    assert spans["esource.append"].parent.span_id == spans["esource.repository.save"].context.span_id
    assert spans["esource.read_stream"].parent.span_id == spans["esource.repository.load"].context.span_id


async def test_a_failed_append_is_recorded_in_its_span(exporter, database_url, open_stores):
    store = await open_stores(database_url, enable_tracing=True)
    order = uuid4()
    with pytest.raises(OptimisticLockError):
        await store.append_events(order, "Order", [placed(order, customer_id="hidden")], 5)
    [span] = exporter.get_finished_spans()
    assert not span.status.is_ok
    assert span.events[0].attributes["exception.type"].endswith("OptimisticLockError")
    assert "hidden" not in span.to_json()


async def test_a_store_that_is_not_traced_leaves_none(exporter, database_url, open_stores):
    store = await open_stores(database_url, enable_tracing=False)
    repository = AggregateRepository(store, Order, enable_tracing=False)
    order = repository.create_new(uuid4())
    order.place("c", 1.0)
    await repository.save(order)
    await repository.load(order.aggregate_id)
    assert [e async for e in store.read_all()]
    assert names_of(exporter) == []


@pytest.mark.parametrize("case", ["absent", "off"])
def test_opentelemetry_is_neither_needed_nor_loaded_when_it_is_not_used(case):
    program = f"""
import asyncio, sys
if {case == "absent"}:
    sys.modules["opentelemetry"] = None
from support.orders import placed
from esource import SQLiteEventStore

async def main():
    async with SQLiteEventStore(":memory:", enable_tracing={case == "absent"}) as store:
        await store.initialize()
        event = placed()
        await store.append_events(event.aggregate_id, "Order", [event])
        print(len([e async for e in store.read_all()]), bool(sys.modules.get("opentelemetry")))

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert done.stdout.split() == ["1", "False"], done.stderr

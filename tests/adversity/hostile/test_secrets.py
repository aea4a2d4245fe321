"""The password of a database and the master key of personal data are in no span, no log record and no error."""

from __future__ import annotations

import base64
import logging
import traceback
from uuid import uuid4

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy.engine import make_url
from support.orders import Order, placed
from support.people import joined

from esource import AggregateRepository, EventSourceError, open_store
from esource.errors import InvalidOptionError, OptimisticLockError
from esource.privacy import DatabaseKeyStore, new_master_key

PASSWORD = "s3cr3t/p%w:rd"
SECRET_FORMS = (PASSWORD, "s3cr3t", "s3cr3t%2Fp%25w%3Ard")


@pytest.fixture
def said(caplog, monkeypatch):
    """All that spans and log records say, of every logger that is ours."""
    caplog.set_level(logging.DEBUG, "esource")
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield lambda: "\n".join([*(span.to_json() for span in exporter.get_finished_spans()), caplog.text])
    provider.shutdown()


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def forms(master_key: str) -> tuple[str, ...]:
    """The ways in which a key could be shown."""
    key = base64.b64decode(master_key)
    return (master_key, repr(key)[2:-1], key.hex(), base64.urlsafe_b64encode(key).decode())


def assert_hidden(secrets: tuple[str, ...], *texts: str) -> None:
    for text in texts:
        assert [secret for secret in secrets if secret in text] == [], text


async def test_no_span_shows_a_password_on_postgresql(postgres_url, open_stores, said):
    url = make_url(postgres_url).set(password=PASSWORD)  # which this server does not ask for
    store = await open_stores(url.render_as_string(hide_password=False), enable_tracing=True)
    stream = uuid4()
    await store.append_events(stream, "Order", [placed(stream)], 0)
    texts = []
    for work in (
        lambda: store.append_events(stream, "Order", [placed(stream)], 5),
        lambda: store.append_events(stream, "Order", [placed(stream, metadata={"a": float("nan")})], 1),
        lambda: store.append_events(stream, "x" * 300, [placed(stream)], 0),
    ):
        with pytest.raises(EventSourceError) as caught:
            await work()
        texts.append(told(caught.value))
    assert [stored async for stored in store.read_all()]
    assert "esource.append" in said()
    assert_hidden(SECRET_FORMS, said(), *texts)


async def test_no_span_shows_the_password_of_a_server_that_is_not_there(said):
    url = make_url("postgresql://u@127.0.0.1:1/db").set(password=PASSWORD)
    store = open_store(url.render_as_string(hide_password=False), enable_tracing=True, retry_seconds=0.05)
    stream = uuid4()
    texts = []
    for work in (
        lambda: store.append_events(stream, "Order", [placed(stream)], 0),
        lambda: store.get_events(stream, "Order"),
        lambda: AggregateRepository(store, Order).load(stream),
        lambda: store.read_all().__anext__(),
    ):
        with pytest.raises(EventSourceError) as caught:
            await work()
        texts.append(told(caught.value))
    await store.close()
    assert "esource" in said()
    assert_hidden(SECRET_FORMS, said(), *texts)


async def test_the_master_key_is_shown_nowhere(sqlite_url, tmp_path, open_stores, said):
    """On SQLite: the key never reaches a database, whichever it is."""
    master_key, other_key = new_master_key(), new_master_key()
    path = f"sqlite:///{tmp_path / 'keys.db'}"
    texts = []
    event = joined()
    async with DatabaseKeyStore(path, master_key) as keys:
        await keys.initialize()
        store = await open_stores(sqlite_url, key_store=keys, enable_tracing=True)
        await store.append_events(event.aggregate_id, "Member", [event], 0)
        assert [stored.event async for stored in store.read_all()] == [event]
        with pytest.raises(OptimisticLockError) as conflict:
            await store.append_events(event.aggregate_id, "Member", [joined(event.aggregate_id)], 7)
        texts += [repr(keys), str(keys), repr(store), told(conflict.value)]
    async with DatabaseKeyStore(path, other_key) as keys:
        store = await open_stores(sqlite_url, key_store=keys, enable_tracing=True)
        with pytest.raises(EventSourceError) as wrong:
            [stored.event async for stored in store.read_all()]
        texts.append(told(wrong.value))
    assert "esource.read_all" in said()
    assert_hidden(forms(master_key) + forms(other_key), said(), *texts)


@pytest.mark.parametrize("key", ["s3cr3t", "s3cr3t" * 10, b"s3cr3t", base64.b64encode(b"s3cr3t").decode()])
def test_a_master_key_that_is_none_is_refused_without_being_shown(key, tmp_path):
    with pytest.raises(InvalidOptionError) as caught:
        DatabaseKeyStore(tmp_path / "keys.db", key)
    shown = key.decode() if isinstance(key, bytes) else key
    assert_hidden(
        (shown, "s3cr3t"), str(caught.value), "".join(traceback.format_exception_only(caught.value))
    )

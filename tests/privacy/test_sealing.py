"""What is marked is stored encrypted, comes back as it was, and is gone with its key."""

from __future__ import annotations

import json
from datetime import date
from uuid import uuid4

import pytest
from pydantic import ValidationError
from support.orders import placed
from support.people import NOWHERE, Joined, all_events, append, delivered, every_text, joined

from esource import (
    DuplicateEventError,
    EventRegistry,
    InvalidEventError,
    Limits,
    OutboxRepository,
    UntypedEvent,
)
from esource.codec.decoding import without_values
from esource.errors import (
    EventDecodeError,
    InvalidOptionError,
    KeyNotFoundError,
    KeyStoreError,
    KeyStoreMissingError,
    SubjectErasedError,
)
from esource.privacy import DatabaseKeyStore, InMemoryKeyStore, new_master_key

SECRETS = ("Lovelace", "ada@", "1970", "Analytical", "squiggle", "likes tea")


async def test_personal_fields_come_back_and_are_nowhere_in_the_database(store):
    member = uuid4()
    events = [joined(member, notes={"likes tea": [1, 2.0, None]}), delivered(member), placed(uuid4())]
    await append(store, *events)
    assert await all_events(store) == events
    assert (await store.get_events(member, "Member")).events == events[:1]
    text = await every_text(store)
    assert not [secret for secret in SECRETS if secret in text]
    assert "basic" in text


async def test_a_destroyed_key_leaves_placeholders_and_the_other_fields(store, keys):
    member, other = uuid4(), uuid4()
    await append(store, joined(member), joined(other), delivered(member, courier=7))
    assert await keys.destroy(member) is True
    gone, kept, parcel = await all_events(store)
    assert (gone.name, gone.email, gone.born, gone.plan) == ("[erased]", None, date(1900, 1, 1), "basic")
    assert kept.name == "Ada Lovelace"
    assert (parcel.address, parcel.signature) == (NOWHERE, "squiggle")
    assert await keys.destroy(7) is True
    assert (await all_events(store))[2].signature == "?"
    assert await keys.destroy(member) is False


async def test_an_event_that_names_no_aggregate_is_about_the_one_it_is_appended_to(store, keys):
    member = uuid4()
    await store.append_events(member, "Member", [Joined(name="Ada Lovelace")])
    assert (await all_events(store))[0].name == "Ada Lovelace"
    assert await keys.destroy(member) is True
    assert (await all_events(store))[0].name == "[erased]"


async def test_what_is_sealed_counts_in_the_size_of_the_payload(shared_database_url, open_stores, keys):
    limits = Limits(payload_characters=800)
    store = await open_stores(shared_database_url, key_store=keys, limits=limits)
    with pytest.raises(InvalidEventError, match="800") as refused:
        await append(store, joined(notes="x" * 500))
    assert refused.value.field == "payload"
    await append(store, joined())


async def test_an_erased_subject_gets_no_new_key(store, keys):
    member, never_seen = uuid4(), uuid4()
    await append(store, joined(member))
    await keys.destroy(member)
    await keys.destroy(str(never_seen))
    for subject in (member, never_seen):
        with pytest.raises(SubjectErasedError, match=str(subject)):
            await append(store, joined(subject))
    with pytest.raises(SubjectErasedError):
        await append(store, delivered(member))
    assert len(await all_events(store)) == 1


async def test_without_a_key_store_nothing_personal_is_written_or_read(
    shared_database_url, open_stores, store
):
    await append(store, joined())
    bare = await open_stores(shared_database_url)
    with pytest.raises(KeyStoreMissingError, match="key_store="):
        await append(bare, joined())
    with pytest.raises(KeyStoreMissingError):
        await OutboxRepository(bare).add_event(joined())
    with pytest.raises(KeyStoreMissingError):
        await all_events(bare)
    await append(bare, placed(uuid4()))
    assert len([stored async for stored in bare.read_all()]) == 2


async def test_the_wrong_key_store_is_an_error_not_an_erasure(shared_database_url, open_stores, store):
    await append(store, joined())
    other = await open_stores(shared_database_url, key_store=InMemoryKeyStore())
    with pytest.raises(KeyNotFoundError, match="is it the key store"):
        await all_events(other)


async def test_the_same_append_again_is_idempotent_and_another_content_is_not(store):
    event = joined()
    await store.append_events(event.aggregate_id, "Member", [event], 0)
    again = await store.append_events(event.aggregate_id, "Member", [event], 0)
    assert again.idempotent
    with pytest.raises(DuplicateEventError):
        await store.append_events(
            event.aggregate_id, "Member", [event.model_copy(update={"name": "Charles"})], 0
        )


async def test_a_sealed_value_cannot_be_moved_or_changed(store, shared_database_url):
    one, other = joined(), joined()
    other = other.model_copy(update={"aggregate_id": one.aggregate_id})
    await append(store, one, other)
    rows = [stored.row async for stored in store.read_all()]
    decode = await store.reader.decoder(rows)
    first, second = (json.loads(row[9]) for row in rows)

    def with_payload(payload):
        return (*rows[1][:9], json.dumps(payload), *rows[1][10:])

    for spoilt in (
        first,  # of the same person, but another event
        {**second, "esource:sealed": [{**second["esource:sealed"][0], "data": "AAAA"}]},
        {**second, "esource:sealed": [{**second["esource:sealed"][0], "form": 2}]},
        {**second, "esource:sealed": [{"form": 1}]},
        {**second, "esource:sealed": {}},
    ):
        with pytest.raises(EventDecodeError, match="cannot be opened"):
            decode(with_payload(spoilt))
    assert decode(rows[1]).name == "Ada Lovelace"


async def test_events_without_their_class_are_opened_too(shared_database_url, open_stores, store, keys):
    await append(store, joined())
    untyped = await open_stores(
        shared_database_url, event_registry=EventRegistry(), unknown_events="untyped", key_store=keys
    )
    [event] = await all_events(untyped)
    assert isinstance(event, UntypedEvent)
    assert event.name == "Ada Lovelace"


async def test_an_event_that_does_not_fit_its_class_tells_no_values(store, monkeypatch):
    await append(store, joined())

    class Other(Joined):
        event_type: str = "Joined"
        email: int

    monkeypatch.setitem(store.event_registry.classes, "Joined", Other)
    with pytest.raises(EventDecodeError, match="email: int_parsing") as found:
        await all_events(store)
    assert "ada@" not in str(found.value)
    assert found.value.__cause__ is None


async def test_values_that_no_database_can_hold_are_refused_when_sealed_too(store):
    for field, value in (("name", "a\x00b"), ("notes", float("nan")), ("notes", {"a": {"b": "\ud800"}})):
        with pytest.raises(InvalidEventError, match=field):
            await append(store, joined(**{field: value}))
    assert await all_events(store) == []


async def test_the_name_of_the_sealed_member_is_taken(store):
    for data in ([], [{"form": 1}]):
        event = UntypedEvent(
            aggregate_id=uuid4(), aggregate_type="A", event_type="B", **{"esource:sealed": data}
        )
        with pytest.raises(InvalidEventError, match="esource:sealed"):
            await append(store, event)
    harmless = placed(uuid4(), metadata={"esource:sealed": [{"subject": "x"}], '"esource:sealed":': 1})
    await append(store, harmless)
    assert await all_events(store) == [harmless]


async def test_keys_are_fetched_once_for_a_page(store, keys, monkeypatch):
    await append(store, *(joined() for _ in range(20)))
    loads = []
    load = keys.load

    async def counted(subjects):
        loads.append(len(subjects))
        return await load(subjects)

    monkeypatch.setattr(keys, "load", counted)
    keys._cache.clear()
    assert len(await all_events(store)) == 20
    assert loads == [20]
    await all_events(store)
    assert loads == [20]


async def test_a_key_destroyed_while_a_page_is_being_read_stops_working_at_once(store, keys):
    members = [uuid4(), uuid4()]
    await append(store, *(joined(member) for member in members))
    rows = [stored async for stored in store.read_all()]
    await keys.destroy(members[1])
    assert [stored.event.name for stored in rows] == ["Ada Lovelace", "[erased]"]


async def test_another_process_goes_by_the_new_state_when_its_cache_is_over(store, key_url, master_key):
    member = uuid4()
    await append(store, joined(member))
    async with DatabaseKeyStore(key_url, master_key) as elsewhere:
        await elsewhere.destroy(member)
    assert (await all_events(store))[0].name == "Ada Lovelace"
    cache = store._opened.key_store._cache
    cache.expire(cache.timer() + 61)
    assert (await all_events(store))[0].name == "[erased]"


async def test_two_that_begin_a_subject_at_once_share_its_key(
    store, shared_database_url, open_stores, key_url, master_key
):
    import asyncio

    member = uuid4()
    async with DatabaseKeyStore(key_url, master_key) as other_keys:
        other = await open_stores(shared_database_url, key_store=other_keys)
        events = [joined(member) for _ in range(10)]
        await asyncio.gather(*(append((store, other)[i % 2], event) for i, event in enumerate(events)))
        assert {e.event_id for e in await all_events(store)} == {e.event_id for e in events}
        assert await all_events(other) == await all_events(store)


async def test_the_master_key_can_be_changed(store, keys, key_url, master_key):
    gone, kept = joined(), joined()
    await append(store, gone, kept)
    await keys.destroy(gone.aggregate_id)
    second = new_master_key()
    async with DatabaseKeyStore(key_url, second) as too_early:
        with pytest.raises(KeyStoreError, match="retired_master_keys"):
            await too_early.load([str(kept.aggregate_id)])
        with pytest.raises(KeyStoreError, match="retired_master_keys"):
            await too_early.rotate_master_key()
    async with DatabaseKeyStore(key_url, second, retired_master_keys=[master_key]) as both:
        assert len(await both.load([str(kept.aggregate_id)])) == 1
        assert await both.rotate_master_key() == 1
        assert await both.rotate_master_key() == 0
    async with DatabaseKeyStore(key_url, second) as only:
        found = await only.load([str(gone.aggregate_id), str(kept.aggregate_id)])
        assert found == await keys.load([str(gone.aggregate_id)]) | {
            str(kept.aggregate_id): found[str(kept.aggregate_id)]
        }
        assert found[str(gone.aggregate_id)] is None


async def test_a_wrapped_key_cannot_be_given_to_somebody_else(store, keys):
    one, other = joined(), joined()
    await append(store, one, other)
    async with keys._database.transaction() as unit:
        await unit.connection.exec_driver_sql(
            "UPDATE esource_keys SET wrapped_key = (SELECT wrapped_key FROM esource_keys "
            f"WHERE subject = '{one.aggregate_id}')"
        )
    keys._cache.clear()
    with pytest.raises(KeyStoreError, match="changed or moved"):
        await all_events(store)


async def test_a_key_store_without_its_table_says_what_to_do(
    shared_database_url, open_stores, key_url, master_key
):
    async with DatabaseKeyStore(key_url, master_key) as fresh:
        store = await open_stores(shared_database_url, key_store=fresh)
        for action in (lambda: append(store, joined()), lambda: fresh.destroy("x"), fresh.rotate_master_key):
            with pytest.raises(KeyStoreError, match=r"key_store.initialize\(\)"):
                await action()
        await fresh.initialize()
        await fresh.initialize()
        await append(store, joined())


async def test_keys_beside_the_events_are_refused(shared_database_url, open_stores, master_key):
    async with DatabaseKeyStore(shared_database_url, master_key) as beside:
        with pytest.raises(InvalidOptionError, match="in another database"):
            await open_stores(shared_database_url, key_store=beside)


async def test_sqlite_only_keys_and_events_may_both_be_in_memory(open_stores, master_key):
    """Each in a database of its own, which is private."""
    async with DatabaseKeyStore("sqlite://", master_key) as keys:
        await keys.initialize()
        store = await open_stores("sqlite://", key_store=keys)
        event = joined()
        await append(store, event)
        assert await all_events(store) == [event]


async def test_a_stream_of_several_pages_is_opened_to_its_end(store, monkeypatch):
    monkeypatch.setattr("esource.log.reader.PAGE_EVENTS", 2)
    member = uuid4()
    events = [joined(member, name=f"Ada {n}") for n in range(5)]
    await append(store, *events)
    found = (await store.get_events(member, "Member")).events
    assert [event.name for event in found] == [event.name for event in events]


async def test_what_only_looks_sealed_is_read_without_keys(shared_database_url, open_stores, store):
    event = placed(metadata={"esource:sealed": ["nothing"]})
    bare = await open_stores(shared_database_url)
    await append(bare, event)
    assert await all_events(bare) == await all_events(store) == [event]


def test_an_error_about_personal_fields_tells_no_values():
    with pytest.raises(ValidationError) as invalid:
        Joined(name=["Lovelace"], born="squiggle")
    assert without_values(invalid.value) == "name: string_type; born: date_from_datetime_parsing"
    assert without_values(InvalidEventError("name", "is Lovelace")) == "InvalidEventError"


def test_a_master_key_is_64_bytes():
    for wrong in ("", "secret", b"x" * 32, "ä", None):
        with pytest.raises(InvalidOptionError, match="new_master_key"):
            DatabaseKeyStore("keys.db", wrong)


async def test_sqlite_only_a_destroyed_key_is_not_in_the_file_any_more(tmp_path, master_key):
    file = tmp_path / "keys.db"
    async with DatabaseKeyStore(str(file), master_key) as keys:
        await keys.initialize()
        await keys.create({str(n): bytes([n]) * 64 for n in range(20)})
        [(wrapped,)] = await keys._database.rows(_wrapped("3"), {})
        assert wrapped.encode() in file.read_bytes()
        await keys.destroy(3)
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert wrapped.encode() not in left
    assert [path.name for path in tmp_path.iterdir()] == ["keys.db"]


def _wrapped(subject):
    from sqlalchemy import literal_column, select

    from esource.privacy.database import _keys
    from esource.tables.statement import Statement

    return Statement(select(_keys.c.wrapped_key).where(_keys.c.subject == literal_column(f"'{subject}'")))

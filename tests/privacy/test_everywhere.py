"""Sealed where it is stored, opened where it is read: upcasters, projections, outbox, copies, exports, snapshots."""

from __future__ import annotations

from uuid import uuid4

import pytest
from support.orders import placed
from support.people import (
    Joined,
    Renamed,
    all_events,
    append,
    delivered,
    every_text,
    joined,
)

from esource import (
    AggregateRepository,
    DeclarativeAggregate,
    DLQRepository,
    DomainEvent,
    OutboxRelay,
    OutboxRepository,
    Projection,
    ProjectionRunner,
    SnapshotStore,
    handles,
)
from esource.copying import copy, export_store, import_store, verify_copy
from esource.copying.integrity import verify_store
from esource.errors import InvalidOptionError
from esource.privacy.fields import personal_fields
from esource.publishing import open_personal_data


async def test_upcasters_see_the_fields_or_their_placeholders(store, keys, monkeypatch):
    members = [uuid4(), uuid4()]

    class Before(Joined):
        event_type: str = "Renamed"

    for member in members:
        event = Before(aggregate_id=member, name="Ada Lovelace")
        await store.append_events(member, "Member", [event])
    await keys.destroy(members[1])
    first, second = await all_events(store)
    assert (type(first), first.first, first.last) == (Renamed, "Ada", "Lovelace")
    assert (second.first, second.last) == ("[erased]", "")


@pytest.mark.slow
@pytest.mark.parametrize("progress", ["in_transaction", "after_event"])
async def test_projections_see_the_fields_and_their_dead_letters_do_not(store, keys, progress):
    seen = []

    class Names(Projection):
        on_failure = "skip"

        @handles(Joined)
        async def joined(self, event: Joined, context) -> None:
            if event.name == "Bad":
                raise ValueError("no")
            seen.append(event.name)

    Names.progress = progress
    erased = joined()
    await append(store, joined(), joined(name="Bad", email="bad@example.org"), erased)
    await keys.destroy(erased.aggregate_id)
    runner = ProjectionRunner(store, Names())
    await runner.run(live=False)
    assert [name for name in dict.fromkeys(seen)] == ["Ada Lovelace", "[erased]"]
    [letter] = await DLQRepository(store).get_failed_events()
    assert "esource:sealed" in letter.event_data
    assert "bad@" not in await every_text(store)


async def test_the_outbox_publishes_sealed_fields_unless_it_is_told_to_open_them(store, keys):
    class Kept:
        def __init__(self):
            self.entries = []

        async def publish(self, entry):
            self.entries.append(entry)

    class KeptTogether(Kept):
        async def publish_many(self, entries):
            self.entries += entries

    for publisher in (Kept(), KeptTogether()):
        await append(store, joined())
        await OutboxRelay(store, publisher).drain()
        assert "esource:sealed" in publisher.entries[0].event_data
        erased = joined()
        await append(store, joined(), erased)
        await OutboxRepository(store).add_event(joined(name="By Hand"))
        await append(store, placed())
        await keys.destroy(erased.aggregate_id)
        publisher.entries.clear()
        await OutboxRelay(store, open_personal_data(publisher, keys)).drain()
        [plain] = [entry for entry in publisher.entries if entry.event_type == "OrderPlaced"]
        publisher.entries.remove(plain)
        names = sorted(entry.event_data["name"] for entry in publisher.entries)
        assert names == ["Ada Lovelace", "By Hand", "[erased]"]
        assert not [entry for entry in publisher.entries if "esource:sealed" in entry.event_data]
    assert "By Hand" not in await every_text(store)


async def test_a_transaction_writes_sealed_events_and_outbox_rows(store):
    event = joined()
    async with store.transaction() as transaction:
        await transaction.append_events(event.aggregate_id, "Member", [event])
        await transaction.outbox.add_event(joined())
    assert await all_events(store) == [event]
    assert "Lovelace" not in await every_text(store)


async def test_a_tenants_store_and_a_subscription_open_the_fields(store):
    event = joined()
    bound = store.for_tenant(uuid4())
    await append(bound, event)
    async with bound.subscribe(live=False) as subscription:
        assert [stored.event.name async for stored in subscription] == ["Ada Lovelace"]


async def test_copies_and_exports_hold_what_the_store_holds(
    store, keys, shared_database_url, open_stores, tmp_path
):
    member = uuid4()
    await append(store, joined(member), delivered(member), joined())
    target = f"sqlite:///{tmp_path / 'copy.db'}"
    await copy(shared_database_url, target)
    assert (await verify_copy(shared_database_url, target)).is_identical
    file = tmp_path / "events.jsonl"
    await export_store(shared_database_url, file)
    assert "Lovelace" not in file.read_text()
    imported = f"sqlite:///{tmp_path / 'imported.db'}"
    await import_store(imported, file)
    originals = await all_events(store)
    for url in (target, imported):
        there = await open_stores(url, key_store=keys)
        assert await all_events(there) == originals
    await keys.destroy(member)
    assert [e.name for e in await all_events(there) if isinstance(e, Joined)] == ["[erased]", "Ada Lovelace"]


async def test_a_check_of_the_store_asks_for_no_keys(store):
    await append(store, joined())
    found = await verify_store(store, registry=store.event_registry)
    assert found.findings == []


class Member(DeclarativeAggregate[dict]):
    aggregate_type = "Member"

    def _get_initial_state(self):
        return {}

    @handles(Joined)
    def _joined(self, event: Joined) -> None:
        self._state = {"plan": event.plan}

    def join(self, **fields):
        self.apply_event(self.create_event(Joined, name="Ada", **fields))


class MemberWithoutName(Member):
    aggregate_type = "Member"
    snapshot_is_impersonal = True


async def test_a_snapshot_of_what_is_personal_is_refused_unless_promised_to_be_clean(store):
    plain = AggregateRepository(store, Member)
    with_snapshots = AggregateRepository(
        store, Member, snapshot_store=SnapshotStore(store), snapshot_threshold=1
    )
    member = with_snapshots.create_new(uuid4())
    member.join()
    with pytest.raises(InvalidOptionError, match="snapshot_is_impersonal"):
        await with_snapshots.save(member)
    assert await store.get_global_position() == 0
    await plain.save(member)
    with pytest.raises(InvalidOptionError, match="Joined"):
        await with_snapshots.load(member.aggregate_id)
    promised = AggregateRepository(
        store, MemberWithoutName, snapshot_store=SnapshotStore(store), snapshot_threshold=1
    )
    member = await promised.load(member.aggregate_id)
    member.join()
    await promised.save(member)
    assert (await SnapshotStore(store).get_snapshot(member.aggregate_id, "Member")).state == {
        "value": {"plan": "basic"}
    }


def test_plain_events_have_no_personal_fields():
    assert personal_fields(DomainEvent) is None
    assert personal_fields(Joined).left_out >= {"name", "email", "born", "notes"}

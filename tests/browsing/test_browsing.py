"""Pages of streams, types, checkpoints, dead letters and the outbox, against what a plain reading finds."""

from __future__ import annotations

import random
from uuid import UUID

import pytest
from support.orders import placed

from esource import CheckpointRepository, DLQRepository, OutboxRepository, browsing
from esource.browsing import followers as beside
from esource.browsing import overview
from esource.browsing import streams as streams_pages
from esource.database.sources import database_of
from esource.errors import InvalidOptionError


@pytest.fixture
def database(store):
    return database_of(store)


async def everything(page_of, **options):
    """The rows of all pages."""
    found, after = [], None
    while True:
        page = await page_of(after=after, **options)
        found += page.rows
        after = page.after
        if after is None:
            return found


@pytest.fixture
async def streams(store):
    """Twenty streams of two types, written to in turn; by the position of their last event."""
    chance = random.Random(7)
    ids = [UUID(int=chance.getrandbits(128), version=4) for _ in range(10)]
    last = {}
    for _ in range(60):
        place = (chance.choice(ids), chance.choice(("Order", "Parcel")))
        event = placed(place[0], aggregate_type=place[1])
        done = await store.append_events(*place, [event])
        last[f"{place[0]}:{place[1]}"] = (done.global_position, done.new_version)
    return last


async def test_streams_come_newest_first_whatever_the_page_and_the_window(streams, database, monkeypatch):
    expected = sorted(((name, *place) for name, place in streams.items()), key=lambda row: -row[1])
    for size, window in ((3, 2), (7, 1000), (50, 5)):
        monkeypatch.setattr(streams_pages, "SMALLEST_WINDOW", window)
        found = await everything(lambda after: browsing.newest_streams(database, after=after, size=size))
        assert [(row.stream_id, row.global_position, row.version) for row in found] == expected
        of_type = await everything(
            lambda after: browsing.newest_streams(database, aggregate_type="Parcel", after=after, size=size)
        )
        assert of_type == [row for row in found if row.aggregate_type == "Parcel"]
    assert [row.stream_id for row in await overview.streams(database, limit=4)] == [
        row[0] for row in expected[:4]
    ]


async def test_a_search_that_takes_too_long_hands_over_what_it_has(streams, database, monkeypatch):
    monkeypatch.setattr(streams_pages, "SMALLEST_WINDOW", 1)
    monkeypatch.setattr(streams_pages, "PAGE_SECONDS", -1)
    page = await browsing.newest_streams(database, size=10)
    assert len(page.rows) < 10
    assert page.after is not None
    found = await everything(lambda after: browsing.newest_streams(database, after=after, size=10))
    assert len(found) == len(streams)
    assert len(await overview.streams(database)) == len(streams)


async def test_streams_are_found_by_the_beginning_of_their_id(streams, database):
    by_id = sorted(streams)
    found = await everything(lambda after: browsing.streams_by_id(database, "", after=after, size=3))
    assert [row.stream_id for row in found] == by_id
    assert [(row.global_position, row.version) for row in found] == [streams[name] for name in by_id]
    prefix = by_id[5][:10].upper()
    found = await everything(
        lambda after: browsing.streams_by_id(database, prefix, aggregate_type="Order", after=after, size=1)
    )
    assert [row.stream_id for row in found] == [
        name for name in by_id if name.startswith(prefix.lower()) and name.endswith(":Order")
    ]
    for wrong in ("g", "0" * 33):
        with pytest.raises(InvalidOptionError, match="none begins with"):
            await browsing.streams_by_id(database, wrong)


async def test_types_are_listed_by_name(streams, database):
    assert await browsing.aggregate_types(database) == ["Order", "Parcel"]
    assert await browsing.event_types(database) == ["OrderPlaced"]


async def test_an_empty_store_has_no_pages(database):
    assert await browsing.newest_streams(database) == browsing.Page([], None)
    assert await browsing.streams_by_id(database, "") == browsing.Page([], None)
    assert await browsing.aggregate_types(database) == []
    assert await browsing.checkpoint_states(database) == []
    assert await browsing.dead_letters_page(database) == browsing.Page([], None)
    assert await browsing.outbox_page(database, "pending") == browsing.Page([], None)
    assert await browsing.pending(database) == browsing.Pending(0, 0, 0)


async def test_checkpoints_are_seen_from_the_end_of_the_log(streams, store, database):
    checkpoints = CheckpointRepository(store)
    for name, position in (("ahead", 60), ("late", 12)):
        await checkpoints.save_position(name, position, placed().event_id, "OrderPlaced")
    ahead, late = await browsing.checkpoint_states(database)
    assert (ahead.name, ahead.position, ahead.behind, ahead.lag_seconds) == ("ahead", 60, 0, 0.0)
    assert (late.name, late.position, late.behind, late.worker) == ("late", 12, 48, None)
    assert late.lag_seconds > 0


async def test_dead_letters_and_outbox_rows_come_in_pages_by_status(store, database, monkeypatch):
    letters, outbox = DLQRepository(store), OutboxRepository(store)
    ids, rows = [], []
    for _ in range(7):
        event = placed()
        ids.append(await letters.add_failed_event(event.event_id, "p", "OrderPlaced", {}, ValueError("x")))
        rows.append(await outbox.add_event(event))
    await letters.mark_retrying(ids[1])
    await letters.mark_resolved(ids[3], "ada")
    for row in rows[:3]:
        await outbox.mark_published(row)
    await outbox.mark_failed(rows[3], "no broker")

    async def listed(page_of, *options, **more):
        return [
            row.id
            for row in await everything(
                lambda after: page_of(database, *options, after=after, size=2, **more)
            )
        ]

    assert await listed(browsing.dead_letters_page) == [ids[n] for n in (6, 5, 4, 2, 1, 0)]
    assert await listed(browsing.dead_letters_page, resolved=True) == [ids[3]]
    assert await listed(browsing.outbox_page, "pending") == rows[4:]
    assert await listed(browsing.outbox_page, "failed") == [rows[3]]
    assert await listed(browsing.outbox_page, "published") == rows[2::-1]
    assert await browsing.pending(database) == browsing.Pending(6, 3, 1)
    monkeypatch.setattr(beside, "MOST_COUNTED", 2)
    assert await browsing.pending(database) == browsing.Pending(2, 2, 1)


async def test_so_many_types_and_no_more_are_offered(streams, database, monkeypatch):
    assert await browsing.aggregate_types(database) == ["Order", "Parcel"]
    monkeypatch.setattr(streams_pages, "MOST_TYPES", 1)
    assert await browsing.aggregate_types(database) == ["Order"]

"""Tags go wherever their events go, and what selects by them finds the same there."""

from __future__ import annotations

from uuid import uuid4

import pytest
from support.orders import several
from support.schemas import execute, rows

from esource import AppendCondition, AppendConditionError, Query, QueryItem, schema
from esource.copying import copy, cut_over, export_store, import_store, verify_copy
from esource.copying.archiving import archive, restore
from esource.copying.integrity import verify_store

RED = Query(QueryItem(tags=["colour:red"]))


async def filled(store):
    """A closed stream and an open one, with and without tags."""
    order, other = uuid4(), uuid4()
    await store.append_events(order, "Order", several(3, order), 0, tags=["colour:red", "größe:1"])
    await store.append_events(other, "Order", several(2, other), 0)
    await store.append_events(other, "Order", several(1, other), 2, tags=["colour:red"])
    await store.close_stream(order, "Order")
    return order


async def tagged(store):
    return [(stored.global_position, sorted(stored.tags)) async for stored in store.read_all()]


async def indexed(url):
    return await rows(url, "SELECT tag, global_position FROM event_tags ORDER BY global_position, tag")


INDEX = [
    *((tag, place) for place in (1, 2, 3) for tag in ("colour:red", "größe:1")),
    ("colour:red", 6),
]


async def require_the_same(source, target, url):
    assert await tagged(target) == await tagged(source)
    assert await indexed(url) == INDEX
    assert [stored.global_position for stored in (await target.read_query(RED)).events] == [1, 2, 3, 6]
    with pytest.raises(AppendConditionError):
        await target.append(several(1), condition=AppendCondition(RED, 5))
    assert (await verify_store(target)).findings == []


@pytest.fixture
async def both(sqlite_url, postgres_url, open_stores):
    return {
        "sqlite": (await open_stores(sqlite_url), sqlite_url),
        "postgresql": (await open_stores(postgres_url), postgres_url),
    }


@pytest.mark.parametrize(("here", "there"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
async def test_a_copy_a_cut_over_and_a_file_take_them_along(both, here, there, tmp_path, open_stores):
    (source, source_url), (target, target_url) = both[here], both[there]
    await filled(source)
    assert await indexed(source_url) == INDEX
    await copy(source, target)
    await require_the_same(source, target, target_url)
    assert (await verify_copy(source, target)).is_identical

    await execute(target_url, "UPDATE events SET tags = NULL WHERE global_position = 6")
    assert not (await verify_copy(source, target)).is_identical
    await execute(target_url, """UPDATE events SET tags = '["colour:red"]' WHERE global_position = 6""")
    await cut_over(source, target)
    await require_the_same(source, target, target_url)

    await export_store(target, tmp_path / "store.jsonl")
    read = f"sqlite:///{tmp_path / 'read.db'}"
    other = await open_stores(read)
    await import_store(other, tmp_path / "store.jsonl")
    await require_the_same(source, other, read)


async def test_an_archive_takes_them_out_of_the_log_and_brings_them_back(
    shared_store, shared_database_url, tmp_path
):
    await filled(shared_store)
    before = await tagged(shared_store)
    await archive(shared_store, tmp_path / "closed.jsonl")
    assert await indexed(shared_database_url) == [("colour:red", 6)]
    assert [stored.global_position for stored in (await shared_store.read_query(RED)).events] == [6]
    await restore(shared_store, tmp_path / "closed.jsonl")
    assert await tagged(shared_store) == before
    assert await indexed(shared_database_url) == INDEX


@pytest.mark.parametrize("tags", ['"x"', "[]", '[""]', "[1]", f'["{"x" * 256}"]'])
async def test_a_file_whose_tags_are_none_is_refused(store, tmp_path, open_stores, tags):
    await store.append(several(1), tags=["colour:red"])
    file = tmp_path / "store.jsonl"
    await export_store(store, file)
    lines = file.read_text().splitlines()
    lines[1] = lines[1].replace('["colour:red"]', tags)
    file.write_text("\n".join(lines) + "\n")
    other = await open_stores(f"sqlite:///{tmp_path / 'read.db'}")
    with pytest.raises(Exception, match="tags"):
        await import_store(other, file)
    assert await other.get_global_position() == 0


async def test_a_downgrade_forgets_the_tags_and_no_event(empty_database_url, open_stores):
    store = await open_stores(empty_database_url)
    await filled(store)
    before = [stored.event_id async for stored in store.read_all()]
    await store.close()
    await schema.downgrade(empty_database_url, "0003")
    assert len(await rows(empty_database_url, "SELECT event_id FROM events")) == 7
    await schema.upgrade(empty_database_url)
    store = await open_stores(empty_database_url)
    assert [stored.event_id async for stored in store.read_all()] == before
    assert {stored.tags async for stored in store.read_all()} == {frozenset()}
    await store.append(several(1), tags=["colour:red"], condition=AppendCondition(RED, 0))
    assert await indexed(empty_database_url) == [("colour:red", 8)]


async def test_a_dump_of_the_data_that_brings_the_index_before_the_events_is_restored(
    postgres_url, open_stores
):
    store = await open_stores(postgres_url)
    await filled(store)
    await execute(
        postgres_url,
        "CREATE TABLE dumped AS TABLE events",
        "CREATE TABLE dumped_index AS TABLE event_tags",
        "DELETE FROM events",
        "INSERT INTO event_tags TABLE dumped_index",
        "INSERT INTO events TABLE dumped",
    )
    assert await indexed(postgres_url) == INDEX


async def test_what_sql_by_hand_does_to_tags_is_in_the_index_at_once(shared_store, shared_database_url):
    await filled(shared_store)
    await execute(
        shared_database_url,
        """UPDATE events SET tags = '["colour:blue", "colour:red"]' WHERE global_position = 4""",
        "UPDATE events SET tags = NULL WHERE global_position = 1",
        "DELETE FROM events WHERE global_position = 2",
    )
    assert await indexed(shared_database_url) == [
        ("colour:red", 3),
        ("größe:1", 3),
        ("colour:blue", 4),
        ("colour:red", 4),
        ("colour:red", 6),
    ]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM event_tags WHERE global_position = 6",
        "INSERT INTO event_tags (tag, global_position) VALUES ('colour:red', 4)",
        "UPDATE event_tags SET tag = 'colour:blue' WHERE global_position = 6",
    ],
)
async def test_an_index_that_says_something_else_than_the_events_is_found_and_made_anew(
    shared_store, shared_database_url, damage
):
    await filled(shared_store)
    assert (await verify_store(shared_store)).findings == []
    await execute(shared_database_url, damage)
    [finding] = (await verify_store(shared_store)).findings
    assert finding.check == "tags"
    await execute(shared_database_url, "DELETE FROM event_tags", "UPDATE events SET tags = tags")
    assert (await verify_store(shared_store)).findings == []
    assert await indexed(shared_database_url) == INDEX

"""Events that were stored before their class declared tags are given them, and no query misses one meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import Annotated
from uuid import uuid4

import pytest
from support.schemas import rows

from esource import (
    AppendCondition,
    AppendConditionError,
    DomainEvent,
    EventRegistry,
    InvalidOptionError,
    Projection,
    ProjectionContext,
    ProjectionRunner,
    Query,
    QueryItem,
    ReadOptions,
    Tag,
    handles,
)
from esource.browsing.overview import examine, overview
from esource.copying import archiving, copy, cut_over, export_store, fill_tags, log, tagging
from esource.copying.archiving import archive, restore
from esource.copying.integrity import verify_store
from esource.copying.tagging import lacking_tags
from esource.errors import CopyRefusedError, EventDecodeError, TagsIncompleteError


class Enrolled(DomainEvent):
    """As it was."""

    student: str
    course: str = "c"


class EnrolledNow(DomainEvent):
    event_type: str = "Enrolled"
    student: Annotated[str | None, Tag("student")]
    course: str = "c"


class Left(DomainEvent):
    student: Annotated[str, Tag("student")]


OLD, NEW = EventRegistry(), EventRegistry()
OLD.register(Enrolled)
NEW.register(EnrolledNow)
NEW.register(Left)
ADA = Query(QueryItem(tags=["student:ada"]))


class Interrupted(Exception):
    """The filling is ended in its middle."""


def interrupt(_: object) -> None:
    raise Interrupted


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tagging, "PAGE", 4)


async def of_old_class(store, *students: str) -> None:
    for student in students:
        await store.append([Enrolled(student=student)], tags=["kept"])


@pytest.fixture
async def old(shared_database_url, open_stores):
    store = await open_stores(shared_database_url, event_registry=OLD)
    await of_old_class(store, *(["ada", "bob", "ada"] * 4))
    return store


@pytest.fixture
async def new(shared_database_url, open_stores):
    return await open_stores(shared_database_url, event_registry=NEW)


async def places(store, query: Query = ADA) -> list[int]:
    return [stored.global_position for stored in (await store.read_query(query)).events]


async def test_stored_events_are_given_the_tags_that_their_class_declares_and_keep_their_own(old, new):
    assert await places(new) == []
    planned = await fill_tags(new, registry=NEW, dry_run=True)
    assert (planned.looked_at, planned.filled, planned.is_dry_run) == (12, 12, True)
    assert await places(new) == []
    done = await fill_tags(new, registry=NEW)
    assert (done.looked_at, done.filled, done.position) == (12, 12, 12)
    assert done.tags == {"Enrolled": ["student"], "Left": ["student"]}
    assert await places(new) == [1, 3, 4, 6, 7, 9, 10, 12]
    assert {stored.tags async for stored in new.read_all()} == {
        frozenset({"kept", f"student:{name}"}) for name in ("ada", "bob")
    }
    assert (await verify_store(new)).findings == []
    with pytest.raises(AppendConditionError, match="Enrolled at global position 1"):
        await new.append([Left(student="ada")], condition=AppendCondition(ADA, 0))
    assert (await fill_tags(new, registry=NEW)).looked_at == 0


async def test_a_query_over_tags_that_are_being_filled_is_refused_until_they_are(
    old, new, shared_database_url, small_pages
):
    condition = (await new.read_query(ADA)).condition
    with pytest.raises(Interrupted):
        await fill_tags(new, registry=NEW, on_progress=interrupt)
    event = Left(student="ada")
    concerned = (
        ADA,
        Query(QueryItem(types=["Enrolled"], tags=["kept", "student:bob"])),
        Query(QueryItem(types=[Left]), QueryItem(types=[EnrolledNow], tags=["student:x"])),
    )
    for query in concerned:
        with pytest.raises(TagsIncompleteError, match="run it again: it goes on where it was") as caught:
            await new.read_query(query)
        assert (caught.value.event_type, caught.value.tag_name) in {
            ("Enrolled", "student"),
            ("Left", "student"),
        }
        with pytest.raises(TagsIncompleteError):
            await new.append([event], condition=AppendCondition(query, 0))
        with pytest.raises(TagsIncompleteError):
            [stored async for stored in new.read_all(ReadOptions(query=query))]
        with pytest.raises(TagsIncompleteError):
            async with new.subscribe(query=query, live=False) as subscription:
                [stored async for stored in subscription]
    with pytest.raises(TagsIncompleteError):
        await new.append([event], condition=condition)  # decided while nobody knew of the tags
    apart = (
        Query(QueryItem(types=["Enrolled"])),
        Query(QueryItem(tags=["kept"])),
        Query(QueryItem(types=["Other"], tags=["student:ada"])),
        Query(QueryItem(tags=["students:ada"]), QueryItem(tags=["student"])),
    )
    for query in apart:
        head = (await new.read_query(query)).head
        await new.append([Enrolled(student="eve")], condition=AppendCondition(query, head))
    # What has come meanwhile from a program with the old class is given its tags, too.
    done = await fill_tags(new, registry=NEW)
    assert done.position == 16
    assert len(await places(new)) == 8
    assert (await new.append([event], condition=AppendCondition(ADA, 16))).success
    assert await rows(
        shared_database_url, "SELECT count(*) FROM tag_fillings WHERE completed_at IS NULL"
    ) == [(0,)]


async def test_a_projection_that_selects_by_them_begins_when_they_are_filled(old, new, small_pages):
    seen: list[int] = []

    class Adas(Projection):
        selects = ADA

        @handles
        async def enrolled(self, event: EnrolledNow, context: ProjectionContext) -> None:
            seen.append(context.stored.global_position)

    with pytest.raises(Interrupted):
        await fill_tags(new, registry=NEW, on_progress=interrupt)
    with pytest.raises(TagsIncompleteError):
        await ProjectionRunner(new, Adas()).run(live=False)
    await fill_tags(new, registry=NEW)
    await ProjectionRunner(new, Adas()).run(live=False)
    assert seen == [1, 3, 4, 6, 7, 9, 10, 12]


async def test_a_run_that_was_ended_goes_on_where_it_was_and_two_share_the_work(old, new, small_pages):
    with pytest.raises(Interrupted):
        await fill_tags(new, registry=NEW, on_progress=interrupt)
    looked_at = [
        each.looked_at for each in await asyncio.gather(*(fill_tags(new, registry=NEW) for _ in "ab"))
    ]
    assert 8 <= sum(looked_at) <= 16
    assert len(await places(new)) == 8
    assert (await verify_store(new)).findings == []


async def test_the_application_appends_meanwhile_and_every_event_is_found(old, new, small_pages):
    is_filling = True

    async def write() -> int:
        count = 0
        while is_filling or count < 10:
            await new.append([EnrolledNow(student="ada")])
            count += 1
        return count

    writing = asyncio.create_task(write())
    await fill_tags(old, registry=NEW)
    is_filling = False
    written = await writing
    assert len(await places(new)) == 8 + written
    assert (await verify_store(new)).findings == []


async def test_what_an_older_program_stores_afterwards_is_filled_by_the_next_run(old, new):
    await fill_tags(new, registry=NEW)
    await of_old_class(old, "ada")
    assert 13 not in await places(new)
    done = await fill_tags(new, registry=NEW)
    assert (done.looked_at, done.filled) == (1, 1)
    assert 13 in await places(new)


async def test_two_classes_that_declare_other_tags_fill_them_at_once(old, new, small_pages):
    class OfCourse(DomainEvent):
        event_type: str = "Enrolled"
        course: Annotated[str, Tag("course")]

    registry = EventRegistry()
    registry.register(OfCourse)
    for _ in range(5):  # now and then one of them reads a page that the other is about to write
        await of_old_class(old, *(["ada"] * 8))
        await asyncio.gather(fill_tags(new, registry=NEW), fill_tags(old, registry=registry))
    assert {len(stored.tags) async for stored in new.read_all()} == {3}


async def test_a_class_that_gives_more_tags_of_a_name_is_looked_at_again(old, new, small_pages):
    await fill_tags(new, registry=NEW)

    class OfBoth(DomainEvent):
        event_type: str = "Enrolled"
        student: Annotated[str, Tag("student")]
        course: Annotated[str, Tag("student")] = "c"

    registry = EventRegistry()
    registry.register(OfBoth)
    assert (await fill_tags(new, registry=registry)).filled == 0
    assert (await fill_tags(new, registry=registry, again=True, dry_run=True)).filled == 12
    with pytest.raises(Interrupted):
        await fill_tags(new, registry=NEW, types=[EnrolledNow], again=True, on_progress=interrupt)
    with pytest.raises(TagsIncompleteError):
        await places(new)
    assert (await fill_tags(new, registry=registry, again=True)).filled == 12
    assert len(await places(new, Query(QueryItem(tags=["student:c"])))) == 12


async def test_an_event_that_makes_no_tag_stops_it_and_is_named(old, new):
    await old.append([Enrolled(student="x" * 300)])
    with pytest.raises(EventDecodeError, match="at global position 13 cannot be decoded: its tags: student"):
        await fill_tags(new, registry=NEW)
    with pytest.raises(TagsIncompleteError):
        await places(new)


async def test_only_types_that_declare_tags_are_filled(old, new):
    done = await fill_tags(new, registry=NEW, types=[EnrolledNow])
    assert done.tags == {"Enrolled": ["student"]}
    for types in (["Other"], [Enrolled]):
        with pytest.raises(InvalidOptionError, match="declares no tag"):
            await fill_tags(new, registry=OLD, types=types)
    with pytest.raises(InvalidOptionError, match="bound by"):
        await fill_tags(new.for_tenant(uuid4()), registry=NEW)
    assert (await fill_tags(new, registry=OLD)).tags == {}


async def test_a_store_leaves_the_place_only_when_its_tags_are_filled(
    old, new, small_pages, tmp_path, open_stores
):
    other = await open_stores(f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(Interrupted):
        await fill_tags(new, registry=NEW, on_progress=interrupt)
    for leave in (copy(new, other), cut_over(new, other), export_store(new, tmp_path / "store.jsonl")):
        with pytest.raises(TagsIncompleteError):
            await leave
    await fill_tags(new, registry=NEW)
    await copy(new, other)
    assert await places(other) == await places(new)


async def test_a_copy_ends_whose_events_are_given_tags_after_they_were_copied(
    shared_database_url, new, tmp_path, open_stores, monkeypatch
):
    monkeypatch.setattr(log, "COMPARED_EVENTS", 1)
    old = await open_stores(shared_database_url, event_registry=OLD)
    for tags in (
        ["student:ada"],
        ["kept"],
        ["student:ada"],
    ):  # the first and the last are compared, and lack nothing
        await old.append([Enrolled(student="ada")], tags=tags)
    copied, followed = [await open_stores(f"sqlite:///{tmp_path / name}") for name in ("copied", "followed")]
    await copy(new, copied)
    following = asyncio.create_task(copy(new, followed, follow=True))
    while not await places(followed, Query(QueryItem(tags=["kept"]))):
        assert not following.done()
    await fill_tags(new, registry=NEW)
    await new.append([EnrolledNow(student="bob")])
    with pytest.raises((CopyRefusedError, TagsIncompleteError)):
        await following
    for go_on in (copy(new, copied), cut_over(new, copied, verify=False), copy(new, followed)):
        with pytest.raises(CopyRefusedError, match="were given tags after they had been copied"):
            await go_on
    assert (await new.append([EnrolledNow(student="bob")])).success
    fresh = await open_stores(f"sqlite:///{tmp_path / 'fresh'}")
    await copy(new, fresh)
    await fill_tags(new, registry=NEW)
    await cut_over(new, fresh)
    assert await places(fresh) == [1, 2, 3]


async def test_what_comes_back_from_an_archive_is_given_its_tags(old, new, tmp_path):
    stream = uuid4()
    await old.append_events(stream, "Member", [Enrolled(student="ada", aggregate_id=stream)], 0)
    await old.close_stream(stream, "Member")
    await archive(old, tmp_path / "closed.jsonl")
    await fill_tags(new, registry=NEW)
    await restore(new, tmp_path / "closed.jsonl")
    with pytest.raises(TagsIncompleteError):
        await places(new)
    assert (await fill_tags(new, registry=NEW)).filled == 1
    assert 13 in await places(new)
    await archive(old, tmp_path / "again.jsonl")
    await restore(new, tmp_path / "again.jsonl")
    assert 13 in await places(new)


async def test_a_tag_of_the_same_name_does_not_show_that_what_comes_back_has_its_own(old, new, tmp_path):
    stream = uuid4()
    event = Enrolled(student="eve", aggregate_id=stream)
    await old.append_events(stream, "Member", [event], 0, tags=["student:guest"])
    await old.close_stream(stream, "Member")
    await archive(old, tmp_path / "closed.jsonl")
    await fill_tags(new, registry=NEW)
    await restore(new, tmp_path / "closed.jsonl")
    eve = Query(QueryItem(tags=["student:eve"]))
    with pytest.raises(TagsIncompleteError):
        await places(new, eve)
    await fill_tags(new, registry=NEW)
    assert await places(new, eve) == [13]


async def test_what_comes_back_as_it_left_is_not_looked_at_again(old, new, tmp_path):
    stream = uuid4()
    await new.append_events(stream, "Member", [EnrolledNow(student=None, aggregate_id=stream)], 0)
    await new.close_stream(stream, "Member")
    await fill_tags(new, registry=NEW)
    await archive(new, tmp_path / "closed.jsonl")
    await restore(new, tmp_path / "closed.jsonl")
    assert await places(new) == [1, 3, 4, 6, 7, 9, 10, 12]
    await archive(new, tmp_path / "again.jsonl")
    await fill_tags(new, registry=NEW, again=True)  # the class may give more of them by now
    await restore(new, tmp_path / "again.jsonl")
    with pytest.raises(TagsIncompleteError):
        await places(new)


async def test_a_filling_that_begins_while_events_come_back_sees_them(
    postgres_url, open_stores, tmp_path, monkeypatch
):
    old, new = [await open_stores(postgres_url, event_registry=registry) for registry in (OLD, NEW)]
    stream = uuid4()
    await old.append_events(stream, "Member", [Enrolled(student="eve", aggregate_id=stream)], 0)
    await old.close_stream(stream, "Member")
    await archive(old, tmp_path / "closed.jsonl")
    filling: list[asyncio.Task] = []

    async def take_back(*args) -> None:
        await tagging.take_back(*args)
        elsewhere = contextvars.Context()  # not in the transaction of the restoring
        filling.append(elsewhere.run(asyncio.ensure_future, fill_tags(new, registry=NEW)))
        while not filling[0].done():
            if await rows(postgres_url, "SELECT 1 FROM pg_locks WHERE NOT granted"):
                return

    monkeypatch.setattr(archiving, "take_back", take_back)
    await restore(old, tmp_path / "closed.jsonl")
    await filling[0]
    assert await places(new, Query(QueryItem(tags=["student:eve"]))) == [1]


async def test_it_is_said_what_is_lacking_and_how_far_it_is(old, new, small_pages):
    async def told() -> list[str]:
        return [symptom.problem for symptom in await examine(new) if "student:" in symptom.problem]

    assert await lacking_tags(new, registry=NEW) == [("Enrolled", "student")]
    assert await told() == []
    with pytest.raises(Interrupted):
        await fill_tags(new, registry=NEW, on_progress=interrupt)
    assert await lacking_tags(new, registry=NEW) == []
    assert "being given their tags student:..., up to position 4 of 12" in (await told())[0]
    assert [each.global_position for each in (await overview(new)).fillings] == [4, 4]
    await fill_tags(new, registry=NEW)
    assert (await told(), (await overview(new)).fillings) == ([], [])
    await of_old_class(old, "ada")
    assert await lacking_tags(new, registry=NEW) == [("Enrolled", "student")]


async def test_a_store_in_memory_fills_them_too(open_stores, small_pages):
    store = await open_stores("sqlite://", event_registry=OLD)
    await of_old_class(store, *["ada"] * 9)
    assert (await fill_tags(store, registry=NEW)).filled == 9
    assert len(await places(store)) == 9


@pytest.mark.slow
async def test_a_run_that_is_killed_at_any_moment_loses_nothing(old, new, shared_database_url):
    worker = f"""
import asyncio, random
from typing import Annotated
from esource import DomainEvent, EventRegistry, Tag
from esource.copying import fill_tags, tagging

class Enrolled(DomainEvent):
    student: Annotated[str, Tag("student")]
    course: str = "c"

registry = EventRegistry()
registry.register(Enrolled)
tagging.PAGE = 3
asyncio.run(fill_tags({shared_database_url!r}, registry=registry, on_progress=lambda _: print(flush=True)))
"""
    await of_old_class(old, *["ada", "bob"] * 40)
    kills, is_done = 0, False
    while not is_done:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", worker, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(kills + 1):
            await process.stdout.readline()
        if kills < 3:
            process.kill()
            kills += 1
        await process.communicate()
        is_done = process.returncode == 0
        if not is_done:
            with pytest.raises(TagsIncompleteError):
                await places(new)
    assert len(await places(new)) == 48
    assert (await verify_store(new)).findings == []

"""Many appends at once in one process: they share transactions, and each is judged by itself."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from uuid import uuid4

import pytest
from support.orders import placed, several

from esource import (
    AppendResult,
    DuplicateEventError,
    EventSourceError,
    ExpectedVersion,
    InvalidEventError,
    OptimisticLockError,
    OutboxRepository,
    ReadOptions,
)

ANY, STREAM_EXISTS = ExpectedVersion.ANY, ExpectedVersion.STREAM_EXISTS


async def all_events(store):
    return [e async for e in store.read_all()]


async def check_the_log(store, acknowledged):
    """Every acknowledged event once, nothing else, versions without holes."""
    log = await all_events(store)
    assert Counter(e.event_id for e in log) == Counter(acknowledged)
    positions = [e.global_position for e in log]
    assert positions == sorted(set(positions))
    versions: dict[str, int] = {}
    for stored in log:
        assert stored.stream_position == versions.get(stored.stream_id, 0) + 1
        versions[stored.stream_id] = stored.stream_position


async def test_appends_to_many_streams_all_succeed(store):
    batches = [several(random.randint(1, 3)) for _ in range(200)]
    results = await asyncio.gather(*(store.append_events(b[0].aggregate_id, "Order", b, 0) for b in batches))
    assert [r.new_version for r in results] == [len(b) for b in batches]
    at = {e.global_position: e.event_id for e in await all_events(store)}
    assert [at[r.global_position] for r in results] == [b[-1].event_id for b in batches]
    await check_the_log(store, [e.event_id for b in batches for e in b])


@pytest.mark.awaited
async def test_appends_to_one_stream_without_expectation_all_succeed_in_order(store):
    order = uuid4()
    batches = [several(random.randint(1, 3), order) for _ in range(200)]
    results = await asyncio.gather(*(store.append_events(order, "Order", b, ANY) for b in batches))
    assert [r.new_version for r in results] == [sum(map(len, batches[: n + 1])) for n in range(200)]
    await check_the_log(store, [e.event_id for b in batches for e in b])


async def test_of_all_that_expect_the_same_version_one_wins(store):
    order = uuid4()
    won = []
    for version in range(5):
        events = [placed(order) for _ in range(40)]
        results = await asyncio.gather(
            *(store.append_events(order, "Order", [e], version) for e in events), return_exceptions=True
        )
        winners = [e for e, r in zip(events, results, strict=True) if isinstance(r, AppendResult)]
        losers = [r for r in results if isinstance(r, OptimisticLockError)]
        assert (len(winners), len(losers)) == (1, 39)
        assert {(e.expected_version, e.actual_version) for e in losers} == {(version, version + 1)}
        won.append(winners[0].event_id)
    await check_the_log(store, won)


@pytest.mark.awaited
async def test_a_chain_of_exact_versions_in_one_batch_succeeds(store):
    order = uuid4()
    events = [placed(order) for _ in range(200)]
    results = await asyncio.gather(
        *(store.append_events(order, "Order", [e], n) for n, e in enumerate(events))
    )
    assert [r.new_version for r in results] == list(range(1, 201))
    await check_the_log(store, [e.event_id for e in events])


async def test_many_appends_that_expect_a_stale_version_all_conflict(store):
    order = uuid4()
    await store.append_events(order, "Order", several(3, order), 0)
    results = await asyncio.gather(
        *(store.append_events(order, "Order", [placed(order)], n % 3) for n in range(300)),
        return_exceptions=True,
    )
    assert {type(r) for r in results} == {OptimisticLockError}
    assert {r.actual_version for r in results} == {3}


async def test_an_append_that_fails_does_not_disturb_those_beside_it(store):
    order, taken = uuid4(), placed()
    await store.append_events(taken.aggregate_id, "Order", [taken], 0)
    stolen = taken.model_copy(update={"aggregate_id": order})
    neighbours = [placed() for _ in range(50)]
    *good, duplicate, conflict, invalid = await asyncio.gather(
        *(store.append_events(e.aggregate_id, "Order", [e], 0) for e in neighbours),
        store.append_events(order, "Order", [placed(order), stolen], ANY),
        store.append_events(taken.aggregate_id, "Order", [placed(taken.aggregate_id)], 0),
        store.append_events(order, "Order", [placed(order, metadata={"x": float("nan")})]),
        return_exceptions=True,
    )
    assert all(isinstance(r, AppendResult) for r in good)
    assert isinstance(duplicate, DuplicateEventError)
    assert isinstance(conflict, OptimisticLockError)
    assert isinstance(invalid, InvalidEventError)
    await check_the_log(store, [taken.event_id, *(e.event_id for e in neighbours)])


@pytest.mark.parametrize(
    "poison",
    [{"timestamp": "no moment"}, {"actor_id": object()}],
    ids=lambda poison: next(iter(poison)),
)
async def test_a_poisoned_append_harms_none_of_its_neighbours(store, poison):
    """Whatever the checks before the batch may miss: it fails alone, with an error."""
    bad = placed()
    encode = store.codec.encode

    def encode_poisoned(event, *stream):
        encoded = encode(event, *stream)
        return encoded._replace(**poison) if event is bad else encoded

    store.codec.encode = encode_poisoned
    good = [placed() for _ in range(10)]
    events = [*good[:5], bad, *good[5:]]
    results = await asyncio.gather(
        *(store.append_events(e.aggregate_id, "Order", [e], 0) for e in events), return_exceptions=True
    )
    assert isinstance(results.pop(5), Exception)
    assert all(isinstance(r, AppendResult) for r in results), results
    await check_the_log(store, [e.event_id for e in good])


@pytest.mark.awaited
async def test_one_event_id_in_two_streams_at_once_is_stored_in_the_first(store):
    first = placed()
    second = first.model_copy(update={"aggregate_id": uuid4()})
    follower = placed(second.aggregate_id)
    won, lost, after = await asyncio.gather(
        *(store.append_events(e.aggregate_id, "Order", [e]) for e in (first, second, follower)),
        return_exceptions=True,
    )
    assert won.new_version == after.new_version == 1
    assert isinstance(lost, DuplicateEventError)
    await check_the_log(store, [first.event_id, follower.event_id])


@pytest.mark.awaited
async def test_a_loser_gives_its_event_ids_free_for_those_behind_it(store):
    order = uuid4()
    winner, event = placed(order), placed(order)
    won, lost, retried = await asyncio.gather(
        store.append_events(order, "Order", [winner], 0),
        store.append_events(order, "Order", [event], 0),
        store.append_events(order, "Order", [event], 1),
        return_exceptions=True,
    )
    assert (won.new_version, retried.new_version, retried.idempotent) == (1, 2, False)
    assert isinstance(lost, OptimisticLockError)
    await check_the_log(store, [winner.event_id, event.event_id])


@pytest.mark.awaited
async def test_an_append_to_an_existing_stream_waits_for_its_creation_in_the_same_batch(store):
    order = uuid4()
    too_early, created, now, any_version, exact = await asyncio.gather(
        store.append_events(order, "Order", [placed(order)], STREAM_EXISTS),
        store.append_events(order, "Order", [placed(order)], 0),
        store.append_events(order, "Order", [placed(order)], STREAM_EXISTS),
        store.append_events(order, "Order", [placed(order)], ANY),
        store.append_events(order, "Order", [placed(order)], 3),
        return_exceptions=True,
    )
    assert isinstance(too_early, OptimisticLockError)
    assert [r.new_version for r in (created, now, any_version, exact)] == [1, 2, 3, 4]


async def test_all_appends_are_told_when_the_database_refuses(store):
    """An outcome for every caller: a batch that cannot be written must not leave one waiting."""
    async with store.transaction() as tx:
        await tx.connection.exec_driver_sql("DROP TABLE event_outbox")
        await tx.connection.exec_driver_sql("DROP TABLE events")
    orders = [placed() for _ in range(20)]
    results = await asyncio.gather(
        *(store.append_events(e.aggregate_id, "Order", [e]) for e in orders), return_exceptions=True
    )
    assert all(isinstance(r, EventSourceError) for r in results)


async def test_more_appends_than_the_queue_holds_wait_for_room(store, monkeypatch):
    monkeypatch.setattr("esource.log.appender.QUEUE_EVENTS", 10)
    monkeypatch.setattr("esource.log.appender.BATCH_EVENTS", 4)
    events = [placed() for _ in range(100)]
    results = await asyncio.gather(*(store.append_events(e.aggregate_id, "Order", [e], 0) for e in events))
    assert all(r.new_version == 1 for r in results)
    await check_the_log(store, [e.event_id for e in events])


async def test_appends_from_several_stores_never_share_a_version(
    shared_store, shared_database_url, open_stores
):
    stores = [shared_store, await open_stores(shared_database_url), await open_stores(shared_database_url)]
    orders = [uuid4() for _ in range(4)]
    acknowledged = []

    async def writer(store, seed):
        chance = random.Random(seed)
        for _ in range(15):
            order = chance.choice(orders)
            events = several(chance.randint(1, 3), order)
            version = await store.get_stream_version(order, "Order")
            try:
                result = await store.append_events(
                    order, "Order", events, chance.choice([version, ANY, version])
                )
            except OptimisticLockError as error:
                assert error.actual_version > error.expected_version
            else:
                assert not result.idempotent
                acknowledged.extend(e.event_id for e in events)

    await asyncio.gather(*(writer(store, n) for n in range(4) for store in stores))
    await check_the_log(shared_store, acknowledged)


async def test_every_event_of_shared_batches_gets_its_outbox_row(database_url, open_stores):
    store = await open_stores(database_url, outbox_enabled=True)
    order = uuid4()
    batches = [several(2) for _ in range(30)]
    await asyncio.gather(
        *(store.append_events(b[0].aggregate_id, "Order", b, 0) for b in batches),
        *(store.append_events(order, "Order", [placed(order)], 0) for _ in range(5)),
        return_exceptions=True,
    )
    log = await all_events(store)
    assert len(log) == 61
    rows = await OutboxRepository(store).get_pending_events(limit=1000)
    assert [(r.event_id, r.global_position) for r in rows] == [(e.event_id, e.global_position) for e in log]


async def test_a_tailing_reader_misses_nothing_that_sixteen_writers_append(
    shared_store, shared_database_url, open_stores
):
    stores = [shared_store, await open_stores(shared_database_url)]
    reader = await open_stores(shared_database_url)
    appended: set = set()
    seen: list = []
    done = asyncio.Event()

    async def write(number):
        chance = random.Random(number)
        store = stores[number % 2]
        for _ in range(20):
            events, more = several(chance.randint(1, 4)), several(chance.randint(1, 2))
            kind = chance.random()
            try:
                if kind < 0.5:
                    await store.append_events(events[0].aggregate_id, "Order", events, 0)
                    appended.update(e.event_id for e in events)
                else:
                    # On a connection of its own: its positions wait for its commit.
                    async with store.transaction() as tx:
                        await tx.append_events(events[0].aggregate_id, "Order", events, 0)
                        await tx.append_events(more[0].aggregate_id, "Order", more, 0)
                        if kind < 0.6:
                            raise RuntimeError
                    appended.update(e.event_id for e in [*events, *more])
            except RuntimeError:
                pass

    async def tail():
        position = 0
        while True:
            last_round = done.is_set()
            options = ReadOptions(from_position=position)
            async for stored in reader.read_all(options):
                assert stored.global_position > position
                position = stored.global_position
                seen.append(stored.event_id)
            if last_round:
                return
            await asyncio.sleep(0)

    tailing = asyncio.create_task(tail())
    await asyncio.gather(*(write(n) for n in range(16)))
    done.set()
    await tailing
    assert len(seen) == len(set(seen))
    assert set(seen) == appended


async def test_readers_never_see_half_of_an_append(store):
    stop = asyncio.Event()
    sizes = []

    async def watch():
        while not stop.is_set():
            sizes.append(await store.get_global_position())
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    for _ in range(10):
        events = several(300)
        await store.append_events(events[0].aggregate_id, "Order", events, 0)
        await asyncio.sleep(0)  # in memory ten appends may need no turn of the loop
    stop.set()
    await watching
    assert {size % 300 for size in sizes} == {0}


async def test_the_rollback_of_one_task_takes_nothing_from_another(store):
    """A conflict rolls back its own work only: what was acknowledged beside it stays."""
    order = uuid4()
    await store.append_events(order, "Order", [placed(order)], 0)
    kept = []

    async def good():
        event = placed()
        await store.append_events(event.aggregate_id, "Order", [event], 0)
        kept.append(event.event_id)

    async def bad():
        with pytest.raises(OptimisticLockError):
            await store.append_events(order, "Order", several(3, order), 0)

    await asyncio.gather(*(job() for _ in range(50) for job in (good, bad)))
    log = {e.event_id for e in await all_events(store)}
    assert log > set(kept)
    assert len(log) == 51


@pytest.mark.awaited
async def test_appends_that_share_a_batch_see_what_those_before_them_wrote_whatever_these_expected(store):
    order, other = uuid4(), uuid4()
    first, *rest = await asyncio.gather(
        store.append_events(other, "Order", [placed(other)]),  # is written alone, the others meanwhile wait
        store.append_events(order, "Order", several(2, order), ANY),
        store.append_events(order, "Order", [placed(order)], 2),
        store.append_events(order, "Order", [placed(order)], 3),
    )
    assert first.new_version == 1
    assert [result.new_version for result in rest] == [2, 3, 4]

"""Appends that depend on a query: nothing may have come that it selects, past what the decision knew."""

from __future__ import annotations

import asyncio
import random
from typing import Annotated
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from support.effort import examples, seed
from support.orders import OrderPlaced, placed

from esource import (
    AppendCondition,
    AppendConditionError,
    DomainEvent,
    DuplicateEventError,
    InvalidEventError,
    InvalidOptionError,
    OptimisticLockError,
    PostgreSQLEventStore,
    Query,
    QueryItem,
    ReadOptions,
    Tag,
    register_event,
)


@register_event
class NameTaken(DomainEvent):
    name: Annotated[str, Tag("name")]


@register_event
class NameReleased(DomainEvent):
    name: Annotated[str, Tag("name")]


def of_name(name: str) -> Query:
    return Query(QueryItem(types=[NameTaken], tags=[f"name:{name}"]))


async def test_an_event_has_the_tags_of_its_fields_and_those_of_its_append(store):
    order = uuid4()
    await store.append_events(order, "Order", [placed(order)], tags=["b", "a", "b"])
    await store.append([NameTaken(name="größer")], tags=["a"])
    await store.append([NameTaken(name="plain")])
    await store.append([placed(order)])
    found = [stored.tags async for stored in store.read_all()]
    assert found == [{"a", "b"}, {"name:größer", "a"}, {"name:plain"}, frozenset()]


async def test_each_event_of_a_batch_keeps_its_own_tags_or_none(store):
    order = uuid4()
    named = [NameTaken(aggregate_id=order, aggregate_type="Order", name=name) for name in ("a,\x1f", "b")]
    await store.append_events(order, "Order", [named[0], placed(order), named[1], placed(order)], 0)
    assert [stored.tags async for stored in store.read_all()] == [
        {"name:a,\x1f"}, set(), {"name:b"}, set()
    ]  # fmt: skip


async def test_what_has_come_that_the_query_selects_refuses_the_append_and_is_named(store):
    await store.append([NameTaken(name="anna")])
    first = await store.read_query(of_name("anna"))
    assert [stored.event.name for stored in first.events] == ["anna"]
    await store.append([NameReleased(name="anna")])  # of another type
    await store.append([NameTaken(name="berta")])  # of another name
    assert await store.append([NameTaken(name="anna")], condition=first.condition)

    with pytest.raises(AppendConditionError, match="NameTaken at global position 4") as caught:
        await store.append([NameTaken(name="anna")], condition=first.condition)
    assert (caught.value.global_position, caught.value.event_type, caught.value.after) == (4, "NameTaken", 1)
    assert isinstance(caught.value, OptimisticLockError)
    assert await store.get_global_position() == 4


async def test_an_append_of_no_stream_is_a_stream_of_its_own_and_repeats_its_first_answer(store):
    event = NameTaken(name="anna")
    condition = AppendCondition(of_name("anna"), 0)
    first = await store.append([event], condition=condition)
    again = await store.append([event], condition=condition)
    assert (again.global_position, again.idempotent) == (first.global_position, True)
    [stored] = [stored async for stored in store.read_all()]
    assert stored.stream_id == f"{event.event_id}:NameTaken"
    with pytest.raises(DuplicateEventError):
        await store.append([event], tags=["another"])


async def test_an_event_that_was_stored_when_its_class_declared_other_tags_repeats_its_first_answer(store):
    event = NameTaken(name="anna")
    first = await store.append([event], tags=["a"])
    for tags in ('["a"]', '["a", "user:anna"]'):
        async with store.transaction() as transaction:
            await transaction.connection.exec_driver_sql(f"UPDATE events SET tags = '{tags}'")
        again = await store.append([event], tags=["a"])
        assert (again.global_position, again.idempotent) == (first.global_position, True)
        with pytest.raises(DuplicateEventError):
            await store.append([event], tags=["a", "another"])


async def test_of_all_that_need_one_name_one_wins(store):
    condition = AppendCondition(of_name("anna"), 0)
    outcomes = await asyncio.gather(
        *(store.append([NameTaken(name="anna")], condition=condition) for _ in range(50)),
        return_exceptions=True,
    )
    lost = [outcome for outcome in outcomes if isinstance(outcome, AppendConditionError)]
    assert len(lost) == 49
    assert {error.global_position for error in lost} == {1}


async def test_queries_that_do_not_meet_never_conflict(store):
    await asyncio.gather(
        *(
            store.append([NameTaken(name=f"n{n}")], condition=AppendCondition(of_name(f"n{n}"), 0))
            for n in range(200)
        )
    )
    assert await store.get_global_position() == 200


async def test_the_version_of_the_stream_and_the_condition_both_have_to_hold(store):
    order = uuid4()
    await store.append_events(order, "Order", [placed(order)], 0)
    await store.append([NameTaken(name="anna")])
    free, taken = AppendCondition(of_name("anna"), 2), AppendCondition(of_name("anna"), 1)
    for expected, condition, error in (
        (1, taken, AppendConditionError),
        (0, free, OptimisticLockError),
        (0, taken, OptimisticLockError),
    ):
        with pytest.raises(OptimisticLockError) as caught:
            await store.append_events(order, "Order", [placed(order)], expected, condition=condition)
        assert type(caught.value) is error
    assert (await store.append_events(order, "Order", [placed(order)], 1, condition=free)).new_version == 2


async def test_streams_that_were_only_read_have_to_be_where_they_were(store):
    order, other = uuid4(), uuid4()
    await store.append_events(order, "Order", [placed(order)], 0)
    held = AppendCondition(streams={(order, "Order"): 1, (other, "Order"): 0})
    assert await store.append([NameTaken(name="a")], condition=held)
    await store.append_events(order, "Order", [placed(order)], 1)
    with pytest.raises(OptimisticLockError) as caught:
        await store.append([NameTaken(name="b")], condition=held)
    assert (caught.value.aggregate_id, caught.value.expected_version, caught.value.actual_version) == (
        order,
        1,
        2,
    )

    # In one batch, too, where the other append is not stored yet.
    held = AppendCondition(streams={(order, "Order"): 2})
    outcomes = await asyncio.gather(
        store.append([NameTaken(name="c")]),
        store.append_events(order, "Order", [placed(order)]),
        store.append([NameTaken(name="d")], condition=held),
        return_exceptions=True,
    )
    log = [stored async for stored in store.read_all()]
    moved = next(s.global_position for s in log if s.stream_id == f"{order}:Order" and s.stream_position == 3)
    d = [stored.global_position for stored in log if stored.tags == {"name:d"}]
    assert d < [moved] if d else isinstance(outcomes[2], OptimisticLockError)


async def test_what_was_rolled_back_is_in_nobodys_way(store):
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as transaction:
            await transaction.append([NameTaken(name="anna")])
            raise ZeroDivisionError
    assert await store.append([NameTaken(name="anna")], condition=AppendCondition(of_name("anna"), 0))


async def test_a_transaction_sees_what_it_has_appended_itself(store):
    async with store.transaction() as transaction:
        await transaction.append([NameTaken(name="anna")])
        with pytest.raises(AppendConditionError):
            await transaction.append([NameTaken(name="anna")], condition=AppendCondition(of_name("anna"), 0))
        found = await store.read_query(of_name("anna"))
        await transaction.append([NameTaken(name="anna")], condition=found.condition)
    assert await store.get_global_position() == 2


async def test_a_condition_that_is_ahead_of_the_log_holds(store):
    await store.append([NameTaken(name="anna")])
    assert await store.append([NameTaken(name="anna")], condition=AppendCondition(of_name("anna"), 10**12))


async def test_a_closed_stream_stays_closed_whatever_the_condition(store):
    order = uuid4()
    await store.append_events(order, "Order", [placed(order)], tags=["x"])
    await store.close_stream(order, "Order")
    with pytest.raises(Exception, match="is closed"):
        await store.append_events(
            order, "Order", [placed(order)], condition=AppendCondition(Query(QueryItem(tags=["y"])), 0)
        )


async def test_a_tenant_decides_over_its_own_events(store):
    red, blue = store.for_tenant(uuid4()), store.for_tenant(uuid4())
    condition = AppendCondition(of_name("anna"), 0)
    assert await red.append([NameTaken(name="anna")], condition=condition)
    assert await blue.append([NameTaken(name="anna")], condition=condition)
    for tenant in (red, blue):
        with pytest.raises(AppendConditionError):
            await tenant.append([NameTaken(name="anna")], condition=condition)
        order = uuid4()
        with pytest.raises(AppendConditionError):
            await tenant.append_events(order, "Order", [placed(order)], condition=condition)
        with pytest.raises(OptimisticLockError):
            held = AppendCondition(streams={(order, "Order"): 1})
            await tenant.append_events(order, "Order", [placed(order)], condition=held)
        assert len((await tenant.read_query(of_name("anna"))).events) == 1
    assert len((await store.read_query(of_name("anna"))).events) == 2


async def test_what_cannot_be_stored_is_refused_before_anything_is_written(store):
    condition = AppendCondition(of_name("anna"), 0)
    for call, error in (
        (lambda: store.append([], condition=condition), InvalidOptionError),
        (lambda: store.append([NameTaken(name="x" * 300)]), InvalidEventError),
        (lambda: store.append([NameTaken(name="x")], tags="x"), InvalidOptionError),
        (lambda: store.append([NameTaken(name="x")], tags=["nul\x00"]), InvalidOptionError),
        (lambda: store.append([NameTaken(name="x")], condition=of_name("x")), InvalidOptionError),
        (lambda: store.append([NameTaken(name="x"), placed()]), InvalidEventError),
        (lambda: store.read_query(QueryItem()), InvalidOptionError),
        (lambda: store.read_query(of_name("x"), after=-1), InvalidOptionError),
    ):
        with pytest.raises(error):
            await call()
    with pytest.raises(InvalidOptionError):
        ReadOptions(query=of_name("x"), event_types=["NameTaken"])
    assert await store.get_global_position() == 0


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_on_postgresql_a_transaction_that_cannot_judge_says_so(postgres_url, open_stores, isolation):
    store = await open_stores(postgres_url)
    engine = create_async_engine(
        postgres_url.replace("postgresql://", "postgresql+asyncpg://"), isolation_level=isolation
    )
    async with engine.connect() as connection:
        await connection.execute(text("SELECT count(*) FROM events"))
        await store.append([NameTaken(name="anna")])
        with pytest.raises(InvalidOptionError, match=f"{isolation}.*READ COMMITTED"):
            await store.append(
                [NameTaken(name="anna")], condition=AppendCondition(of_name("anna"), 0), connection=connection
            )
    await engine.dispose()
    assert await store.get_global_position() == 1


async def test_on_postgresql_a_store_whose_role_is_serializable_judges_all_the_same(postgres_url):
    engine = create_async_engine(
        postgres_url.replace("postgresql://", "postgresql+asyncpg://"),
        connect_args={"server_settings": {"default_transaction_isolation": "serializable"}},
    )
    async with PostgreSQLEventStore(engine, enable_tracing=False) as store:
        condition = AppendCondition(of_name("anna"), 0)
        assert await store.append([NameTaken(name="anna")], condition=condition)
        with pytest.raises(AppendConditionError):
            await store.append([NameTaken(name="anna")], condition=condition)
    await engine.dispose()


TYPES = ["NameTaken", "NameReleased", "OrderPlaced"]
TAGS = ["x", "y", "z", "hot"]


def drawn_query(draw: random.Random) -> Query:
    return Query(
        *(
            QueryItem(draw.sample(TYPES, draw.randint(0, 2)), draw.sample(TAGS, draw.randint(0, 3)))
            for _ in range(draw.randint(1, 4))
        )
    )


def drawn_events(draw: random.Random) -> tuple[list[DomainEvent], list[str]]:
    kind = draw.choice([NameTaken, NameReleased, OrderPlaced])
    name = draw.choice("ab")
    event = placed(uuid4()) if kind is OrderPlaced else kind(name=name)
    return [event], draw.sample(TAGS, draw.randint(0, 3))


async def test_the_database_selects_what_python_selects(store):
    draw = random.Random(seed())
    await asyncio.gather(
        *(store.append(events, tags=tags) for events, tags in (drawn_events(draw) for _ in range(60)))
    )
    log = [stored async for stored in store.read_all()]
    for _ in range(examples(20)):
        query, after = drawn_query(draw), draw.choice([0, draw.randint(0, 60), 70])
        wanted = [
            s.global_position
            for s in log
            if s.global_position > after and query.matches(s.event_type, s.tags)
        ]
        found = await store.read_query(query, after)
        assert [stored.global_position for stored in found.events] == wanted, (query, after)
        assert found.head == 60
        first = await judged(store, AppendCondition(query, after))
        assert first == (wanted[0] if wanted else None), (query, after)


async def judged(store, condition: AppendCondition) -> int | None:
    """The position of the event that is in the way; nothing is written."""
    try:
        async with store.transaction() as transaction:
            await transaction.append([NameTaken(name="judged")], condition=condition)
            raise ZeroDivisionError
    except ZeroDivisionError:
        return None
    except AppendConditionError as error:
        return error.global_position


async def test_appends_that_share_a_transaction_are_judged_in_their_order(store):
    draw = random.Random(seed())
    appends = []
    for _ in range(examples(300)):
        events, tags = drawn_events(draw)
        query = (
            None
            if draw.random() < 0.3
            else Query(
                QueryItem(draw.sample(TYPES, draw.randint(0, 1)), draw.sample(TAGS, draw.randint(1, 3)))
            )
        )
        appends.append(
            (events, tags, None if query is None else AppendCondition(query, draw.choice([0, 10, 50, 200])))
        )
    outcomes = await asyncio.gather(
        *(store.append(events, tags=tags, condition=condition) for events, tags, condition in appends),
        return_exceptions=True,
    )
    log = [stored async for stored in store.read_all()]
    assert any(isinstance(outcome, AppendConditionError) for outcome in outcomes)
    for (_, _, condition), outcome in zip(appends, outcomes, strict=True):
        if condition is None:
            assert not isinstance(outcome, Exception)
            continue
        matching = [
            s.global_position
            for s in log
            if s.global_position > condition.after and condition.query.matches(s.event_type, s.tags)
        ]
        if isinstance(outcome, AppendConditionError):
            assert outcome.global_position == matching[0]
        else:
            assert not [place for place in matching if place < outcome.global_position]

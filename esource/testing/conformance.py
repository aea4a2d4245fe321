"""What every event store must do, as tests to inherit.

    class TestMyStore(EventStoreConformance):
        @pytest_asyncio.fixture
        async def event_store(self):
            async with MyStore() as store:
                yield store

`event_store` must give an open store with no events, a new one for each test. Where the store writes an outbox
row with every event, the outbox is tested with those; else with rows added by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import Field

from esource import (
    DomainEvent,
    DuplicateEventError,
    EventStore,
    ExpectedVersion,
    InvalidEventError,
    OptimisticLockError,
    ReadDirection,
    ReadOptions,
    TenantMismatchError,
)
from esource.testing.conformance_tables import BesideTheLogConformance, Noted

ANY, NO_STREAM, STREAM_EXISTS = ExpectedVersion.ANY, ExpectedVersion.NO_STREAM, ExpectedVersion.STREAM_EXISTS
BACKWARD = ReadDirection.BACKWARD
NOON = datetime(2024, 6, 1, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


class Opened(DomainEvent):
    event_type: str = "esource.conformance.Opened"
    aggregate_type: str = "Conformance"
    text: str = "x"
    number: float = 0.5
    when: datetime = NOON
    ids: list[UUID] = Field(default_factory=list)


class Closed(DomainEvent):
    event_type: str = "esource.conformance.Closed"
    aggregate_type: str = "Conformance"


def opened(stream: UUID, **fields: Any) -> Opened:
    return Opened(aggregate_id=stream, **fields)


async def fill(store: EventStore, count: int, **fields: Any) -> UUID:
    """A new stream with the given number of events."""
    stream = uuid4()
    await store.append_events(
        stream, "Conformance", [opened(stream, **fields) for _ in range(count)], NO_STREAM
    )
    return stream


async def places(store: EventStore, **options: Any) -> list[tuple[UUID, int]]:
    """What `read_all` finds: streams and versions."""
    found = store.read_all(ReadOptions(**options))
    return [(stored.aggregate_id, stored.stream_position) async for stored in found]


class _Appending:
    @pytest.mark.parametrize(
        ("stored", "expected"),
        [(0, ANY), (2, ANY), (0, NO_STREAM), (1, STREAM_EXISTS), (2, STREAM_EXISTS), (1, 1), (3, 3)],
    )
    async def test_an_append_that_expects_what_is_there_succeeds(
        self, event_store: EventStore, stored: int, expected: int
    ) -> None:
        stream = await fill(event_store, stored) if stored else uuid4()
        result = await event_store.append_events(stream, "Conformance", [opened(stream)], expected)
        assert (result.success, result.conflict, result.idempotent) == (True, False, False)
        assert result.new_version == stored + 1 == await event_store.get_stream_version(stream, "Conformance")
        assert result.global_position == await event_store.get_global_position()

    @pytest.mark.parametrize(
        ("stored", "expected"), [(1, NO_STREAM), (0, STREAM_EXISTS), (0, 1), (3, 2), (3, 4), (3, 2**40)]
    )
    async def test_an_append_that_expects_something_else_conflicts_and_writes_nothing(
        self, event_store: EventStore, stored: int, expected: int
    ) -> None:
        stream = await fill(event_store, stored) if stored else uuid4()
        with pytest.raises(OptimisticLockError) as caught:
            await event_store.append_events(stream, "Conformance", [opened(stream), opened(stream)], expected)
        error = caught.value
        assert (error.aggregate_type, error.aggregate_id) == ("Conformance", stream)
        assert (error.expected_version, error.actual_version) == (expected, stored)
        assert await event_store.get_stream_version(stream, "Conformance") == stored

    async def test_of_appends_with_the_same_expectation_exactly_one_wins(
        self, event_store: EventStore
    ) -> None:
        stream = await fill(event_store, 1)
        outcomes = await asyncio.gather(
            *(event_store.append_events(stream, "Conformance", [opened(stream)], 1) for _ in range(10)),
            return_exceptions=True,
        )
        lost = [outcome for outcome in outcomes if isinstance(outcome, OptimisticLockError)]
        assert len(lost) == 9
        assert await event_store.get_stream_version(stream, "Conformance") == 2

    async def test_appends_of_many_tasks_are_all_there_in_order(self, event_store: EventStore) -> None:
        streams = [uuid4() for _ in range(5)]
        results = await asyncio.gather(
            *(
                event_store.append_events(stream, "Conformance", [opened(stream), opened(stream)])
                for stream in streams * 8
            )
        )
        assert len({result.global_position for result in results}) == 40
        found = await places(event_store)
        for stream in streams:
            assert [version for of, version in found if of == stream] == list(range(1, 17))
        positions = [stored.global_position async for stored in event_store.read_all()]
        assert positions == sorted(set(positions))

    async def test_events_come_back_as_they_went_in(self, event_store: EventStore) -> None:
        stream = uuid4()
        events = [
            opened(
                stream, text="Zoë \U0001f600 '\"\\", number=1e300, ids=[uuid4()], metadata={"a": [1, None]}
            ),
            Closed(aggregate_id=stream, aggregate_version=2, actor_id="Zoë", tenant_id=uuid4()),
        ]
        await event_store.append_events(stream, "Conformance", events, NO_STREAM)
        assert (await event_store.get_events(stream, "Conformance")).events == events

    async def test_the_stored_version_wins_over_the_events_own(self, event_store: EventStore) -> None:
        stream = uuid4()
        batch = [opened(stream, aggregate_version=9), opened(stream)]
        await event_store.append_events(stream, "Conformance", batch)
        found = (await event_store.get_events(stream, "Conformance")).events
        assert [event.aggregate_version for event in found] == [1, 2]

    async def test_one_event_that_cannot_be_stored_keeps_all_of_its_append_out(
        self, event_store: EventStore
    ) -> None:
        stream = uuid4()
        for bad in ({"text": "a\x00b"}, {"number": float("nan")}, {"metadata": {"thing": object()}}):
            with pytest.raises(InvalidEventError):
                await event_store.append_events(
                    stream, "Conformance", [opened(stream), opened(stream, **bad)]
                )
        await event_store.append_events(stream, "Conformance", [opened(stream)], NO_STREAM)
        assert await places(event_store) == [(stream, 1)]

    async def test_an_event_of_another_stream_is_refused(self, event_store: EventStore) -> None:
        stream = uuid4()
        with pytest.raises(InvalidEventError):
            await event_store.append_events(stream, "Conformance", [opened(stream), opened(uuid4())])
        with pytest.raises(InvalidEventError):
            await event_store.append_events(stream, "Other", [opened(stream)])
        assert await places(event_store) == []

    async def test_an_append_that_is_repeated_gives_the_first_result(self, event_store: EventStore) -> None:
        stream = uuid4()
        events = [opened(stream), opened(stream)]
        first = await event_store.append_events(stream, "Conformance", events, NO_STREAM)
        again = await event_store.append_events(stream, "Conformance", events, NO_STREAM)
        assert again.idempotent
        assert (again.new_version, again.global_position) == (first.new_version, first.global_position)
        assert len(await places(event_store)) == 2

    async def test_an_event_id_is_stored_once(self, event_store: EventStore) -> None:
        first, second = uuid4(), uuid4()
        event = opened(first)
        await event_store.append_events(first, "Conformance", [event])
        for stream, events, expected in (
            (second, [opened(second, event_id=event.event_id)], NO_STREAM),
            (first, [opened(first, event_id=event.event_id)], 1),
            (second, [opened(second, event_id=second)] * 2, ANY),
        ):
            with pytest.raises(DuplicateEventError):
                await event_store.append_events(stream, "Conformance", events, expected)
        assert await places(event_store) == [(first, 1)]

    async def test_an_empty_append_writes_nothing_and_tells_the_version(
        self, event_store: EventStore
    ) -> None:
        stream = await fill(event_store, 2)
        assert (await event_store.append_events(stream, "Conformance", [])).new_version == 2
        assert (await event_store.append_events(uuid4(), "Conformance", [])).new_version == 0


class _Reading:
    async def test_an_empty_store_has_nothing(self, event_store: EventStore) -> None:
        nobody = uuid4()
        assert await places(event_store) == await places(event_store, direction=BACKWARD) == []
        assert await event_store.get_global_position() == 0
        assert await event_store.get_stream_version(nobody, "Conformance") == 0
        assert (await event_store.get_events(nobody, "Conformance")).is_empty
        assert not await event_store.event_exists(nobody)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, [1, 2, 3, 4, 5]),
            ({"from_position": 2}, [3, 4, 5]),
            ({"from_position": 5}, []),
            ({"from_position": 2**70}, []),
            ({"limit": 2}, [1, 2]),
            ({"limit": 0}, []),
            ({"from_position": 1, "limit": 2}, [2, 3]),
            ({"direction": BACKWARD}, [5, 4, 3, 2, 1]),
            ({"direction": BACKWARD, "from_position": 4}, [3, 2, 1]),
            ({"direction": BACKWARD, "from_position": 1}, []),
            ({"direction": BACKWARD, "from_position": 2**70, "limit": 1}, [5]),
            ({"direction": BACKWARD, "limit": 2}, [5, 4]),
        ],
        ids=str,
    )
    async def test_a_read_starts_past_its_position_and_ends_at_its_limit(
        self, event_store: EventStore, options: dict[str, Any], expected: list[int]
    ) -> None:
        stream = await fill(event_store, 5)
        in_stream = event_store.read_stream(f"{stream}:Conformance", ReadOptions(**options))
        assert [stored.stream_position async for stored in in_stream] == expected
        positions = [stored.global_position async for stored in event_store.read_all()]
        if options.get("from_position", len(positions) + 1) <= len(positions):
            options = {**options, "from_position": positions[options["from_position"] - 1]}
        assert await places(event_store, **options) == [(stream, version) for version in expected]

    @pytest.mark.parametrize("direction", list(ReadDirection))
    async def test_a_long_log_is_read_whole(self, event_store: EventStore, direction: ReadDirection) -> None:
        stream = await fill(event_store, 2600)
        expected = [(stream, version) for version in range(1, 2601)]
        if direction is BACKWARD:
            expected.reverse()
        assert await places(event_store, direction=direction) == expected
        assert len((await event_store.get_events(stream, "Conformance")).events) == 2600

    async def test_a_stream_is_read_past_a_version_and_between_times(self, event_store: EventStore) -> None:
        stream = uuid4()
        events = [opened(stream, occurred_at=NOON + HOUR * hours) for hours in range(5)]
        await event_store.append_events(stream, "Conformance", events)

        async def versions(**options: Any) -> list[int]:
            found = await event_store.get_events(stream, "Conformance", **options)
            return [event.aggregate_version for event in found.events]

        assert await versions(from_version=3) == [4, 5]
        assert await versions(from_timestamp=NOON + HOUR, to_timestamp=NOON + HOUR * 3) == [2, 3, 4]
        assert (await event_store.get_events(stream, "Conformance", from_version=5)).version == 5

    async def test_conditions_choose_among_the_events(self, event_store: EventStore) -> None:
        tenant, stream = uuid4(), uuid4()
        await event_store.append_events(
            stream, "Conformance", [opened(stream), Closed(aggregate_id=stream, tenant_id=tenant)]
        )
        other = uuid4()
        await event_store.append_events(other, "Other", [opened(other, aggregate_type="Other")])
        assert await places(event_store, event_types={"esource.conformance.Closed"}) == [(stream, 2)]
        assert await places(event_store, aggregate_types=["Other"]) == [(other, 1)]
        assert await places(event_store, tenant_id=tenant) == [(stream, 2)]
        assert await places(event_store, event_types=[]) == []
        assert await places(event_store, to_timestamp=NOON) == []
        found = await event_store.get_events_by_type("Conformance")
        assert [event.aggregate_version for event in found] == [1, 2]

    async def test_a_stream_is_an_id_and_a_type(self, event_store: EventStore) -> None:
        shared = await fill(event_store, 2)
        await event_store.append_events(shared, "Other", [opened(shared, aggregate_type="Other")], NO_STREAM)
        assert await event_store.get_stream_version(shared, "Conformance") == 2
        assert await event_store.get_stream_version(shared, "Other") == 1
        assert (await event_store.get_events(shared, "Other")).version == 1

    async def test_a_stored_event_knows_its_place(self, event_store: EventStore) -> None:
        before = datetime.now(timezone.utc)
        stream = await fill(event_store, 2)
        *_, last = [stored async for stored in event_store.read_all()]
        assert (last.aggregate_id, last.aggregate_type, last.stream_position) == (stream, "Conformance", 2)
        assert last.stream_id == f"{stream}:Conformance"
        assert last.global_position == await event_store.get_global_position()
        assert abs(last.stored_at - before) < timedelta(minutes=1)
        assert await event_store.event_exists(last.event.event_id)

    async def test_an_abandoned_read_holds_nothing_up(self, event_store: EventStore) -> None:
        stream = await fill(event_store, 300)
        async with aclosing(event_store.read_all()) as found:
            async for _ in found:
                break
        assert (await event_store.append_events(stream, "Conformance", [opened(stream)], 300)).success

    async def test_a_subscription_catches_up_and_goes_on_live(self, event_store: EventStore) -> None:
        stream = await fill(event_store, 3)
        async with event_store.subscribe(poll_seconds=0.1) as subscription:
            seen = [(await subscription.__anext__()).stream_position for _ in range(3)]
            waiting = asyncio.ensure_future(subscription.__anext__())
            await event_store.append_events(stream, "Conformance", [opened(stream)])
            seen.append((await waiting).stream_position)
        assert seen == [1, 2, 3, 4]


class _Tenants:
    async def test_a_bound_store_reads_and_writes_its_tenants_events_only(
        self, event_store: EventStore
    ) -> None:
        one, other = event_store.for_tenant(uuid4()), event_store.for_tenant(uuid4())
        ours, theirs, nobodys = await fill(one, 2), await fill(other, 3), await fill(event_store, 1)
        assert await places(one) == [(ours, 1), (ours, 2)]
        assert {event.tenant_id for event in (await one.get_events(ours)).events} == {one.tenant_id}
        for foreign in (theirs, nobodys):
            assert (await one.get_events(foreign, "Conformance")).is_empty
            assert await one.get_stream_version(foreign, "Conformance") == 0
            event = (await event_store.get_events(foreign, "Conformance")).events[0]
            assert not await one.event_exists(event.event_id)

    @pytest.mark.parametrize("expected", [ANY, NO_STREAM, STREAM_EXISTS, 2])
    async def test_tenants_never_meet_in_one_stream(self, event_store: EventStore, expected: int) -> None:
        one, other = event_store.for_tenant(uuid4()), event_store.for_tenant(uuid4())
        theirs = await fill(other, 2)
        with pytest.raises(TenantMismatchError):
            await one.append_events(theirs, "Conformance", [opened(theirs)], expected)
        with pytest.raises(TenantMismatchError):
            await other.append_events(
                theirs, "Conformance", [opened(theirs, tenant_id=one.tenant_id)], expected
            )
        assert await event_store.get_stream_version(theirs, "Conformance") == 2


class _Transactions:
    async def test_what_is_done_in_a_transaction_is_there_together(self, event_store: EventStore) -> None:
        first, second = uuid4(), uuid4()
        async with event_store.transaction() as transaction:
            await transaction.append_events(first, "Conformance", [opened(first)], NO_STREAM)
            assert await event_store.get_stream_version(first, "Conformance") == 1
            result = await event_store.append_events(second, "Conformance", [opened(second)], NO_STREAM)
            await transaction.checkpoints.save_position("p", result.global_position, uuid4(), "x")
        assert await places(event_store) == [(first, 1), (second, 1)]

    async def test_an_exception_in_a_transaction_leaves_nothing_of_it(self, event_store: EventStore) -> None:
        kept, lost = await fill(event_store, 1), uuid4()
        with pytest.raises(RuntimeError, match="on purpose"):
            async with event_store.transaction() as transaction:
                await transaction.append_events(lost, "Conformance", [opened(lost)])
                await transaction.append_events(kept, "Conformance", [opened(kept)])
                raise RuntimeError("on purpose")
        assert await places(event_store) == [(kept, 1)]

    async def test_a_transaction_inside_another_fails_alone(self, event_store: EventStore) -> None:
        kept, lost = uuid4(), uuid4()
        async with event_store.transaction() as transaction:
            await transaction.append_events(kept, "Conformance", [opened(kept)])
            with pytest.raises(RuntimeError, match="on purpose"):
                async with event_store.transaction() as inner:
                    await inner.append_events(lost, "Conformance", [opened(lost)])
                    raise RuntimeError("on purpose")
        assert await places(event_store) == [(kept, 1)]

    async def test_a_conflict_leaves_the_transaction_usable(self, event_store: EventStore) -> None:
        stream = await fill(event_store, 1)
        async with event_store.transaction() as transaction:
            with pytest.raises(OptimisticLockError):
                await transaction.append_events(stream, "Conformance", [opened(stream)], NO_STREAM)
            await transaction.append_events(stream, "Conformance", [opened(stream)], 1)
        assert await event_store.get_stream_version(stream, "Conformance") == 2


@pytest.mark.asyncio
class EventStoreConformance(_Appending, _Reading, _Tenants, _Transactions, BesideTheLogConformance):
    """Inherit it in a class whose name pytest collects, and give it an `event_store` fixture."""

    @pytest.fixture
    def event_store(self) -> EventStore:
        """An open store with no events, a new one for each test."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture event_store")

    @pytest.fixture(autouse=True)
    def _conformance_events(self, event_store: EventStore) -> Iterator[None]:
        """The events of these tests, registered with the store for as long as a test runs."""
        registry = event_store.event_registry
        for event_class in (Opened, Closed, Noted):
            registry.register(event_class)
        yield
        for event_class in (Opened, Closed, Noted):
            registry.unregister(event_class.model_fields["event_type"].default)

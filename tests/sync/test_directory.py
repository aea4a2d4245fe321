"""A directory of logs without an event loop: the same names, and stores, runners and relays of this side."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from uuid import uuid4

import pytest
from support.orders import OrderPlaced, placed, several

from esource import Lease as AsynchronousLease
from esource.errors import InvalidOptionError
from esource.sync import EventStore, OutboxRelay, Projection, ProjectionRunner, handles
from esource.sync.directory import Crew, Directory

QUICK = 0.4
"""The length of a lease, in seconds."""


def options_for(url: str) -> dict[str, str]:
    return {"synchronous": "NORMAL"} if url.startswith("sqlite") else {}


@pytest.fixture
def directory(empty_database_url: str) -> Iterator[Directory]:
    with Directory(
        empty_database_url, enable_tracing=False, outbox_enabled=True, **options_for(empty_database_url)
    ) as opened:
        yield opened


def append(store: EventStore, events: int) -> None:
    batch = several(events)
    store.append_events(batch[0].aggregate_id, "Order", batch, 0)


class Told(Projection):
    """Tells which events it was given, and in which thread."""

    name = "told"
    progress = "after_event"

    def __init__(self, store: EventStore, told: Counter, enough: threading.Event, events: int) -> None:
        self.store = store
        self.told, self.enough, self.events = told, enough, events

    @handles(OrderPlaced)
    def placed(self, event, context):
        self.told[self.store.name, self.store.get_global_position(), threading.get_ident()] += 1
        if sum(self.told.values()) == self.events:
            self.enough.set()


def test_logs_are_created_listed_and_used(directory, empty_database_url):
    assert [directory.create(name).state for name in ("red", "blue")] == ["open", "open"]
    red, key = directory.log("red"), uuid4()
    assert type(red).__module__ == "esource.sync.doors"
    append(red, 3)
    directory.assign(key, "red")
    assert directory.where(key) == "red"
    assert directory.store(key).get_global_position() == red.get_global_position() == 3
    with red.transaction() as transaction:
        event = placed()
        transaction.append_events(event.aggregate_id, "Order", [event], 0)
    assert [(log.name, log.position, log.keys) for log in directory.report()] == [
        ("blue", 0, 0),
        ("red", 4, 1),
    ]
    assert [outcome.error for outcome in [*directory.upgrade(), *directory.verify()]] == [None] * 4
    with pytest.raises(InvalidOptionError, match="1 keys live in"):
        directory.drop("red", everything=False)
    directory.drop("blue")
    assert [entry.name for entry in directory.logs()] == ["red"]
    with Directory(empty_database_url) as other:
        assert other.log("red").get_global_position() == 4


def test_an_open_store_follows_its_log(directory):
    before = directory.create("red")
    red = directory.log("red")
    append(red, 2)
    place = "other.db" if directory._target.places.in_files else "?schema=other"
    directory.move("red", directory._target.places.resolve(place))
    append(red, 1)
    assert "other" in red.name
    assert len([*red.read_all()]) == 3
    assert directory.entry("red").generation == before.generation + 1


def test_a_crew_calls_plain_handlers_in_the_thread_that_runs_it(directory):
    for name in ("red", "blue"):
        directory.create(name)
        append(directory.log(name), 2)
    told, enough = Counter(), threading.Event()
    made = []

    def follow(store: EventStore) -> ProjectionRunner:
        made.append(threading.get_ident())
        return ProjectionRunner(store, Told(store, told, enough, 4), lease_seconds=QUICK)

    crew = Crew(directory, "told", follow, lease_seconds=QUICK)
    worker = threading.Thread(target=crew.run)
    worker.start()
    try:
        assert enough.wait(60)
        assert crew.logs == ["blue", "red"]
        assert {name: health.kind for name, health in crew.health().items()} == dict.fromkeys(
            ("blue", "red"), "projection"
        )
    finally:
        crew.stop()
        worker.join()
    assert set(made) == {thread for _, _, thread in told} == {worker.ident}
    assert sum(told.values()) == 4


def test_a_crew_works_in_the_background_of_a_block(directory):
    directory.create("red")
    append(directory.log("red"), 2)
    published, enough = Counter(), threading.Event()

    class Broker:
        def publish(self, message):
            published[message.event_id] += 1
            if len(published) == 2:
                enough.set()

    with Crew(directory, "relay", lambda store: OutboxRelay(store, Broker()), lease_seconds=QUICK) as crew:
        assert enough.wait(60)
        assert crew.health_now()["red"].kind == "relay"
    assert set(published.values()) == {1}


def test_a_coroutine_function_follows_a_log_on_the_asynchronous_side(directory):
    directory.create("red")
    append(directory.log("red"), 2)
    seen, enough = [], threading.Event()

    async def follow(store):
        async with (
            AsynchronousLease(store, "mailer", seconds=QUICK),
            store.subscribe(checkpoint="mailer") as events,
        ):
            async for stored in events:
                seen.append(stored.global_position)
                await events.save()
                if len(seen) == 2:
                    enough.set()

    with Crew(directory, "mailer", follow, lease_seconds=QUICK):
        assert enough.wait(60)
    assert seen == [1, 2]


def test_what_cannot_follow_a_log_is_refused(directory):
    with pytest.raises(InvalidOptionError, match="follow must be a function"):
        Crew(directory, "told", None)  # type: ignore[arg-type]

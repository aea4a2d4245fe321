"""A publisher's failures, of whatever kind, are said and counted; none of them ends the relay."""

from __future__ import annotations

import asyncio
import logging

import pytest
from support.orders import placed

from esource import OutboxRelay, OutboxRepository


class Nameless(Exception):
    def __str__(self) -> str:
        raise LookupError("no words for it")


class Sink:
    """Raises what it is told to, then takes everything."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.taken: list[str] = []

    async def publish(self, entry) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.taken.append(str(entry.event_id))


class ManySink(Sink):
    async def publish_many(self, entries) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.taken += [str(entry.event_id) for entry in entries]


@pytest.fixture
async def sending(database_url, open_stores):
    store = await open_stores(database_url, outbox_enabled=True)
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event])
    return store


@pytest.mark.parametrize("kind", [ValueError, Nameless, asyncio.CancelledError])
@pytest.mark.parametrize("sink", [Sink, ManySink])
async def test_a_failure_of_any_kind_is_said_and_tried_again(sending, sink, kind, caplog):
    publisher = sink(kind(), kind())
    relay = OutboxRelay(sending, publisher, retry_seconds=0.001, poll_seconds=0.01)
    running = asyncio.create_task(relay.run())
    while not publisher.taken:
        assert not running.done()
        await asyncio.sleep(0.001)
    relay.stop()
    await running
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 2
    assert all(kind.__name__ in text for text in said)


async def test_a_row_that_is_given_up_is_said_with_what_to_do(sending, caplog):
    relay = OutboxRelay(sending, Sink(*[ValueError("no")] * 2), max_attempts=2, retry_seconds=0.001)
    while (await OutboxRepository(sending).get_stats()).failed_count == 0:
        await relay.drain()
        await asyncio.sleep(0.001)
    [said] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "attempt 2 of 2" in said
    assert "retry_failed()" in said


async def test_a_relay_whose_sending_is_cancelled_by_somebody_else_goes_on(sending):
    class Slow(Sink):
        async def publish(self, entry) -> None:
            if not self.taken:
                self.taken.append("begun")
                await asyncio.Event().wait()
            await super().publish(entry)

    publisher = Slow()
    relay = OutboxRelay(sending, publisher, poll_seconds=0.01)
    running = asyncio.create_task(relay.run())
    while not publisher.taken:
        await asyncio.sleep(0.001)
    for task in asyncio.all_tasks() - {asyncio.current_task(), running}:
        task.cancel()
    while len(publisher.taken) < 2:
        assert not running.done()
        await asyncio.sleep(0.001)
    relay.stop()
    await running

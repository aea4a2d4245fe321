"""A relay in the background: what ends it is said, and it begins again by itself."""

from __future__ import annotations

import logging

import pytest
from support.orders import placed
from support.read_models import Journal, until
from support.relays import append, relay_of

from esource import InvalidOptionError, ProjectionRunner


async def test_a_relay_that_failed_begins_again(open_stores, shared_database_url, sink, caplog):
    writer = await open_stores(shared_database_url, outbox_enabled=True)
    store = await open_stores(shared_database_url, outbox_enabled=True)
    relay = relay_of(store, sink)
    async with relay.supervised(restart_seconds=0.01, max_restart_seconds=0.02):
        await append(writer, placed())
        await until(lambda: len(sink.entries) == 1)
        await store.close()  # whatever uses it now fails, and not because of the database

        def ends() -> list[str]:
            return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]

        await until(lambda: len(ends()) >= 2)
        assert "relay outbox has ended, and begins again in" in ends()[0]
        assert relay.health_now().failures == 0
        assert "closed" in relay.health_now().last_error
        await store.open()
        await append(writer, placed())
        await until(lambda: len(sink.entries) == 2)
        assert relay.health_now().state == "running"
        with pytest.raises(InvalidOptionError, match="at work already"):
            async with relay.supervised():
                pass
        relay.stop()
        await relay.wait()
    assert relay.health_now().state == "stopped"


@pytest.mark.parametrize("option", ["restart_seconds", "max_restart_seconds"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan"), "1", True])
async def test_a_pause_that_makes_no_sense_is_refused_by_name(store, sink, option, value):
    relay = relay_of(store, sink)
    with pytest.raises(InvalidOptionError, match=f"^{option} must be"):
        async with relay.supervised(**{option: value}):
            pass
    assert relay.health_now().state == "stopped"
    with pytest.raises(InvalidOptionError, match=f"^{option} must be"):
        ProjectionRunner(store, Journal(), **{option: value})

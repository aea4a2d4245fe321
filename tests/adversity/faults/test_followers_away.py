"""Followers whose database is away for longer than the store waits: they say so, and catch up when it is back."""

from __future__ import annotations

import logging

from support.read_models import Journal, append, rows, until

from adversity.faults.proxy import Proxy
from esource import ProjectionRunner


async def test_a_projection_says_that_its_database_is_away_while_the_store_still_waits(
    proxy: Proxy, postgres_url, open_stores, caplog
):
    caplog.set_level(logging.INFO, "esource")
    store, writer = await open_stores(proxy.url), await open_stores(postgres_url)
    store.reader.database.retry_seconds = 600.0
    journal = Journal()
    runner = ProjectionRunner(store, journal, poll_seconds=0.05)
    async with runner:
        positions = await append(writer, "a")
        await until(lambda: runner.health_now().position >= positions[-1])
        proxy._server.close()
        proxy.cut_all()
        await until(lambda: runner.health_now().unreachable is not None)
        health = await runner.health()
        assert (health.state, health.position) == ("running", positions[0])
        assert health.unreachable == runner.health_now().unreachable
        [said] = [
            record for record in caplog.records if "is tried again for up to 600 s" in record.getMessage()
        ]
        assert said.levelno == logging.WARNING
        positions += await append(writer, "b")
        await proxy.listen()
        await until(lambda: runner.health_now().position >= positions[-1])
        await until(lambda: runner.health_now().unreachable is None)
        assert "is reached again" in caplog.text
    assert await rows(writer, journal.table, "position") == positions


async def test_a_projection_outlives_an_outage_that_is_longer_than_the_store_waits(
    proxy: Proxy, postgres_url, open_stores, caplog
):
    store, writer = await open_stores(proxy.url), await open_stores(postgres_url)
    store.reader.database.retry_seconds = 0.2
    journal = Journal()
    runner = ProjectionRunner(store, journal, restart_seconds=0.05, max_restart_seconds=0.2)
    async with runner:
        positions = await append(writer, "a")

        async def caught_up() -> bool:
            return (await runner.health()).position >= positions[-1]

        await until(caught_up)
        proxy._server.close()
        proxy.cut_all()
        positions += await append(writer, "b")

        def ended() -> list[str]:
            return [
                record.getMessage()
                for record in caplog.records
                if (record.name, record.levelno) == ("esource", logging.ERROR)
            ]

        await until(lambda: len(ended()) >= 2)
        health = await runner.health()
        assert health.unreachable is not None
        assert health.position == positions[0]
        assert "projection journal has ended, and begins again" in ended()[0]
        await proxy.listen()
        await until(caught_up)
        health = await runner.health()
        assert (health.state, health.unreachable) == ("running", None)
    assert await rows(writer, journal.table, "position") == positions

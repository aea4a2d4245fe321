"""How projections and subscriptions are doing: for a program, and as metrics."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from support.read_models import Journal, append, catch_up, running, until

from esource import EventStore, ProjectionFailedError, ProjectionRunner
from esource import telemetry as health
from esource.telemetry import RATE_SECONDS, FollowerStats


@pytest.fixture
def reader(monkeypatch):
    """Collects what one test measures, without touching the provider of the process."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(metrics, "get_meter", provider.get_meter)
    health._register.cache_clear()
    yield reader
    health._register.cache_clear()
    provider.shutdown()


def measured(reader: InMemoryMetricReader) -> dict[tuple[str, str], float]:
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        (metric.name, point.attributes["esource.name"]): point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


async def test_a_projections_health_says_how_far_behind_it_is(store: EventStore):
    await append(store, *"abc")
    journal = Journal()
    runner = ProjectionRunner(store, journal)
    before = await runner.health()
    assert (before.position, before.lag_events, before.events_processed) == (0, 3, 0)
    assert before.lag_seconds > 0
    await runner.run(live=False)
    after = await runner.health()
    assert (after.kind, after.name, after.is_running) == ("projection", "journal", False)
    assert (after.position, after.lag_events, after.lag_seconds) == (3, 0, 0.0)
    assert (after.events_processed, after.failures, after.last_error) == (3, 0, None)
    assert after.events_per_second > 0
    async with running(runner):
        await until(lambda: runner._job.stats.is_running)
        assert (await runner.health()).is_running


async def test_only_handled_events_count_as_lag(store: EventStore):
    from uuid import uuid4

    from support.read_models import ship

    stream = uuid4()
    runner = await catch_up(store, Journal())
    await append(store, "a", stream=stream)
    await ship(store, stream)
    assert (await runner.health()).lag_events == 1


async def test_a_projections_health_tells_its_last_error(store: EventStore):
    await append(store, "bad")
    journal = Journal()
    journal.bad = {"bad"}
    runner = ProjectionRunner(store, journal)
    with pytest.raises(ProjectionFailedError):
        await runner.run(live=False)
    found = await runner.health()
    assert found.failures == 3
    assert found.last_error == "ValueError: cannot stand bad"
    assert found.last_error_at is not None
    assert found.lag_events == 1


async def test_a_projection_that_another_worker_keeps_is_well(shared_database_url, open_stores):
    stores = [await open_stores(shared_database_url) for _ in range(2)]
    await append(stores[0], *"abc")
    await catch_up(stores[0], Journal(), partitions=3)
    found = await ProjectionRunner(stores[1], Journal(), partitions=3).health()
    assert (found.position, found.lag_events, found.events_processed) == (3, 0, 0)


async def test_a_subscriptions_health_says_how_far_behind_it_is(store: EventStore):
    await append(store, *"abc")
    async with store.subscribe(checkpoint="reader") as subscription:
        await anext(aiter(subscription))
        found = await subscription.health()
        assert (found.kind, found.name, found.is_running) == ("subscription", "reader", True)
        assert (found.position, found.lag_events, found.events_processed) == (1, 2, 1)
        assert found.lag_seconds > 0
    assert not (await subscription.health()).is_running


async def test_metrics_follow_what_runs(reader, database_url, open_stores):
    store = await open_stores(database_url, enable_tracing=True)
    await append(store, *"abcd")
    journal = Journal()
    async with running(ProjectionRunner(store, journal)):
        await until(lambda: len(journal.calls) == 4)
        async with store.subscribe(checkpoint="reader") as subscription:
            await anext(aiter(subscription))
            await until(lambda: measured(reader).get(("esource.events", "journal")) == 4)
            found = measured(reader)
    assert found["esource.position", "journal"] == 4
    assert found["esource.lag.events", "journal"] == 0
    assert found["esource.lag.seconds", "journal"] == 0
    assert found["esource.failures", "journal"] == 0
    assert found["esource.position", "reader"] == 1
    assert found["esource.lag.events", "reader"] == 3
    assert found["esource.lag.seconds", "reader"] > 0
    assert found["esource.events", "reader"] == 1
    assert measured(reader) == {}  # nothing runs any more


async def test_failures_are_counted(reader, database_url, open_stores):
    class Skipping(Journal):
        name = "skipping"
        on_failure = "skip"

    store = await open_stores(database_url, enable_tracing=True)
    await append(store, "bad", "a")
    skipping = Skipping()
    skipping.bad = {"bad"}
    async with running(ProjectionRunner(store, skipping)):
        await until(lambda: skipping.calls[-1:] == ["a"])
        await until(lambda: measured(reader).get(("esource.events", "skipping")) == 2)
        assert measured(reader)["esource.failures", "skipping"] == 3


async def test_nothing_is_measured_when_tracing_is_off(reader, store: EventStore):
    async with running(ProjectionRunner(store, Journal())):
        await append(store, "a")
        assert measured(reader) == {}


def test_without_the_extra_nothing_of_opentelemetry_is_imported():
    program = """
import sys
sys.modules["opentelemetry"] = None
from esource.telemetry import FollowerStats
with FollowerStats("projection", "p").running(metrics=True):
    pass
assert not [name for name in sys.modules if name.startswith("opentelemetry.")]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_was_handled_long_ago_does_not_count_as_speed(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stats = FollowerStats("projection", "p")
    stats.advance(600, 600)
    assert stats.events_per_second == 600 / RATE_SECONDS
    now += RATE_SECONDS + 1
    assert (stats.events_per_second, stats.events) == (0, 600)

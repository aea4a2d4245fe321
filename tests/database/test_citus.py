"""A log in a distributed schema of a Citus cluster. nox's session `citus` runs these.

They were written without a cluster at hand: what fails here first may be the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from sqlalchemy.engine import URL, make_url
from support.orders import placed, several
from support.schemas import execute, rows

from esource import EventStore, OptimisticLockError
from esource.schema import distribution
from esource.tables.names import LOCK_TABLE, OUR_TABLES
from esource.testing import EventStoreConformance
from esource.testing.server import apart, on_server

OPTIONS = {"append_lock": "row", "notify": False, "outbox_enabled": True}
"""What a distributed log needs: a sequence has the number of its node in it, and no transaction of several nodes may NOTIFY."""


@pytest.fixture(scope="module")
def log_url(citus: URL) -> Iterator[str]:
    """The URL of a log that lies on one node of the cluster."""
    name = f"log_{uuid4().hex}"
    url = citus.update_query_dict({"schema": name}).render_as_string(hide_password=False)
    try:
        apart(lambda: distribution.distribute(url))
        yield url
    finally:
        on_server(citus, f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.fixture
async def distributed(log_url: str) -> str:
    """The same, empty again."""
    name = make_url(log_url).query["schema"]
    tables = ", ".join(f"{name}.{table}" for table in OUR_TABLES)
    await execute(log_url, f"TRUNCATE {tables}", f"UPDATE {name}.{LOCK_TABLE} SET last_position = 0")
    return log_url


@pytest.fixture
async def log(distributed: str, open_stores) -> AsyncIterator[EventStore]:
    return await open_stores(distributed, **OPTIONS)


@pytest.mark.usefixtures("citus")
class TestDistributed(EventStoreConformance):
    @pytest.fixture
    async def event_store(self, log: EventStore) -> EventStore:
        return log


async def test_many_writers_leave_positions_without_holes_and_a_follower_sees_all(
    distributed: str, log: EventStore, open_stores
):
    stores = [log, await open_stores(distributed, **OPTIONS)]
    seen = []

    async def follow() -> None:
        async with log.subscribe(0, poll_seconds=0.02) as subscription:
            async for stored in subscription:
                seen.append(stored.global_position)
                if len(seen) == 200:
                    return

    async def work(store: EventStore) -> None:
        for _ in range(10):
            events = several(2)
            await store.append_events(events[0].aggregate_id, "Order", events, 0)
            with pytest.raises(OptimisticLockError):
                await store.append_events(
                    events[0].aggregate_id, "Order", [placed(events[0].aggregate_id)], 1
                )

    await asyncio.gather(follow(), *(work(store) for store in stores for _ in range(5)))
    assert seen == list(range(1, 201))


async def test_a_log_goes_on_where_it_was_after_it_has_moved_to_another_node(
    distributed: str, log: EventStore
):
    name = make_url(distributed).query["schema"]
    database = make_url(distributed).difference_update_query(["schema"]).render_as_string(hide_password=False)
    for expected in (1, 2):
        event = placed()
        result = await log.append_events(event.aggregate_id, "Order", [event], 0)
        assert result.global_position == expected
        nodes = await rows(
            database,
            "SELECT nodename, nodeport FROM pg_dist_node WHERE shouldhaveshards AND (nodename, nodeport) NOT IN (SELECT "
            f"nodename, nodeport FROM citus_shards WHERE table_name = '{name}.events'::regclass)",
        )
        if nodes:  # a cluster of one node has no other
            await execute(database, f"SELECT citus_schema_move('{name}', '{nodes[0][0]}', {nodes[0][1]})")

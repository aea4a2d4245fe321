"""A PostgreSQL server that is killed while everybody works: nothing acknowledged is gone, nobody misses anything."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy.engine import make_url
from support.effort import examples
from support.orders import several
from support.tally import Tally, chance

from adversity.faults.cluster import Cluster, own_cluster
from adversity.faults.crew import Crew
from adversity.faults.proxy import Proxy
from esource.copying import copy, log, rows, verify_copy
from esource.testing.server import new_database


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with own_cluster() as running:
        yield running


async def until_more(crew: Crew, count: int) -> None:
    """Until so many events more are acknowledged, so that each disaster has work to strike."""
    goal = len(crew.acknowledged) + count
    while len(crew.acknowledged) < goal:
        await asyncio.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("disaster", ["kill", "restart"])
async def test_nothing_is_lost_when_the_server_dies_and_comes_back(cluster: Cluster, open_stores, disaster):
    fault = {"kill": "SIGKILL of a server process", "restart": "immediate shutdown and restart"}[disaster]
    with new_database(cluster.url) as url:
        crew = Crew(await open_stores(url, outbox_enabled=True), Tally(fault, "postgresql"))

        async def strike() -> None:
            for _ in range(examples(2)):
                await until_more(crew, 40)
                if disaster == "restart":
                    await cluster.restart()
                    crew.tally.injected += 1
                else:
                    crew.tally.injected += await cluster.kill_backend(str(make_url(url).database))
            await until_more(crew, 40)

        await crew.work_through(strike)
        crew.tally.conclude()


@pytest.mark.awaited
async def test_a_copy_that_returned_is_whole_after_the_server_was_stopped_at_once(
    cluster: Cluster, sqlite_url, open_stores, monkeypatch
):
    """Only the last of its transactions waits for the disk."""
    monkeypatch.setattr(log, "CHUNK_EVENTS", 40)
    monkeypatch.setattr(log, "FIRST_PAGE", 8)
    monkeypatch.setattr(rows, "PAGE_ROWS", 16)
    source = await open_stores(sqlite_url)
    tally = Tally("immediate shutdown behind a copy", "sqlite to postgresql")
    for _ in range(examples(3)):
        for _ in range(4):
            [first, *_] = events = several(50)
            await source.append_events(first.aggregate_id, "Order", events, 0)
        with new_database(cluster.url) as url:
            copied = await copy(source, url)
            await cluster.restart()
            tally.injected += 1
            tally.written += copied.events
            assert (await verify_copy(source, url)).differences == []
    tally.conclude()


@pytest.mark.slow
async def test_nothing_is_lost_on_a_network_that_breaks_at_any_moment(proxy: Proxy, open_stores):
    """Without regard for what is under way: the moments are drawn."""
    draw = chance("storm")
    impatient = {"connect_args": {"timeout": 2.0, "command_timeout": 2.0}}
    crew = Crew(
        await open_stores(proxy.url, outbox_enabled=True, **impatient), Tally("network storm", "postgresql")
    )
    triggers = [b"COMMIT\0", b"c-1", b"lease_until", b"claimed_until", b"global_position", b"journal"]

    async def strike() -> None:
        for _ in range(examples(8)):
            await until_more(crew, draw.randint(3, 15))
            harm = draw.choice(["cut", "cut", "hole", "all"])
            if harm == "all":
                proxy.cut_all()
            else:
                proxy.arm(draw.choice(triggers), draw.choice(["before", "after", "middle"]), harm)
            crew.tally.injected += 1
        await until_more(crew, 20)

    await crew.work_through(strike)
    crew.tally.conclude()

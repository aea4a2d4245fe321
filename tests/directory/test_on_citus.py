"""A directory whose logs are distributed schemas of a Citus cluster. nox's session `citus` runs these."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from sqlalchemy.engine import URL
from support.commands import esource
from support.orders import OrderPlaced, placed
from support.read_models import until
from support.schemas import execute, rows

from esource import EventStore, Projection, ProjectionRunner, handles, open_store, schema
from esource.directory import Crew, Directory
from esource.errors import InvalidOptionError
from esource.schema import distribution

OPTIONS = {"append_lock": "row", "notify": False}


@pytest.fixture
def coordinator(citus: URL) -> str:
    return citus.render_as_string(hide_password=False)


@pytest.fixture
async def names(coordinator: str) -> AsyncIterator[list[str]]:
    """Names of schemas that nobody else uses: the directory's, and those of logs. They are dropped in the end."""
    made = [f"esource_{uuid4().hex[:12]}" for _ in range(4)]
    yield made
    for name in made:
        await execute(coordinator, f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.fixture
async def url(citus: URL, names: list[str]) -> str:
    """The URL of a directory in a schema of its own."""
    await execute(citus.render_as_string(hide_password=False), f"CREATE SCHEMA {names[0]}")
    return citus.update_query_dict({"schema": names[0]}).render_as_string(hide_password=False)


@pytest.fixture
async def directory(url: str, names: list[str]) -> AsyncIterator[Directory]:
    async with Directory(url, **OPTIONS) as directory:
        for name in names[1:]:
            await directory.create(name)
        outcomes = await directory.distribute()
        assert [outcome.error for outcome in outcomes] == [None, None, None]
        yield directory


async def all_of(store: EventStore) -> list[tuple[int, object]]:
    return [(stored.global_position, stored.event_id) async for stored in store.read_all()]


async def move(coordinator: str, log: str) -> None:
    """Let Citus move a log to another node, if there is one."""
    others = await rows(
        coordinator,
        "SELECT nodename, nodeport FROM pg_dist_node WHERE shouldhaveshards AND (nodename, nodeport) NOT IN "
        f"(SELECT nodename, nodeport FROM citus_shards WHERE table_name = '{log}.events'::regclass)",
    )
    for host, port in others[:1]:
        await execute(coordinator, f"SELECT citus_schema_move('{log}', '{host}', {port}, 'block_writes')")


NODES = "SELECT nodename, nodeport FROM pg_dist_node WHERE shouldhaveshards"


async def nodes_of(coordinator: str, logs: list[str]) -> set[tuple[str, int]]:
    """The nodes that have these logs."""
    found = "SELECT nodename, nodeport FROM citus_shards WHERE table_name = '{}.events'::regclass"
    return {tuple(row) for log in logs for row in await rows(coordinator, found.format(log))}


async def gather_on_one_node(coordinator: str, logs: list[str]) -> None:
    [(host, port), *_] = await nodes_of(coordinator, logs)
    for log in logs:
        if (host, port) not in await nodes_of(coordinator, [log]):
            await execute(coordinator, f"SELECT citus_schema_move('{log}', '{host}', {port}, 'block_writes')")
    assert await nodes_of(coordinator, logs) == {(host, port)}


@asynccontextmanager
async def written_and_followed(directory: Directory, logs: list[str]):
    """While the block runs, two writers and a follower work with each log. In the end each log holds what was written, and the
    follower has seen it once, in order and without holes."""
    written: dict[str, list[tuple[int, object]]] = {log: [] for log in logs}
    seen: dict[str, list[tuple[int, object]]] = {log: [] for log in logs}
    stop = asyncio.Event()

    async def write(log: str) -> None:
        store = await directory.log(log)
        while not stop.is_set():
            event = placed()
            result = await store.append_events(event.aggregate_id, "Order", [event], 0)
            written[log].append((result.global_position, event.event_id))

    async def follow(log: str) -> None:
        async for stored in (await directory.log(log)).subscribe(poll_seconds=0.05):
            seen[log].append((stored.global_position, stored.event_id))

    writers = [asyncio.create_task(write(log)) for log in [*logs, *logs]]
    followers = [asyncio.create_task(follow(log)) for log in logs]
    await until(lambda: all(len(written[log]) > 10 for log in logs))
    yield written
    counts = {log: len(written[log]) for log in logs}
    await until(lambda: all(len(written[log]) > counts[log] + 10 for log in logs))
    stop.set()
    await asyncio.gather(*writers)
    await until(lambda: all(len(seen[log]) >= len(written[log]) for log in logs))
    for follower in followers:
        follower.cancel()
    await asyncio.wait(followers)
    for log in logs:
        assert seen[log] == sorted(written[log]) == await all_of(await directory.log(log))
        assert [position for position, _ in seen[log]] == list(range(1, len(seen[log]) + 1))


@pytest.mark.usefixtures("citus")
async def test_logs_that_move_between_nodes_while_they_are_written_to_lose_and_skip_nothing(
    directory: Directory, names: list[str], coordinator: str
):
    async with written_and_followed(directory, names[1:]):
        for log in names[1:]:
            await move(coordinator, log)
    assert [outcome.error for outcome in await directory.verify()] == [None, None, None]


@pytest.mark.usefixtures("citus")
@pytest.mark.parametrize("mode", ["block_writes", "force_logical"])
async def test_a_rebalancing_while_logs_are_written_to_loses_and_skips_nothing(
    directory: Directory, names: list[str], coordinator: str, mode: str
):
    await gather_on_one_node(coordinator, names[1:])
    async with written_and_followed(directory, names[1:]):
        await execute(coordinator, f"SELECT citus_rebalance_start(shard_transfer_mode => '{mode}')")
        await execute(coordinator, "SELECT citus_rebalance_wait()")
    assert len(await nodes_of(coordinator, names[1:])) == min(2, len(await rows(coordinator, NODES)))
    assert [outcome.error for outcome in await directory.verify()] == [None, None, None]


@pytest.mark.usefixtures("citus")
async def test_nodes_that_die_and_come_back_lose_and_skip_nothing(
    directory: Directory, names: list[str], coordinator: str
):
    """A process of a server that is killed with SIGKILL takes all of that server with it; it starts again from its WAL."""
    async with written_and_followed(directory, names[1:]):
        await execute(
            coordinator, "SELECT run_command_on_workers($$ COPY (SELECT) TO PROGRAM 'kill -9 $PPID' $$)"
        )
    assert [outcome.error for outcome in await directory.verify()] == [None, None, None]


class Told(Projection):
    """Tells which events of which log it was given."""

    name = "told"
    progress = "after_event"

    def __init__(self, log: str, told: Counter) -> None:
        self.log = log
        self.told = told

    @handles(OrderPlaced)
    async def placed(self, event, context):
        self.told[self.log, context.position] += 1


@pytest.mark.usefixtures("citus")
async def test_a_crew_reads_each_event_of_distributed_logs_once(directory: Directory, names: list[str]):
    logs = names[1:]
    for log in [*logs] * 5:
        event = placed()
        await (await directory.log(log)).append_events(event.aggregate_id, "Order", [event], 0)
    told: Counter = Counter()
    async with Crew(directory, "told", lambda store: ProjectionRunner(store, Told(store.name, told))):
        await until(lambda: sum(told.values()) >= 15)
    assert sorted(told.values()) == [1] * 15
    assert [log.behind for log in await directory.report()] == [0, 0, 0]


@pytest.mark.usefixtures("citus")
async def test_the_command_line_distributes_logs_and_works_on_them(url: str, names: list[str]):
    log = names[1]
    assert (await esource("logs", "create", log, "--url", url)).exit_code == 0
    for said in ("was distributed", "is distributed already"):
        done = await esource("logs", "distribute", log, "--url", url)
        assert (done.exit_code, said in done.stdout) == (0, True), done.stderr
    for command in ("list", "upgrade", "verify"):
        done = await esource("logs", command, "--url", url)
        assert done.exit_code == 0, done.stdout + done.stderr
    async with Directory(url, **OPTIONS) as directory:
        event = placed()
        await (await directory.log(log)).append_events(event.aggregate_id, "Order", [event], 0)
    done = await esource("logs", "drop", log, "--yes", "--url", url)
    assert done.exit_code != 0
    done = await esource("logs", "drop", log, "--yes", "--everything", "--url", url)
    assert done.exit_code == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("citus")
async def test_a_log_of_another_server_comes_to_the_cluster_with_its_events(
    citus: URL, names: list[str], postgres_url: str
):
    there = citus.update_query_dict({"schema": names[1]}).render_as_string(hide_password=False)
    async with open_store(postgres_url) as store:
        for _ in range(3):
            event = placed()
            await store.append_events(event.aggregate_id, "Order", [event], 0)
        expected = await all_of(store)
    await distribution.distribute(there)
    for command in ("copy", "cut-over"):
        done = await esource(command, postgres_url, there)
        assert done.exit_code == 0, done.stdout + done.stderr
    async with open_store(there, **OPTIONS) as store:
        event = placed()
        result = await store.append_events(event.aggregate_id, "Order", [event], 0)
        assert await all_of(store) == [*expected, (4, event.event_id)]
        assert result.global_position == 4


@pytest.mark.usefixtures("citus")
async def test_a_log_that_was_distributed_at_an_older_schema_is_upgraded(
    citus: URL, coordinator: str, names: list[str]
):
    there = citus.update_query_dict({"schema": names[1]}).render_as_string(hide_password=False)
    await schema.upgrade(there, "0003")
    await execute(coordinator, f"SELECT citus_schema_distribute('{names[1]}')")
    await schema.upgrade(there)
    assert await distribution.is_distributed(there)


@pytest.mark.usefixtures("citus")
async def test_stores_with_other_options_are_refused(url: str):
    async with Directory(url) as directory:
        with pytest.raises(InvalidOptionError, match="append_lock='row', notify=False"):
            await directory.distribute()

"""Looking at a store from the command line, and what that leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from contextlib import closing
from datetime import timedelta
from uuid import uuid4

import pytest
from support.commands import esource
from support.orders import placed, several

from esource import (
    CheckpointRepository,
    DLQRepository,
    EventStore,
    OutboxRepository,
    SQLiteEventStore,
    schema,
)
from esource.database.sources import database_of
from esource.moments import utc_now


@pytest.fixture
async def order(shared_store: EventStore):
    [first, *_] = events = several(3, tenant_id=uuid4())
    await shared_store.append_events(first.aggregate_id, "Order", events, 0)
    other = placed()
    await shared_store.append_events(other.aggregate_id, "Order", [other], 0)
    return first


async def test_info_shows_counts_sizes_and_lag(order, shared_store, shared_database_url):
    await CheckpointRepository(shared_store).save_position("totals", 1, order.event_id, "OrderPlaced")
    done = await esource("info", "--url", shared_database_url, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert (said["events"], said["global_position"], said["streams"]) == (4, 4, {"Order": 2})
    assert sum(row["events"] for row in said["types"]) == 4
    assert [(row["projection_name"], row["lag_events"]) for row in said["projections"]] == [("totals", 3)]
    assert said["sizes"][0]["bytes"] > 0
    is_server = shared_database_url.startswith("postgresql")
    assert bool(said["indexes"]) is is_server
    done = await esource("info", "--url", shared_database_url)
    for word in ("totals", "2 Order", "PostgreSQL" if is_server else "SQLite", "schema"):
        assert word in done.stdout


async def test_streams_and_events_are_shown(order, shared_database_url):
    url = ("--url", shared_database_url)
    stream = f"{order.aggregate_id}:Order"
    listed = json.loads((await esource("streams", *url, "--json")).stdout)
    assert [row["version"] for row in listed] == [1, 3]
    assert json.loads((await esource("streams", *url, "--json", "--type", "Parcel")).stdout) == []
    assert stream in (await esource("streams", *url, "--type", "Order", "--limit", 2)).stdout
    shown = json.loads((await esource("show", stream, *url, "--json", "--from", 1)).stdout)
    assert [event["version"] for event in shown] == [2, 3]
    done = await esource("show", stream, *url)
    assert done.stdout.count("customer_id") == 3
    done = await esource("show", stream, *url, "--from", 3)
    assert (done.exit_code, done.stdout) == (0, "")  # there is a stream, and nothing past that
    done = await esource("event", order.event_id, *url, "--json")
    assert json.loads(done.stdout)["stream_id"] == stream
    assert str(order.tenant_id) in (await esource("event", order.event_id, *url)).stdout
    for wrong, code in (
        (("event", uuid4()), 4),
        (("show", f"{uuid4()}:Order"), 4),
        (("event", "x"), 2),
        (("show", "x"), 2),
    ):
        done = await esource(*wrong, *url)
        assert (done.exit_code, done.stdout) == (code, "")
        assert done.stderr.startswith("Error: ")
        assert done.stderr.count("\n") == 1


async def test_tail_shows_the_last_events_and_takes_filters(order, shared_database_url):
    url = ("--url", shared_database_url, "--json")

    async def positions(*options: object) -> list[int]:
        done = await esource("tail", *url, *options)
        assert done.exit_code == 0, done.stderr
        return [json.loads(line)["global_position"] for line in done.stdout.splitlines()]

    assert await positions() == [1, 2, 3, 4]
    assert await positions("--limit", 2) == [3, 4]
    assert await positions("--from", 1) == [2, 3, 4]
    assert await positions("--from", 1, "--limit", 1) == [2]
    assert await positions("--tenant", order.tenant_id) == [1, 2, 3]
    assert await positions("--type", "OrderPlaced") == [1, 2, 3, 4]
    assert await positions("--type", "OrderShipped") == []
    assert await positions("--aggregate-type", "Parcel") == []
    done = await esource("tail", "--url", shared_database_url, "--limit", 1)
    assert "OrderPlaced" in done.stdout
    assert done.stdout.count("\n") == 1
    assert await positions("--limit", 2, "--follow") == [3, 4]  # enough is there already


@pytest.mark.slow
async def test_tail_shows_the_events_with_a_tag_and_the_tags_of_an_event(shared_store, shared_database_url):
    for tags in (["red", "big"], ["red"], [], ["red", "big"]):
        event = placed()
        await shared_store.append([event], tags=tags)
    url = ("--url", shared_database_url, "--json")
    for options, wanted in (
        (["--tag", "red"], [1, 2, 4]),
        (["--tag", "red", "--tag", "big"], [1, 4]),
        (["--tag", "red", "--limit", 2], [2, 4]),
        (["--tag", "red", "--from", 1], [2, 4]),
        (["--tag", "red", "--type", "OrderShipped"], []),
    ):
        done = await esource("tail", *url, *options)
        assert done.exit_code == 0, done.stderr
        assert [json.loads(line)["global_position"] for line in done.stdout.splitlines()] == wanted
    done = await esource("event", event.event_id, "--url", shared_database_url)
    assert "big, red" in done.stdout


@pytest.mark.slow
async def test_tail_follows_what_other_processes_append(order, shared_store, shared_database_url):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "esource", "tail", "--follow", "--json", "--limit", "6",
        "--url", shared_database_url, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    seen = [json.loads(await process.stdout.readline())["global_position"] for _ in range(4)]
    for _ in range(2):
        event = placed()
        await shared_store.append_events(event.aggregate_id, "Order", [event], 0)
        seen.append(json.loads(await process.stdout.readline())["global_position"])
    assert seen == [1, 2, 3, 4, 5, 6]
    assert await process.wait() == 0


async def test_doctor_finds_what_is_amiss_and_names_the_remedy(order, shared_store, shared_database_url):
    url = ("--url", shared_database_url)
    done = await esource("doctor", *url, "--json")
    healthy = json.loads(done.stdout)
    if shared_database_url.startswith("postgresql"):  # the tests' own server runs without fsync
        healthy = [row for row in healthy if not row["problem"].startswith("fsync is off")]
    else:
        assert "nothing to mend" in (await esource("doctor", *url)).stdout
        assert done.exit_code == 0
    assert healthy == []
    letters, outbox = DLQRepository(shared_store), OutboxRepository(shared_store)
    await letters.add_failed_event(order.event_id, "totals", "OrderPlaced", {}, ValueError("x"))
    await outbox.mark_failed(await outbox.add_event(order), "no broker")
    await CheckpointRepository(shared_store).save_position("slow", 0, order.event_id, "OrderPlaced")
    old = (utc_now() - timedelta(hours=1)).isoformat()
    await database_of(shared_store).run_script(
        ["DROP INDEX idx_events_timestamp", f"UPDATE events SET created_at = '{old}'"]
    )
    done = await esource("doctor", *url, "--json")
    assert done.exit_code == 1
    said = {row["problem"]: row["remedy"] for row in json.loads(done.stdout)}
    for word, remedy in (
        ("missing index idx_events_timestamp", "CREATE INDEX"),
        ("totals has 1 dead letters", "dlq list"),
        ("1 outbox rows were given up", "outbox retry"),
        ("slow is 4 events behind", "projections reset slow"),
    ):
        [(problem, mended)] = [(p, r) for p, r in said.items() if word in p]
        assert remedy in mended, problem
    shown = (await esource("doctor", *url)).stdout.splitlines()
    [command] = [line for line in shown if "CREATE INDEX idx_events_timestamp" in line]
    await database_of(shared_store).run_script([command])
    assert "idx_events_timestamp" not in (await esource("doctor", *url)).stdout


async def test_doctor_does_not_take_a_sqlite_file_that_may_only_be_read_for_one_in_another_mode(
    tmp_path, monkeypatch
):
    file = tmp_path / "events.db"
    async with SQLiteEventStore(file) as store:
        await store.initialize()
    # Permissions do not bind every user that tests run as.
    monkeypatch.setattr(os, "access", lambda *_: False)
    done = await esource("doctor", "--url", file)
    assert (done.exit_code, done.stdout) == (0, f"SQLite database {file}: nothing to mend.\n")


async def test_doctor_sees_missing_tables_and_an_outbox_that_nobody_relays(
    order, shared_store, shared_database_url, tmp_path
):
    with closing(sqlite3.connect(tmp_path / "theirs.db")) as theirs:
        theirs.execute("CREATE TABLE theirs (id INTEGER)")
    done = await esource("doctor", "--url", tmp_path / "theirs.db")
    assert done.exit_code == 1
    assert f"the schema is missing, not {schema.HEAD}" in done.stdout
    assert "esource init" in done.stdout
    await OutboxRepository(shared_store).add_event(order)
    old = (utc_now() - timedelta(hours=1)).isoformat()
    await database_of(shared_store).run_script([f"UPDATE event_outbox SET created_at = '{old}'"])
    done = await esource("doctor", "--url", shared_database_url)
    assert done.exit_code == 1
    assert "1 outbox rows wait, the first since" in done.stdout
    assert "esource outbox relay" in done.stdout


async def test_a_store_that_has_moved_says_where_to(order, shared_database_url, tmp_path):
    url, target = ("--url", shared_database_url), tmp_path / "target.db"
    assert json.loads((await esource("info", *url, "--json")).stdout)["moved_to"] is None
    assert "moved to" not in (await esource("info", *url)).stdout
    moved = await esource("cut-over", shared_database_url, target)
    assert moved.exit_code == 0, moved.stderr
    said = json.loads((await esource("info", *url, "--json")).stdout)
    assert said["moved_to"] == f"SQLite database {target}"
    for command in ("info", "doctor"):
        done = await esource(command, *url)
        assert str(target) in done.stdout, command
        assert "`esource reopen`" in done.stdout, command
    assert done.exit_code == 1
    await esource("reopen", *url)
    assert "has moved to" not in (await esource("doctor", *url)).stdout


@pytest.mark.parametrize(("column", "value"), [("timestamp", "yesterday"), ("payload", "{broken")])
async def test_an_event_that_cannot_be_read_is_named_on_sqlite(tmp_path, column, value):
    """PostgreSQL has no such rows: its types refuse them."""
    order, file = placed(), tmp_path / "damaged.db"
    async with SQLiteEventStore(file) as store:
        await store.initialize()
        await store.append_events(order.aggregate_id, "Order", [order], 0)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        connection.execute(f"UPDATE events SET {column} = ?", [value])
        connection.commit()
    stream = f"{order.aggregate_id}:Order"
    for command in (["tail", "--json"], ["show", stream], ["event", order.event_id]):
        done = await esource(*command, "--url", file)
        assert done.exit_code == 4, done.stderr
        assert "at global position 1 cannot be decoded" in done.stderr
        assert "esource verify" in done.stderr


@pytest.mark.parametrize(
    ("revision", "remedy"), [("0001", "esource upgrade"), ("9999", "pip install --upgrade esource")]
)
async def test_doctor_tells_an_older_schema_from_a_newer_one(
    shared_store, shared_database_url, revision, remedy
):
    await database_of(shared_store).run_script(
        [f"UPDATE esource_alembic_version SET version_num = '{revision}'"]
    )
    done = await esource("doctor", "--url", shared_database_url)
    assert (done.exit_code, remedy in done.stdout) == (1, True), done.stdout


async def test_doctor_names_a_connection_that_holds_every_append_up(
    shared_store, shared_database_url, monkeypatch
):
    """PostgreSQL has such connections; on SQLite a held transaction is seen by its write-ahead log."""
    from esource.dialect.postgresql import inspection as postgresql_inspection
    from esource.dialect.sqlite import inspection as sqlite_inspection

    monkeypatch.setattr(postgresql_inspection, "IDLE_SECONDS", 0)
    monkeypatch.setattr(sqlite_inspection, "WAL_BYTES", 1000)
    is_server = shared_database_url.startswith("postgresql")
    event = placed()
    async with shared_store.transaction() as tx:
        await tx.append_events(event.aggregate_id, "Order", [event], 0)
        await asyncio.sleep(0.01)
        done = await esource("doctor", "--url", shared_database_url)
        if is_server:
            assert "every append waits for it" in done.stdout
    if not is_server:
        assert "write-ahead log" in (await esource("doctor", "--url", shared_database_url)).stdout


async def test_a_backup_is_whole_while_writers_write(tmp_path):
    """SQLite only; on PostgreSQL the command names pg_dump."""
    async with SQLiteEventStore(tmp_path / "events.db") as store:
        await store.initialize()
        for _ in range(20):
            event = placed()
            await store.append_events(event.aggregate_id, "Order", [event], 0)
        done = await esource("backup", tmp_path / "copy.db", "--url", tmp_path / "events.db")
        assert (done.exit_code, done.stderr) == (0, "")
        assert "is a complete copy" in done.stdout
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        assert copy.execute("SELECT count(*) FROM events").fetchone() == (20,)
    copy.close()
    done = await esource("verify-copy", tmp_path / "events.db", tmp_path / "copy.db")
    assert done.exit_code == 0
    done = await esource("backup", tmp_path / "copy.db", "--url", tmp_path / "events.db")
    assert done.exit_code == 2
    assert "is there already" in done.stderr
    assert not list(tmp_path.glob("*partial*"))


async def test_on_postgresql_a_backup_names_its_own_program(postgres_url, tmp_path):
    """PostgreSQL only: SQLite's is made."""
    done = await esource("backup", tmp_path / "copy", "--url", postgres_url)
    assert done.exit_code == 2
    assert "pg_dump" in done.stderr
    assert list(tmp_path.iterdir()) == []


LOOKING = (
    "info",
    "doctor",
    "tail",
    "streams",
    "verify",
    "current",
    "check",
    "outbox stats",
    "dlq list",
    "projections lag",
)


@pytest.mark.parametrize("command", LOOKING)
async def test_looking_at_a_file_makes_and_leaves_nothing(command, tmp_path):
    """SQLite only: a server's databases are no files."""
    done = await esource(*command.split(), "--url", tmp_path / "none.db")
    assert done.exit_code == 3
    assert "there is no such file" in done.stderr
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / "events.db"
    async with SQLiteEventStore(file) as store:
        await store.initialize()
    before = file.read_bytes()
    file.chmod(0o444)
    done = await esource(*command.split(), "--url", file)
    assert (done.exit_code, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["events.db"]
    assert file.read_bytes() == before


async def test_a_role_without_privileges_is_told_so(postgres_url):
    """PostgreSQL only: SQLite has no roles."""
    name = f"nobody_{uuid4().hex[:8]}"
    database = database_of(postgres_url)
    await database.run_script([f"CREATE ROLE {name} LOGIN PASSWORD 'geheim-7'"])
    try:
        url = database.url.set(username=name, password="geheim-7").render_as_string(hide_password=False)
        done = await esource("info", "--url", url)
        assert done.exit_code in (3, 4)
        assert done.stderr.startswith("Error: ")
        assert "Traceback" not in done.stderr
        assert "geheim-7" not in done.stderr
    finally:
        await database.run_script([f"DROP ROLE {name}"])
        await database.close()

"""The tutorial's claims about SQLite in memory and in files (27-37, 63-82, 104-111)."""

import asyncio
import inspect
import sqlite3
from contextlib import closing
from uuid import uuid4

import pytest
from support.orders import Order, placed

from esource import (
    AggregateRepository,
    EventRegistry,
    OptimisticLockError,
    PostgreSQLEventStore,
    SQLiteEventStore,
    default_registry,
    open_store,
)
from esource.errors import DatabaseBusyError, InvalidEventError, SchemaMissingError


def sqlite_store(database, **options):
    return SQLiteEventStore(database, enable_tracing=False, **options)


async def append(store, *events):
    for event in events or (placed(),):
        await store.append_events(event.aggregate_id, "Order", [event])


async def ids(store):
    return [stored.event_id async for stored in store.read_all()]


# -- in memory (27-32) ---------------------------------------------------------------------------------


async def test_in_memory_the_database_is_gone_after_the_block_sqlite():
    store = sqlite_store(":memory:")
    async with store as entered:
        assert entered is store
        await store.initialize()
        await append(store)
        assert store.is_connected
    assert not store.is_connected
    async with store:
        with pytest.raises(SchemaMissingError):
            await store.get_global_position()


async def test_the_schema_comes_from_initialize_and_not_before(empty_database_url):
    async with open_store(empty_database_url, enable_tracing=False) as store:
        with pytest.raises(SchemaMissingError, match="initialize"):
            await append(store)
        await store.initialize()
        await append(store)


async def test_in_memory_stores_are_isolated_from_each_other_sqlite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with sqlite_store(":memory:") as one, sqlite_store(":memory:") as other:
        await one.initialize()
        await other.initialize()
        await append(one)
        assert (await one.get_global_position(), await other.get_global_position()) == (1, 0)
    assert list(tmp_path.iterdir()) == []


# -- in a file (33-37) ---------------------------------------------------------------------------------


async def test_events_survive_the_end_of_the_process(shared_database_url, run_code, open_stores):
    order_id = uuid4()
    run_code(
        "import asyncio, uuid\n"
        "from shop import OrderAggregate\n"
        "from esource import AggregateRepository, open_store\n"
        "async def main():\n"
        f"    async with open_store({shared_database_url!r}) as store:\n"
        "        await store.initialize()\n"
        "        repo = AggregateRepository(store, OrderAggregate)\n"
        f"        order = repo.create_new(uuid.UUID({str(order_id)!r}))\n"
        "        order.place('customer-456', 149.99)\n"
        "        await repo.save(order)\n"
        "asyncio.run(main())"
    )
    store = await open_stores(shared_database_url)
    assert (await AggregateRepository(store, Order).load(order_id)).state.total == 149.99


async def test_reopening_and_initializing_again_keeps_everything(shared_database_url, open_stores):
    store = await open_stores(shared_database_url)
    await append(store)
    await store.initialize()
    await store.close()
    async with store:
        await store.initialize()
        assert await store.get_global_position() == 1


async def test_a_missing_folder_is_created_and_the_file_stays_sqlite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with sqlite_store("./data/events.db") as store:
        await store.initialize()
        await append(store)
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.db*")] == ["data/events.db"]


async def test_deleting_the_file_resets_the_database_sqlite(tmp_path):
    path = tmp_path / "events.db"
    async with sqlite_store(path) as store:
        await store.initialize()
        await append(store)
    path.unlink()
    async with sqlite_store(path) as store:
        await store.initialize()
        assert await store.get_global_position() == 0


# -- the constructor (63-73) ---------------------------------------------------------------------------


def test_the_constructor_has_the_tutorials_parameters_and_defaults_sqlite():
    parameters = inspect.signature(SQLiteEventStore).parameters
    assert parameters["database"].default is inspect.Parameter.empty
    defaults = {name: parameter.default for name, parameter in parameters.items() if name != "database"}
    assert {name: defaults[name] for name in list(defaults)[:7]} == {
        "event_registry": None,
        "wal_mode": True,
        "busy_timeout": 5000,
        "enable_tracing": True,
        "uuid_fields": None,
        "string_id_fields": None,
        "auto_detect_uuid": True,
    }


def test_the_database_is_given_by_position_or_by_name_sqlite():
    assert sqlite_store(":memory:").database == sqlite_store(database=":memory:").database == ":memory:"


async def test_without_a_registry_the_default_one_is_used(database_url, open_stores):
    assert (await open_stores(database_url)).event_registry is default_registry


async def test_a_registry_of_its_own_is_used(database_url, open_stores):
    registry = EventRegistry()
    assert (await open_stores(database_url, event_registry=registry)).event_registry is registry


async def test_tracing_may_be_on_or_off(shared_database_url, open_stores):
    for enable_tracing in (True, False):
        await append(await open_stores(shared_database_url, enable_tracing=enable_tracing))


def test_constructing_does_no_io(tmp_path):
    stores = [
        sqlite_store(tmp_path / "missing" / "events.db"),
        PostgreSQLEventStore("postgresql://nobody@nowhere.invalid/nothing", enable_tracing=False),
    ]
    assert not any(store.is_connected for store in stores)
    assert list(tmp_path.iterdir()) == []


async def test_the_properties_tell_what_was_given_sqlite(tmp_path):
    path = str(tmp_path / "events.db")
    async with sqlite_store(path, wal_mode=False, busy_timeout=1000) as store:
        found = (store.database, store.wal_mode, store.busy_timeout, store.is_connected)
    assert found == (path, False, 1000, True)


def test_both_stores_have_the_same_methods_and_options():
    def methods(store):
        return {
            name: inspect.signature(member)
            for name, member in inspect.getmembers(store, inspect.isfunction)
            if not name.startswith("_")
        }

    of_sqlite = ("wal_mode", "busy_timeout", "synchronous", "execution")
    of_postgresql = (
        "transaction_pooling",
        "append_lock",
        "notify",
        "retry_seconds",
        "schema",
        "engine_options",
    )

    def options(store):
        return {
            name: parameter.default
            for name, parameter in inspect.signature(store).parameters.items()
            if name not in ("database", *of_sqlite, *of_postgresql)
        }

    assert methods(SQLiteEventStore) == methods(PostgreSQLEventStore)
    assert options(SQLiteEventStore) == options(PostgreSQLEventStore)


async def test_every_store_lives_the_same_life(store):
    assert store.is_connected
    await store.initialize()
    event = placed()
    result = await store.append_events(event.aggregate_id, "Order", [event], 0)
    assert (result.success, result.new_version, result.global_position) == (True, 1, 1)
    assert [stored.event async for stored in store.read_all()] == [event]


@pytest.mark.parametrize(
    "fields",
    [
        {"customer_id": "a\x00b"},
        {"total": float("nan")},
        {"total": float("inf")},
        {"actor_id": "a" * 256},
        {"customer_id": "\ud800"},
    ],
    ids=["NUL", "NaN", "infinity", "256 characters", "half a surrogate pair"],
)
async def test_every_store_refuses_the_same_values(store, fields):
    event = placed(**fields)
    with pytest.raises(InvalidEventError):
        await append(store, event)
    assert await store.get_global_position() == 0


# -- write-ahead logging (74-80) -----------------------------------------------------------------------


async def test_readers_go_on_while_a_write_is_in_progress(shared_database_url, open_stores):
    writer, reader = await open_stores(shared_database_url), await open_stores(shared_database_url)
    first, second = placed(), placed()
    await append(writer, first)
    async with writer.transaction() as transaction:
        await transaction.append_events(second.aggregate_id, "Order", [second])
        assert await ids(reader) == [first.event_id]
    assert await ids(reader) == [first.event_id, second.event_id]


async def test_a_store_reads_on_other_connections_than_it_writes_on(shared_store):
    first, second = placed(), placed()
    await append(shared_store, first)
    written, read = asyncio.Event(), asyncio.Event()

    async def write():
        async with shared_store.transaction() as transaction:
            await transaction.append_events(second.aggregate_id, "Order", [second])
            written.set()
            await read.wait()

    task = asyncio.create_task(write())
    await written.wait()
    assert await asyncio.wait_for(ids(shared_store), 30) == [first.event_id]
    read.set()
    await task
    assert await ids(shared_store) == [first.event_id, second.event_id]


async def test_wal_files_lie_beside_the_open_file_and_go_on_closing_sqlite(tmp_path):
    store = sqlite_store(tmp_path / "events.db")
    async with store:
        await store.initialize()
        await append(store)
        assert store.wal_mode
        assert {file.name for file in tmp_path.iterdir()} == {"events.db", "events.db-wal", "events.db-shm"}
    assert {file.name for file in tmp_path.iterdir()} == {"events.db"}


async def test_without_wal_mode_there_is_no_wal_sqlite(tmp_path):
    async with sqlite_store(tmp_path / "events.db", wal_mode=False) as store:
        await store.initialize()
        await append(store)
        assert {file.name for file in tmp_path.iterdir()} == {"events.db"}


@pytest.mark.parametrize("asked_for", [True, False])
async def test_in_memory_there_is_no_wal_whatever_was_asked_for_sqlite(asked_for):
    async with sqlite_store(":memory:", wal_mode=asked_for) as store:
        await store.initialize()
        assert store.wal_mode is False
        async with store.transaction() as transaction:
            mode = (await transaction.connection.exec_driver_sql("PRAGMA journal_mode")).scalar()
    assert mode == "memory"


async def test_a_crashed_process_leaves_a_whole_database_sqlite(tmp_path, run_code):
    run_code(
        "import asyncio, os, sys\n"
        "from uuid import uuid4\n"
        "from shop import OrderPlaced\n"
        "from esource import SQLiteEventStore\n"
        "async def main():\n"
        "    store = SQLiteEventStore('events.db')\n"
        "    await store.initialize()\n"
        "    for number in range(20):\n"
        "        event = OrderPlaced(aggregate_id=uuid4(), customer_id='c', total=number)\n"
        "        await store.append_events(event.aggregate_id, 'Order', [event])\n"
        "    os._exit(0)\n"
        "asyncio.run(main())"
    )
    assert (tmp_path / "events.db-wal").exists()
    async with sqlite_store(tmp_path / "events.db") as store:
        assert [stored.event.total async for stored in store.read_all()] == list(range(20))
    with closing(sqlite3.connect(tmp_path / "events.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# -- several writers (81, 82, 104, 105, 107-109) -------------------------------------------------------


async def test_a_write_waits_for_the_lock_as_long_as_the_busy_timeout_says_sqlite(tmp_path):
    path = tmp_path / "events.db"
    async with (
        sqlite_store(path, busy_timeout=60_000) as patient,
        sqlite_store(path, busy_timeout=1) as hasty,
    ):
        await patient.initialize()
        with closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(append(patient))
            with pytest.raises(DatabaseBusyError, match="busy_timeout"):
                await append(hasty)
            assert not waiting.done()
            other.rollback()
        await waiting
        assert await patient.get_global_position() == 1


@pytest.mark.parametrize("busy_timeout", [10_000, 1000])
async def test_the_busy_timeout_reaches_the_connection_sqlite(tmp_path, busy_timeout):
    async with sqlite_store(tmp_path / "events.db", busy_timeout=busy_timeout) as store:
        async with store.transaction() as transaction:
            found = (await transaction.connection.exec_driver_sql("PRAGMA busy_timeout")).scalar()
    assert found == store.busy_timeout == busy_timeout


async def test_many_stores_open_one_fresh_database_at_once(empty_database_url, open_stores):
    stores = await asyncio.gather(*(open_stores(empty_database_url) for _ in range(5)))
    await asyncio.gather(*(append(store) for store in stores))
    assert await stores[0].get_global_position() == 5


@pytest.mark.slow
async def test_many_processes_write_to_one_fresh_database_at_once(empty_database_url, run_code, open_stores):
    program = (
        "import asyncio\n"
        "from uuid import uuid4\n"
        "from shop import OrderPlaced\n"
        "from esource import open_store\n"
        "async def main():\n"
        f"    async with open_store({empty_database_url!r}) as store:\n"
        "        await store.initialize()\n"
        "        for number in range(10):\n"
        "            event = OrderPlaced(aggregate_id=uuid4(), customer_id='c', total=number)\n"
        "            await store.append_events(event.aggregate_id, 'Order', [event], 0)\n"
        "asyncio.run(main())"
    )
    await asyncio.gather(*(asyncio.to_thread(run_code, program) for _ in range(3)))
    store = await open_stores(empty_database_url)
    assert len(await ids(store)) == 30


async def test_one_writer_at_a_time_sqlite(tmp_path):
    path = tmp_path / "events.db"
    async with sqlite_store(path) as one, sqlite_store(path, busy_timeout=0) as other:
        await one.initialize()
        async with one.transaction() as transaction:
            event = placed()
            await transaction.append_events(event.aggregate_id, "Order", [event])
            with pytest.raises(DatabaseBusyError):
                await append(other)
        await append(other)
        assert await other.get_global_position() == 2


async def test_readers_do_not_block_each_other(shared_database_url, open_stores):
    one, other = await open_stores(shared_database_url), await open_stores(shared_database_url)
    events = [placed() for _ in range(5)]
    await append(one, *events)
    seen = []
    async for stored in one.read_all():
        seen.append(stored.event_id)
        assert await ids(other) == [event.event_id for event in events]
    assert seen == [event.event_id for event in events]


def test_sqlite_files_may_grow_to_281_terabytes_sqlite():
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA page_size = 65536")
        (pages,) = connection.execute("PRAGMA max_page_count = 4294967294").fetchone()
    # Before SQLite 3.33 a file might have half as many pages.
    terabytes = 281 if sqlite3.sqlite_version_info >= (3, 33) else 140
    assert pages * 65536 // 10**12 == terabytes


# -- ACID (110) ----------------------------------------------------------------------------------------


async def test_what_was_acknowledged_is_stored_whatever_its_neighbours_did(store):
    contested = placed()
    await append(store, contested)
    good = [placed() for _ in range(20)]

    async def conflict():
        late = placed(contested.aggregate_id)
        with pytest.raises(OptimisticLockError):
            await store.append_events(late.aggregate_id, "Order", [late], 0)

    await asyncio.gather(*(work for event in good for work in (append(store, event), conflict())))
    assert set(await ids(store)) == {contested.event_id, *(event.event_id for event in good)}


async def test_a_batch_with_an_event_that_may_not_be_stored_leaves_nothing(store):
    order_id = uuid4()
    with pytest.raises(InvalidEventError):
        await store.append_events(order_id, "Order", [placed(order_id), placed(order_id, total=float("nan"))])
    await append(store)
    assert await store.get_stream_version(order_id, "Order") == 0
    assert len(await ids(store)) == 1


async def test_a_cancelled_append_is_whole_or_absent(store):
    batches = [[placed(order_id) for _ in range(3)] for order_id in (uuid4() for _ in range(10))]
    tasks = [
        asyncio.create_task(store.append_events(batch[0].aggregate_id, "Order", batch, 0))
        for batch in batches
    ]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for batch, outcome in zip(batches, outcomes, strict=True):
        version = await store.get_stream_version(batch[0].aggregate_id, "Order")
        assert version in ((0, 3) if isinstance(outcome, asyncio.CancelledError) else (3,))
    await append(store)


async def test_an_exception_in_a_transaction_takes_everything_back(store):
    event = placed()
    with pytest.raises(RuntimeError, match="changed my mind"):
        async with store.transaction() as transaction:
            await transaction.append_events(event.aggregate_id, "Order", [event])
            await transaction.checkpoints.save_position("OrderProjection", 1, event.event_id, "OrderPlaced")
            raise RuntimeError("changed my mind")
    assert await ids(store) == []

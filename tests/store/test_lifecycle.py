"""Opening, closing, and the doors to a store."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from support.orders import placed, several

from esource import InMemoryEventStore, PostgreSQLEventStore, SQLiteEventStore, open_store
from esource.dialect import urls as resolve
from esource.errors import (
    DatabaseUnavailableError,
    InvalidOptionError,
    MissingDriverError,
    SchemaMissingError,
    StoreClosedError,
)


def run_program(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; one that hangs fails the test."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[1],
        check=False,
    )


async def append_one(store):
    event = placed()
    return await store.append_events(event.aggregate_id, "Order", [event], 0)


# -- open and close --------------------------------------------------------------------------------


async def test_a_store_is_connected_between_open_and_close(database_url):
    store = open_store(database_url)
    assert not store.is_connected
    async with store as entered:
        assert entered is store
        assert store.is_connected
        await store.open()
    assert not store.is_connected
    await store.close()


async def test_a_store_may_be_opened_again(shared_database_url):
    store = open_store(shared_database_url)
    for count in range(1, 4):
        async with store:
            await store.initialize()
            await append_one(store)
            assert await store.get_global_position() == count


async def test_a_closed_store_refuses_everything(database_url):
    store = open_store(database_url)
    async with store:
        await store.initialize()
    with pytest.raises(StoreClosedError, match="async with"):
        await append_one(store)
    with pytest.raises(StoreClosedError):
        await store.get_global_position()
    with pytest.raises(StoreClosedError):
        await store.get_events(uuid4(), "Order")
    with pytest.raises(StoreClosedError):
        async for _event in store.read_all():
            pass
    with pytest.raises(StoreClosedError):
        async with store.transaction():
            pass


async def test_a_store_opens_itself_on_first_use(shared_database_url, open_stores):
    await open_stores(shared_database_url)
    store = open_store(shared_database_url, enable_tracing=False)
    try:
        await append_one(store)
        assert store.is_connected
    finally:
        await store.close()


async def test_initialize_opens_the_store(database_url):
    store = open_store(database_url)
    await store.initialize()
    assert store.is_connected
    await store.close()


async def test_many_tasks_may_open_a_store_at_once(empty_database_url):
    store = open_store(empty_database_url)
    await asyncio.gather(*(store.initialize() for _ in range(10)))
    await append_one(store)
    await store.close()


async def test_closing_writes_what_is_queued(shared_database_url, open_stores):
    store = await open_stores(shared_database_url)
    tasks = [asyncio.create_task(append_one(store)) for _ in range(50)]
    await asyncio.sleep(0)
    await store.close()
    results = await asyncio.gather(*tasks)
    assert sorted(r.global_position for r in results) == list(range(1, 51))
    other = await open_stores(shared_database_url)
    assert await other.get_global_position() == 50


def test_a_store_serves_one_loop_after_the_other(shared_database_url):
    store = open_store(shared_database_url, enable_tracing=False)

    async def use():
        async with store:
            await store.initialize()
            return (await append_one(store)).global_position

    assert [asyncio.run(use()), asyncio.run(use())] == [1, 2]


async def test_a_store_belongs_to_the_loop_that_opened_it(store):
    def elsewhere():
        with pytest.raises(StoreClosedError, match="another event loop"):
            asyncio.run(store.get_global_position())

    await asyncio.to_thread(elsewhere)
    await append_one(store)


async def test_a_database_without_our_tables_says_how_to_make_them(empty_database_url, open_stores):
    async with open_store(empty_database_url, enable_tracing=False) as store:
        for attempt in (append_one(store), store.get_global_position()):
            with pytest.raises(SchemaMissingError, match=r"initialize\(\).*alembic upgrade head"):
                await attempt


async def test_two_stores_in_one_process_share_a_database(shared_database_url, open_stores):
    one, two = await open_stores(shared_database_url), await open_stores(shared_database_url)
    await asyncio.gather(*(append_one(store) for _ in range(20) for store in (one, two)))
    assert await one.get_global_position() == await two.get_global_position() == 40


# -- doors -----------------------------------------------------------------------------------------


def test_making_a_store_does_no_io(tmp_path):
    missing = tmp_path / "not" / "there.db"
    stores = [
        SQLiteEventStore(str(missing)),
        SQLiteEventStore(missing),
        SQLiteEventStore(database=":memory:"),
        PostgreSQLEventStore("postgresql://nobody:secret@host.invalid:1/nothing"),
        open_store(f"sqlite:///{missing}"),
        open_store("postgresql+asyncpg://nobody@host.invalid/nothing"),
    ]
    assert not missing.parent.exists()
    assert not any(store.is_connected for store in stores)


@pytest.mark.parametrize(
    ("url", "kind", "database"),
    [
        ("sqlite://", SQLiteEventStore, ":memory:"),
        ("sqlite:///:memory:", SQLiteEventStore, ":memory:"),
        (":memory:", SQLiteEventStore, ":memory:"),
        ("events.db", SQLiteEventStore, "events.db"),
        ("./data/events.db", SQLiteEventStore, "./data/events.db"),
        ("sqlite:///events.db", SQLiteEventStore, "events.db"),
        ("sqlite:////var/lib/events.db", SQLiteEventStore, "/var/lib/events.db"),
        ("sqlite+aiosqlite:///events.db", SQLiteEventStore, "events.db"),
        (make_url("sqlite:///events.db"), SQLiteEventStore, "events.db"),
        ("postgresql://me@host/db", PostgreSQLEventStore, "postgresql://me@host/db"),
        ("postgresql+asyncpg://me:x@host/db", PostgreSQLEventStore, "postgresql+asyncpg://me:***@host/db"),
        ("postgres://me@host/db", PostgreSQLEventStore, "postgres://me@host/db"),
    ],
    ids=str,
)
def test_open_store_picks_the_store_by_the_url(url, kind, database):
    store = open_store(url)
    assert type(store) is kind
    assert store.database == database


@pytest.mark.parametrize(
    "url",
    [
        "mysql://host/db",
        "postgresql+psycopg2://host/db",
        "sqlite+pysqlite:///events.db",
        "sqlite:///events.db?mode=ro",
        "http://events",
        "postgresql://me:secret@host:port/db",
        "://",
    ],
)
def test_open_store_refuses_other_urls(url):
    with pytest.raises(InvalidOptionError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_options_reach_the_store_from_the_url_door():
    store = open_store("events.db", wal_mode=False, busy_timeout=10000)
    assert (store.wal_mode, store.busy_timeout) == (False, 10000)
    with pytest.raises(TypeError):
        open_store("events.db", no_such_option=1)


@pytest.mark.parametrize(
    "options",
    [{"busy_timeout": -1}, {"synchronous": "OFF"}, {"unknown_events": "ignore"}],
    ids=lambda o: next(iter(o)),
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        SQLiteEventStore("events.db", **options)


def test_a_store_needs_a_database_of_its_own_kind():
    with pytest.raises(InvalidOptionError, match="postgresql://"):
        PostgreSQLEventStore("sqlite:///events.db")
    with pytest.raises(InvalidOptionError, match="engine"):
        PostgreSQLEventStore(create_async_engine("postgresql+asyncpg://host/db"), pool_size=3)
    with pytest.raises(InvalidOptionError, match="not bound"):
        PostgreSQLEventStore(async_sessionmaker())
    with pytest.raises(InvalidOptionError, match="int"):
        PostgreSQLEventStore(5)
    with pytest.raises(InvalidOptionError, match="empty"):
        SQLiteEventStore("")


@pytest.mark.parametrize(("module", "url"), [("aiosqlite", "sqlite://"), ("asyncpg", "postgresql://host/db")])
def test_a_missing_driver_names_the_extra_to_install(monkeypatch, module, url):
    extra = url.partition(":")[0]
    made = getattr(resolve, f"_{extra}")
    made.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    try:
        with pytest.raises(MissingDriverError, match=rf"pip install 'esource\[{extra}\]'") as caught:
            open_store(url)
        assert isinstance(caught.value, ImportError)
        assert (caught.value.driver, caught.value.extra) == (module, extra)
    finally:
        made.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("blocked", ["aiosqlite", "asyncpg"])
def test_the_package_is_imported_without_the_other_driver(blocked):
    done = run_program(
        """
        import sys
        sys.modules[sys.argv[1]] = None
        import esource
        print(esource.open_store(sys.argv[2]).database)
        """,
        blocked,
        "postgresql://host/db" if blocked == "aiosqlite" else "events.db",
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_no_driver_and_no_alembic():
    done = run_program(
        """
        import sys
        import esource
        print(sorted({"aiosqlite", "asyncpg", "alembic", "opentelemetry", "tenacity"} & set(sys.modules)))
        """
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


async def test_an_in_memory_store_is_ready_on_first_use():
    store = InMemoryEventStore(enable_tracing=False)
    assert (await append_one(store)).global_position == 1
    await store.initialize()
    assert await store.get_global_position() == 1
    await store.close()


async def test_in_memory_stores_are_apart_and_forget():
    async with InMemoryEventStore() as one, SQLiteEventStore(":memory:") as two:
        await two.initialize()
        await append_one(one)
        assert (await one.get_global_position(), await two.get_global_position()) == (1, 0)
    async with one:
        assert await one.get_global_position() == 0


# -- leaving ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("end", ["return", "raise SystemExit(3)", "raise KeyError", "1 / 0"])
def test_a_program_ends_however_its_store_was_left(tmp_path, end):
    done = run_program(
        f"""
        import asyncio, sys
        from support.orders import placed
        from esource import open_store

        async def main():
            async with open_store(sys.argv[1]) as store:
                await store.initialize()
                event = placed()
                await store.append_events(event.aggregate_id, "Order", [event])
                {end}

        asyncio.run(main())
        """,
        str(tmp_path / "events.db"),
    )
    assert "Warning" not in done.stderr
    assert done.returncode == {"return": 0, "raise SystemExit(3)": 3}.get(end, 1)
    assert [file.name for file in tmp_path.iterdir()] == ["events.db"]


def test_a_program_ends_when_its_database_could_not_be_opened(tmp_path):
    """aiosqlite's threads keep a process alive: every one that was started must end."""
    (tmp_path / "text.db").write_text("this is no database, but long enough to look like one " * 50)
    done = run_program(
        """
        import asyncio, sys
        from esource import open_store
        from esource.errors import DatabaseUnavailableError

        async def main():
            for path in sys.argv[1:]:
                try:
                    await open_store(path).open()
                except DatabaseUnavailableError as error:
                    print(error)

        asyncio.run(main())
        """,
        str(tmp_path),
        str(tmp_path / "text.db"),
        str(tmp_path / "text.db" / "inside"),
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


# -- secrets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?user=me&password=hunter2",
        "postgresql+asyncpg://me:hunter2@host.invalid/db",
    ],
)
async def test_a_password_is_in_no_text(url, monkeypatch):
    import traceback

    monkeypatch.setattr("esource.database.database.RETRY_SECONDS", 0.0)
    store = PostgreSQLEventStore(url, connect_args={"timeout": 2})
    store._opened.database.retry_seconds = 0.0
    texts = [repr(store), str(store), store.database]
    for attempt in (store.open, store.get_global_position, store.initialize, lambda: append_one(store)):
        with pytest.raises(DatabaseUnavailableError) as caught:
            await attempt()
        texts += [str(caught.value), repr(caught.value), *traceback.format_exception(caught.value)]
    assert not [text for text in texts if "hunter2" in text]
    assert "PostgreSQL database" in str(caught.value)


# -- engines of the application ----------------------------------------------------------------------


@pytest.fixture
def engine_url(postgres_url):
    return make_url(postgres_url).set(drivername="postgresql+asyncpg")


@pytest.mark.parametrize("door", ["engine", "sessions", "url text", "url"])
async def test_postgresql_comes_as_an_engine_a_session_factory_or_a_url(engine_url, door):
    engine = create_async_engine(engine_url)
    store = PostgreSQLEventStore(
        {
            "engine": engine,
            "sessions": async_sessionmaker(engine, expire_on_commit=False),
            "url text": engine_url.render_as_string(hide_password=False),
            "url": engine_url,
        }[door]
    )
    async with store:
        assert (await append_one(store)).global_position == 1
    assert engine.pool.checkedout() == 0
    async with engine.connect() as connection:  # what was borrowed still works
        assert await connection.exec_driver_sql("SELECT count(*) FROM events")
    await engine.dispose()


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_a_small_postgresql_pool_is_shared_and_not_starved(engine_url, size):
    engine = create_async_engine(engine_url, pool_size=size, max_overflow=0, pool_timeout=5)
    async with PostgreSQLEventStore(engine, enable_tracing=False) as store:
        order = uuid4()
        events = several(600, order)
        await store.append_events(order, "Order", events)
        again = store.append_events(order, "Order", events[:1], 0)
        results = await asyncio.gather(
            again, *(append_one(store) for _ in range(20)), *(store.get_global_position() for _ in range(5))
        )
        assert results[0].idempotent
        assert len([e async for e in store.read_all()]) == 620
        async with store.transaction() as tx:
            await tx.append_events(order, "Order", [placed(order)])
            assert await store.get_global_position() == 621
        async with engine.connect() as connection:
            assert await connection.exec_driver_sql("SELECT 1")
    assert engine.pool.checkedout() == 0
    await engine.dispose()


async def test_a_postgresql_engine_may_be_disposed_of_under_an_open_store(engine_url, tmp_path):
    """As the tutorial's migration script does it: the store is neither opened nor closed."""
    async with SQLiteEventStore(tmp_path / "events.db") as source:
        await source.initialize()
        order = uuid4()
        await source.append_events(order, "Order", several(20, order))
        engine = create_async_engine(engine_url)
        store = PostgreSQLEventStore(async_sessionmaker(engine, expire_on_commit=False))
        async for stored in source.read_all():
            event = stored.event
            await store.append_events(
                aggregate_id=event.aggregate_id,
                aggregate_type=event.aggregate_type,
                events=[event],
                expected_version=-1,
            )
        await engine.dispose()
    assert engine.pool.checkedout() == 0
    assert not store.is_connected
    # An engine works on after dispose(), and so does the store.
    assert await store.get_global_position() == 20
    await store.close()
    await engine.dispose()

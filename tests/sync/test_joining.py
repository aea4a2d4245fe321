"""Appends that join a transaction of the application's own, on a synchronous connection or session of SQLAlchemy."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from support.orders import Order, placed

from esource.errors import DuplicateEventError, InvalidOptionError, OptimisticLockError
from esource.sync import AggregateRepository, EventStore, InMemoryEventStore, OutboxRepository, open_store
from esource.testing.server import dsn

notes = Table("notes", MetaData(), Column("id", Integer, primary_key=True))
has_autocommit = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="sqlite3 has no autocommit before Python 3.12"
)


@pytest.fixture
def store(shared_database_url: str) -> Iterator[EventStore]:
    with open_store(shared_database_url, enable_tracing=False, outbox_enabled=True) as store:
        store.initialize()
        yield store


@pytest.fixture
def engine(shared_database_url: str) -> Iterator[Engine]:
    url = make_url(shared_database_url)
    driver = "sqlite" if url.drivername.startswith("sqlite") else "postgresql+psycopg"
    engine = create_engine(url.set(drivername=driver), poolclass=NullPool)
    notes.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(shared_database_url: str) -> Iterator[Any]:
    """A connection of the driver itself, inside a transaction: such as Django has."""
    url = make_url(shared_database_url)
    if url.drivername.startswith("sqlite"):
        opened: Any = sqlite3.connect(str(url.database), isolation_level=None)
        opened.execute("BEGIN")
    else:
        arguments = dsn(url)
        opened = psycopg.connect(dbname=arguments.pop("database"), **arguments)
    yield opened
    opened.close()


def test_a_connection_of_the_driver_is_joined(store: EventStore, connection: Any):
    kept, lost = uuid4(), uuid4()
    seen = store.subscribe(**{} if isinstance(connection, sqlite3.Connection) else {"poll_seconds": 3600})
    result = store.append_events(kept, "Order", [placed(kept), placed(kept)], 0, connection=connection)
    assert result.new_version == 2
    with pytest.raises(OptimisticLockError):
        store.append_events(kept, "Order", [placed(kept)], 0, connection=connection)
    assert store.get_stream_version(kept, "Order") == 0
    connection.execute("SAVEPOINT note")
    store.append_events(lost, "Order", [placed(lost)], connection=connection)
    connection.execute("ROLLBACK TO SAVEPOINT note")
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(lambda: [next(seen).aggregate_id for _ in range(2)])
        connection.commit()
        assert following.result() == [kept, kept]
    seen.close()
    connection.execute("BEGIN" if isinstance(connection, sqlite3.Connection) else "SELECT 1")
    store.append_events(lost, "Order", [placed(lost)], connection=connection)
    connection.rollback()
    store.close()
    assert connection.execute("SELECT count(*) FROM events").fetchone() == (2,)


def test_a_connection_of_the_driver_that_commits_each_statement_is_refused(
    store: EventStore, connection: Any
):
    connection.rollback()
    if not isinstance(connection, sqlite3.Connection):
        connection.autocommit = True
    id_ = uuid4()
    with pytest.raises(InvalidOptionError, match="AUTOCOMMIT"):
        store.append_events(id_, "Order", [placed(id_)], connection=connection)
    assert store.get_global_position() == 0


def test_a_connection_of_the_driver_keeps_the_kind_of_rows_that_the_application_has_chosen(
    store: EventStore, connection: Any
):
    chosen = _as_dict if isinstance(connection, sqlite3.Connection) else dict_row
    connection.row_factory = chosen
    id_ = uuid4()
    order = [placed(id_), placed(id_)]
    for _ in range(2):
        assert store.append_events(id_, "Order", order, 0, connection=connection).new_version == 2
    with pytest.raises(OptimisticLockError):
        store.append_events(id_, "Order", [placed(id_)], 0, connection=connection)
    store.append_events(id_, "Order", [placed(id_)], tags=["shop:1"], connection=connection)
    assert connection.row_factory is chosen
    connection.commit()
    assert store.get_stream_version(id_, "Order") == 3


def _as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {name: value for (name, *_), value in zip(cursor.description, row, strict=True)}


@pytest.mark.parametrize("commit", [True, False])
def test_an_aggregate_is_saved_in_the_applications_transaction(
    store: EventStore, connection: Any, commit: bool
):
    orders = AggregateRepository(store, Order)
    order = orders.create_new(uuid4())
    order.place("c1", 1.0)
    assert orders.save(order, connection=connection).new_version == 1
    connection.commit() if commit else connection.rollback()
    assert store.get_stream_version(order.aggregate_id, "Order") == int(commit)


def test_a_connection_of_psycopg_in_pipeline_mode_is_refused(postgres_url: str):
    arguments, id_ = dsn(make_url(postgres_url)), uuid4()
    with (
        open_store(postgres_url, enable_tracing=False) as store,
        psycopg.connect(dbname=arguments.pop("database"), **arguments) as connection,
    ):
        store.initialize()
        connection.execute("SELECT 1")
        with connection.pipeline(), pytest.raises(InvalidOptionError, match="pipeline"):
            store.append_events(id_, "Order", [placed(id_)], connection=connection)
        store.append_events(id_, "Order", [placed(id_)], connection=connection)
        connection.commit()
        assert store.get_stream_version(id_, "Order") == 1


@has_autocommit
@pytest.mark.parametrize("sqlalchemy", [True, False])
def test_a_connection_whose_commit_does_nothing_is_refused_on_python_3_12_and_newer(
    sqlite_url: str, sqlalchemy: bool
):
    path, id_ = str(make_url(sqlite_url).database), uuid4()
    with open_store(sqlite_url, enable_tracing=False) as store:
        store.initialize()

        def append_on(opened: Any) -> None:
            connection = opened
            if sqlalchemy:
                engine = create_engine("sqlite://", creator=lambda: opened, poolclass=NullPool)
                connection = engine.connect()
            with closing(opened), closing(connection):
                store.append_events(id_, "Order", [placed(id_)], connection=connection)
                connection.commit()

        with pytest.raises(InvalidOptionError, match="autocommit=True"):
            append_on(sqlite3.connect(path, autocommit=True))
        assert store.get_global_position() == 0
        append_on(sqlite3.connect(path, autocommit=False))
        append_on(sqlite3.connect(path))
        assert store.get_global_position() == 2


def test_an_append_commits_and_vanishes_with_the_applications_transaction(store: EventStore, engine: Engine):
    kept, lost = uuid4(), uuid4()
    with engine.begin() as connection:
        connection.execute(insert(notes).values(id=1))
        result = store.append_events(kept, "Order", [placed(kept), placed(kept)], 0, connection=connection)
        assert result.new_version == 2
        store.append_events(kept, "Order", [placed(kept)], 2, connection=connection)
    with engine.connect() as connection:
        store.append_events(lost, "Order", [placed(lost)], connection=connection)
        connection.execute(insert(notes).values(id=2))
        connection.rollback()
    assert store.get_stream_version(kept, "Order") == 3
    assert store.get_stream_version(lost, "Order") == 0
    assert len(OutboxRepository(store).get_pending_events()) == 3
    with engine.connect() as connection:
        assert connection.scalars(select(notes.c.id)).all() == [1]
    assert [event.stream_position for event in store.read_all()] == [1, 2, 3]


def test_a_session_is_joined_before_its_first_statement(store: EventStore, engine: Engine):
    id_ = uuid4()
    with Session(engine) as session:
        store.append_events(id_, "Order", [placed(id_)], connection=session)
        assert store.get_stream_version(id_, "Order") == 0
        session.commit()
    assert store.get_stream_version(id_, "Order") == 1


def test_conflicts_and_duplicates_are_told_and_leave_the_transaction_usable(
    store: EventStore, engine: Engine
):
    first, second = placed(), placed()
    store.append_events(first.aggregate_id, "Order", [first])
    with engine.begin() as connection:
        with pytest.raises(OptimisticLockError):
            store.append_events(
                first.aggregate_id, "Order", [placed(first.aggregate_id)], 0, connection=connection
            )
        copy = placed(event_id=first.event_id)
        with pytest.raises(DuplicateEventError):
            store.append_events(copy.aggregate_id, "Order", [copy], connection=connection)
        store.append_events(second.aggregate_id, "Order", [second], connection=connection)
    assert store.event_exists(second.event_id)


def test_threads_append_beside_one_that_has_joined(store: EventStore, engine: Engine):
    id_, others = uuid4(), [placed() for _ in range(4)]
    threads = [
        threading.Thread(target=store.append_events, args=(other.aggregate_id, "Order", [other]))
        for other in others
    ]
    with engine.begin() as connection:
        store.append_events(id_, "Order", [placed(id_)], connection=connection)
        for thread in threads:
            thread.start()
        store.append_events(id_, "Order", [placed(id_)], 1, connection=connection)
    for thread in threads:
        thread.join(60)
    assert store.get_stream_version(id_, "Order") == 2
    assert all(store.event_exists(other.event_id) for other in others)


def test_a_connection_to_another_database_is_refused():
    engine = create_engine("sqlite://", poolclass=NullPool)
    with InMemoryEventStore() as store, engine.connect() as connection:
        event = placed()
        with pytest.raises(InvalidOptionError, match="must be an AsyncConnection"):
            store.append_events(event.aggregate_id, "Order", [event], connection=object())
        connection.dialect.name = "mysql"
        with pytest.raises(InvalidOptionError, match="one to mysql"):
            store.append_events(event.aggregate_id, "Order", [event], connection=connection)

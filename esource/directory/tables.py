"""The tables of a directory. They lie beside its logs, or in a database of their own, and are no part of a log's schema."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.schema import CreateTable

from esource.tables.constructs import moment_after, upsert
from esource.tables.statement import Statement
from esource.tables.types import Name, Status, Timestamp

metadata = MetaData()

logs = Table(
    "esource_logs",
    metadata,
    Column("name", Name, nullable=False),
    Column("place", Text, nullable=False),
    Column("state", Status, nullable=False),
    Column("target", Text),
    Column("takes_keys", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("revision", Name),
    PrimaryKeyConstraint("name", name="esource_logs_pkey"),
    UniqueConstraint("place", name="esource_logs_place_key"),
)
"""The logs. ``place`` is where one lies, ``target`` where it is just being moved to, ``generation``
begins with a number of its own for each log that is created, and is raised by one with each move."""

keys = Table(
    "esource_log_keys",
    metadata,
    Column("key", Name, nullable=False),
    Column("log", Name, nullable=False),
    PrimaryKeyConstraint("key", name="esource_log_keys_pkey"),
)
"""Which log a key, or a tenant, lives in."""

workers = Table(
    "esource_log_workers",
    metadata,
    Column("work", Name, nullable=False),
    Column("worker", Name, nullable=False),
    Column("until", Timestamp, nullable=False),
    PrimaryKeyConstraint("work", "worker", name="esource_log_workers_pkey"),
)
"""The workers of each crew that are alive."""

TABLES = [logs, keys, workers]


def creations(dialect: Any) -> list[str]:
    """What makes the tables that are not there."""
    return [str(CreateTable(table, if_not_exists=True).compile(dialect=dialect)) for table in TABLES]


def _of(table: Table, *names: str) -> list[Any]:
    return [table.c[name] == bindparam(f"its_{name}", type_=table.c[name].type) for name in names]


def _values(table: Table, *names: str) -> dict[str, Any]:
    return {name: bindparam(name, type_=table.c[name].type) for name in names}


_columns = [
    logs.c[name] for name in ("name", "place", "state", "target", "takes_keys", "generation", "revision")
]

ALL = Statement(select(*_columns).order_by(logs.c.name))
ONE = Statement(select(*_columns).where(*_of(logs, "name")))
ADD = Statement(insert(logs).values(**_values(logs, "name", "place", "state", "takes_keys", "generation")))


def _is(state: str, target: str) -> Any:
    return and_(
        logs.c.state == bindparam(state, type_=logs.c.state.type),
        logs.c.target.is_not_distinct_from(bindparam(target, type_=Text())),
    )


SET_STATE = Statement(
    update(logs)
    .where(
        *_of(logs, "name", "generation"), or_(_is("its_state", "its_target"), _is("new_state", "new_target"))
    )
    .values(
        state=bindparam("new_state", type_=logs.c.state.type), target=bindparam("new_target", type_=Text())
    )
    .returning(logs.c.name)
)
"""Only where the log still is as it was read, or another process was about to do the same."""

SET_PLACE = Statement(
    update(logs)
    .where(*_of(logs, "name", "generation"))
    .values(
        **_values(logs, "place", "state"),
        target=literal_column("NULL"),
        generation=logs.c.generation + literal_column("1"),
    )
    .returning(logs.c.generation)
)
SET_TAKES_KEYS = Statement(
    update(logs).where(*_of(logs, "name")).values(**_values(logs, "takes_keys")).returning(logs.c.name)
)
SET_REVISION = Statement(
    update(logs).where(*_of(logs, "name")).values(**_values(logs, "revision")).returning(logs.c.name)
)
REMOVE = Statement(delete(logs).where(*_of(logs, "name")).returning(logs.c.name))

LOG_OF_KEY = Statement(select(keys.c.log).where(*_of(keys, "key")))
ASSIGN = Statement(
    upsert(keys)
    .from_select(
        ["key", "log"],
        # The lock keeps the log from being dropped meanwhile.
        select(bindparam("key", type_=keys.c.key.type), logs.c.name)
        .where(*_of(logs, "name"), logs.c.state != literal_column("'dropping'"))
        .with_for_update(read=True),
    )
    .on_conflict_do_nothing(index_elements=[keys.c.key])
)
COUNT_KEYS = Statement(select(keys.c.log, func.count()).group_by(keys.c.log))
RELEASE_KEYS = Statement(delete(keys).where(*_of(keys, "log")).returning(keys.c.key))

_attend = upsert(workers).values(**_values(workers, "work", "worker"), until=moment_after("seconds"))
ATTEND = Statement(
    _attend.on_conflict_do_update(
        index_elements=[workers.c.work, workers.c.worker], set_={"until": _attend.excluded.until}
    )
)
LEAVE = Statement(delete(workers).where(*_of(workers, "work", "worker")).returning(workers.c.worker))
SWEEP = Statement(
    delete(workers)
    .where(*_of(workers, "work"), workers.c.until < moment_after("no_seconds"))
    .returning(workers.c.worker)
)
PRESENT = Statement(select(workers.c.worker).where(*_of(workers, "work")).order_by(workers.c.worker))

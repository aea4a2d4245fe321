"""SQL constructs that SQLAlchemy Core has no common spelling for, compiled for each database."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Float, Select, Text, Uuid, bindparam, case, literal_column
from sqlalchemy.dialects.postgresql import ARRAY, UUID
from sqlalchemy.dialects.postgresql import dialect as postgresql
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

from esource.domain.stream_closed import STREAM_CLOSED
from esource.tables.model import events
from esource.tables.types import Identifier, Timestamp

# ON CONFLICT is spelled alike in both databases and rendered by both compilers; SQLAlchemy keeps its
# construct in the dialect packages, and one of the two serves (pinned by a test).
__all__ = [
    "CHANNEL",
    "LISTENING_KEY",
    "SAVED",
    "among",
    "byte_order",
    "each_of",
    "iso_text",
    "member_of",
    "moment_after",
    "tell_waiters",
    "upsert",
    "version_or_closed",
    "waiting_key",
]

CHANNEL = "'esource_' || 'events'::regclass::oid"
"""What a PostgreSQL listener of this log listens on, as SQL. A message without content tells of an append."""

LISTENING_KEY = f"{0x65736F6C}, 'events'::regclass::oid::int4"
"""The key of the PostgreSQL advisory lock that those share who listen to this log ("esol"), as SQL."""

SAVED = "saved"
"""The content of the message that tells of a checkpoint."""

_WAITING_LOCK_CLASS = 0x65736F77
"""First half of the key of the lock that a process holds while it waits for a checkpoint ("esow"); `waiting_key` has both."""

_postgresql = postgresql()  # type: ignore[no-untyped-call]

version_or_closed: ColumnElement[int] = case(
    (events.c.event_type == literal_column(f"'{STREAM_CLOSED}'"), -events.c.version), else_=events.c.version
)
"""Of a stream's last event: its version, negative if it closes the stream."""


class iso_text(FunctionElement[str]):  # noqa: N801 - reads as a SQL function
    """A `Timestamp` column in the text form of `esource.tables.types.to_iso`, on every database."""

    name = "iso_text"
    type = Text()
    inherit_cache = True


@compiles(iso_text)
def _iso_text(element: iso_text, compiler: Any, **kw: Any) -> str:
    column = compiler.process(element.clauses, **kw)
    return f"to_char(timezone('UTC', {column}), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"')"


@compiles(iso_text, "sqlite")
def _iso_text_sqlite(element: iso_text, compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


class member_of(FunctionElement[bool]):  # noqa: N801
    """Whether a column of names or ids is among a list given as one parameter, as text.

    An array on PostgreSQL and JSON text on SQLite, so that the statement's text does not depend on how
    many there are (an expanding IN would be compiled anew for each number).
    """

    name = "member_of"
    type = Boolean()
    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], parameter: str) -> None:
        is_uuid = isinstance(column.type, Identifier) or isinstance(
            column.type.dialect_impl(_postgresql), Uuid
        )
        item = UUID() if is_uuid else BigInteger() if column.type.python_type is int else Text()
        super().__init__(column, bindparam(parameter, type_=Text().with_variant(ARRAY(item), "postgresql")))


@compiles(member_of)
def _member_of(element: member_of, compiler: Any, **kw: Any) -> str:
    column, names = element.clauses
    return f"{compiler.process(column, **kw)} = ANY ({compiler.process(names, **kw)})"


@compiles(member_of, "sqlite")
def _member_of_sqlite(element: member_of, compiler: Any, **kw: Any) -> str:
    column, names = element.clauses
    listed = f"SELECT value FROM json_each({compiler.process(names, **kw)})"  # noqa: S608 - compiled parts
    return f"{compiler.process(column, **kw)} IN ({listed})"


class each_of(FunctionElement[str]):  # noqa: N801
    """The texts of a list given as one parameter, as a table with the column ``value``; see `member_of`."""

    name = "each_of"
    type = Text()
    inherit_cache = True

    def __init__(self, parameter: str) -> None:
        super().__init__(bindparam(parameter, type_=Text().with_variant(ARRAY(Text()), "postgresql")))


@compiles(each_of)
def _each_of(element: each_of, compiler: Any, **kw: Any) -> str:
    names = compiler.process(element.clauses, **kw)
    return f"(SELECT listed.value FROM unnest({names}) AS listed(value))"  # noqa: S608 - compiled parts


@compiles(each_of, "sqlite")
def _each_of_sqlite(element: each_of, compiler: Any, **kw: Any) -> str:
    return f"(SELECT value FROM json_each({compiler.process(element.clauses, **kw)}))"  # noqa: S608 - compiled parts


class among(FunctionElement[bool]):  # noqa: N801
    """Whether a column is among the few values that a subquery gives. On PostgreSQL they are gathered first, and looked up
    in an index: it may take them for many, and read the whole table for them."""

    name = "among"
    type = Boolean()
    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], values: Select[Any]) -> None:
        super().__init__(column, values.scalar_subquery())


@compiles(among)
def _among(element: among, compiler: Any, **kw: Any) -> str:
    column, values = element.clauses
    return f"{compiler.process(column, **kw)} = ANY (ARRAY{compiler.process(values, **kw)})"


@compiles(among, "sqlite")
def _among_sqlite(element: among, compiler: Any, **kw: Any) -> str:
    column, values = element.clauses
    return f"{compiler.process(column, **kw)} IN {compiler.process(values, **kw)}"


class byte_order(FunctionElement[str]):  # noqa: N801
    """A text column in the order of its bytes, which is the same in every database and for every locale."""

    name = "byte_order"
    type = Text()
    inherit_cache = True


@compiles(byte_order)
def _byte_order(element: byte_order, compiler: Any, **kw: Any) -> str:
    return f'{compiler.process(element.clauses, **kw)} COLLATE "C"'


@compiles(byte_order, "sqlite")
def _byte_order_sqlite(element: byte_order, compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


class moment_after(FunctionElement[datetime]):  # noqa: N801
    """The time of the database's own clock after the given seconds (a parameter): for what processes on several machines
    must agree about, whatever their own clocks say. SQLite's is its machine's, to the millisecond.

    It is one moment for a whole statement: a pause that ends while the statement runs is over for all of it, or for none.
    """

    name = "moment_after"
    type = Timestamp()
    inherit_cache = True

    def __init__(self, parameter: str) -> None:
        super().__init__(bindparam(parameter, type_=Float()))


@compiles(moment_after)
def _moment_after(element: moment_after, compiler: Any, **kw: Any) -> str:
    return f"statement_timestamp() + make_interval(secs => {compiler.process(element.clauses, **kw)})"


@compiles(moment_after, "sqlite")
def _moment_after_sqlite(element: moment_after, compiler: Any, **kw: Any) -> str:
    seconds = f"printf('%+.3f seconds', {compiler.process(element.clauses, **kw)})"
    return f"strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now', {seconds})"


def waiting_key(name: str) -> str:
    """The key of the PostgreSQL advisory lock that all who wait for a checkpoint share.

    Args:
        name: SQL for the name of the checkpoint, as it is stored.
    """
    return f"{_WAITING_LOCK_CLASS}, hashtext('events'::regclass::oid || {name})"


class tell_waiters(FunctionElement[str]):  # noqa: N801
    """A column for the RETURNING of a statement that moves a checkpoint: its commit tells the waiters, if there are any.

    On PostgreSQL every NOTIFY makes its commit wait for those of others and wakes each connection that listens to
    anything, so none is sent where no process waits. A process that waits shares a lock. If none shares it, the
    transaction that moves the checkpoint holds it alone to its end: a waiter that cannot get it meanwhile looks again.
    The parameter ``tells`` says whether this server has such locks, and listeners. SQLite's waiters see each commit.
    """

    name = "tell_waiters"
    type = Text()
    inherit_cache = True

    def __init__(self, column: ColumnElement[str]) -> None:
        super().__init__(column, bindparam("tells", type_=Boolean()))


@compiles(tell_waiters)
def _tell_waiters(element: tell_waiters, compiler: Any, **kw: Any) -> str:
    if not getattr(compiler.dialect, "tells", True):
        return "CAST(NULL AS text)"
    column, tells = (compiler.process(clause, **kw) for clause in element.clauses)
    return (
        f"CASE WHEN {tells} AND NOT pg_try_advisory_xact_lock({waiting_key(column)}) "
        f"THEN CAST(pg_notify({CHANNEL}, '{SAVED}') AS text) END"
    )


@compiles(tell_waiters, "sqlite")
def _tell_waiters_sqlite(element: tell_waiters, compiler: Any, **kw: Any) -> str:
    return "NULL"


class hides_tags(FunctionElement[bool]):  # noqa: N801
    """Whether this role is one of `esource.schema.roles`, for which row-level security may hide the tags of other tenants."""

    name = "hides_tags"
    type = Boolean()
    inherit_cache = True


@compiles(hides_tags)
def _hides_tags(element: hides_tags, compiler: Any, **kw: Any) -> str:
    return "(row_security_active('event_tags') AND to_regprocedure('esource_tenant()') IS NOT NULL)"


@compiles(hides_tags, "sqlite")
def _hides_tags_sqlite(element: hides_tags, compiler: Any, **kw: Any) -> str:
    return "0"

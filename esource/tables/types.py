"""Column types whose storage differs by database, and nothing else.

======================  ===========================================  ====================
type                    SQLite                                       PostgreSQL
======================  ===========================================  ====================
``Identifier``          TEXT, 36 characters, hyphenated, lower case  UUID
``Timestamp``           TEXT, ISO 8601 in UTC, always microseconds   TIMESTAMPTZ
``Json``                TEXT                                         JSONB
``Name``                TEXT                                         VARCHAR(255)
``Status``              TEXT                                         VARCHAR(20)
``Position``            INTEGER (64 bits)                            BIGINT
======================  ===========================================  ====================

The TEXT timestamp has a fixed width and a fixed offset, so that the order of the text is the order
of time. ``Json`` carries JSON *text* in both directions: nothing is parsed on the way, and SQLite's
own JSON type (numeric affinity: ``1.0`` would come back as ``1``) is avoided.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic_core import SchemaSerializer, core_schema
from sqlalchemy import BigInteger, Integer, String, Text
from sqlalchemy import DateTime as _DateTime
from sqlalchemy import Uuid as _Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from esource.checks import NAME_LENGTH
from esource.moments import as_utc, from_iso, to_iso

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement, Dialect


class as_text(FunctionElement[str]):  # noqa: N801 - reads as a SQL function
    """A UUID or JSON column as text: a cast where the database has such types, else the column itself."""

    name = "as_text"
    type = Text()
    inherit_cache = True


@compiles(as_text)
def _as_text(element: as_text, compiler: Any, **kw: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **kw)} AS TEXT)"


@compiles(as_text, "sqlite")
def _as_text_sqlite(element: as_text, compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


def stores_text(dialect: Dialect) -> bool:
    """Whether ids, moments and JSON are text in a database: SQLite has no types for them."""
    return dialect.name == "sqlite"


_written = SchemaSerializer(core_schema.uuid_schema()).to_python


def id_as_text(value: UUID) -> str:
    """An id as `str` writes it, in a third of the time: `UUID` is written in Python."""
    return _written(value, mode="json")  # type: ignore[no-any-return]


def _id_as_text(value: UUID | None) -> str | None:
    return None if value is None else _written(value, mode="json")


class Identifier(TypeDecorator[UUID]):
    """A UUID: native where the database has one, else 36 characters of hyphenated lower-case text."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if stores_text(dialect):
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(_Uuid(as_uuid=True, native_uuid=True))

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        # Asked once for a statement. PostgreSQL's driver takes a UUID as it is.
        return _id_as_text if stores_text(dialect) else None

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> Any:  # for literals
        return _id_as_text(value) if stores_text(dialect) else value

    def process_result_value(self, value: Any, dialect: Dialect) -> UUID | None:
        return UUID(value) if isinstance(value, str) else value


class Timestamp(TypeDecorator[datetime]):
    """An aware moment: TIMESTAMPTZ, or ISO 8601 text of fixed width in UTC."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if stores_text(dialect):
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(_DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        return to_iso(value) if value is not None and stores_text(dialect) else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return from_iso(value) if isinstance(value, str) else value and as_utc(value)


class Json(TypeDecorator[str]):
    """JSON as text in both directions: JSONB where the database has it, else TEXT.

    The inherited processors would encode the text a second time (a JSON string inside JSONB) or
    parse it on the way out, so this type has none, and reads through a cast to text.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if stores_text(dialect):
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(JSONB())

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        return None

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        return None

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return as_text(column)


Name = String(NAME_LENGTH).with_variant(Text(), "sqlite")
Status = String(20).with_variant(Text(), "sqlite")
Position = BigInteger().with_variant(Integer(), "sqlite")

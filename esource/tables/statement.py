"""SQLAlchemy Core statements, compiled once for each database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from sqlalchemy import String, Uuid

from esource.checks import check_id, check_text
from esource.errors import InvalidEventError, InvalidOptionError
from esource.tables.types import Identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Dialect, Executable
    from sqlalchemy.types import TypeEngine


_KEYS = frozenset({"aggregate_type", "projection_name"})
"""Parameters for columns that are never NULL, wherever they are."""


def _check_id(name: str, value: Any) -> Any:
    """An id, or its text, which only PostgreSQL would refuse if it is none."""
    if value is None or isinstance(value, UUID):
        return value
    try:
        return UUID(value) if isinstance(value, str) else check_id(name, value)
    except ValueError:
        return check_id(name, value)


def _check_words(name: str, value: Any) -> Any:
    """Text, if a database could hold it: only PostgreSQL refuses a NUL, only SQLite's driver raises an error of
    another kind for half a surrogate pair."""
    if value is None or (type(value) is str and value.isascii() and "\x00" not in value):
        return value  # the common case, without another call
    try:
        return check_text(name, value, limit=None)
    except InvalidEventError as error:
        raise InvalidOptionError(str(error)) from None


def _check_key(name: str, value: Any) -> Any:
    """Text that a row is found by: None would find none, without a word."""
    if value is None:
        raise InvalidOptionError(f"{name} must be text, not None")
    return _check_words(name, value)


def _check_of(name: str, kind: TypeEngine[Any]) -> Callable[[str, Any], Any] | None:
    if isinstance(kind, (Identifier, Uuid)):
        return _check_id
    if not isinstance(kind, String):
        return None
    return _check_key if name in _KEYS else _check_words


def checked_names(values: Sequence[Any]) -> list[Any]:
    """The values of a list parameter: names that a database could hold, ids and keys.

    Raises:
        InvalidOptionError: something else.
    """
    return [value if isinstance(value, (UUID, int)) else _check_words("a name", value) for value in values]


class Compiled(NamedTuple):
    """A statement as one database's driver takes it."""

    text: str
    parameters: tuple[tuple[str, Callable[[Any], Any] | None, Callable[[str, Any], Any] | None], ...]
    """Names in the driver's order, each with the type's encoder where it needs one, and what refuses a value
    that one database would take and another would not."""
    constants: Mapping[str, Any]
    """Values that the statement itself brought along."""
    decoders: tuple[Callable[[Any], Any] | None, ...]

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """The positional arguments of one execution.

        Raises:
            InvalidOptionError: an id that is none, or text that not every database can compare or hold.
        """
        if self.constants:
            values = {**values, **self.constants}
        arguments = []
        for name, encode, check in self.parameters:
            value = values[name]
            if check is not None:
                value = check(name, value)
            arguments.append(value if encode is None else encode(value))
        return arguments

    def decode(self, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Driver rows as Python values of the columns' types."""
        return [
            tuple(
                value if read is None else read(value) for value, read in zip(row, self.decoders, strict=True)
            )
            for row in rows
        ]


class Statement:
    """A SQLAlchemy Core statement, compiled once per database and executed as text ever after.

    Core's cost per execution (cached 25-30 µs, built anew 150 µs) is larger than the database's own
    work for these statements.
    """

    def __init__(self, construct: Executable) -> None:
        self.construct = construct
        self._compiled: dict[type[Dialect], Compiled] = {}

    def on(self, dialect: Dialect) -> Compiled:
        """This statement for the databases of a SQLAlchemy dialect."""
        compiled = self._compiled.get(dialect.__class__)
        if compiled is None:
            compiled = self._compiled[dialect.__class__] = self._compile(dialect)
        return compiled

    def _compile(self, dialect: Dialect) -> Compiled:
        compiled: Any = self.construct.compile(  # type: ignore[attr-defined]
            dialect=dialect, compile_kwargs={"render_postcompile": True}
        )
        columns = getattr(self.construct, "exported_columns", ())
        kinds = {name: bind.type.dialect_impl(dialect) for name, bind in compiled.binds.items()}
        return Compiled(
            str(compiled),
            tuple(
                (name, kinds[name].bind_processor(dialect), _check_of(name, kinds[name]))
                for name in compiled.positiontup or ()
            ),
            {name: bind.value for name, bind in compiled.binds.items() if not bind.required},
            tuple(column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns),
        )

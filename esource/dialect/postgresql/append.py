"""PostgreSQL's append: a whole batch in one call of a function, and so in one round trip and one transaction.

The function `esource_append` lies beside the tables. Each of its queries sees what was committed before that query: a version
that it reads after the lock cannot be stale. Its plans stay with the session, whichever log the session works for next; and
where a log lies on another server than the one that is asked, as with Citus, that server runs it whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Text,
    cast,
    func,
    literal_column,
    select,
)

from esource.dialect.backend import Switches
from esource.dialect.plan import Plan
from esource.dialect.postgresql.conditions import as_json
from esource.dialect.postgresql.positions import FROM_ROW
from esource.tables.append_function import LOG_LOCK_CLASS, SIGNATURE
from esource.tables.rows import EncodedEvent

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select

_LAST_VERSION = 2**31 - 1
"""The greatest INTEGER."""

# As the function takes it.
lock_log = func.pg_advisory_xact_lock(
    literal_column(str(LOG_LOCK_CLASS)), literal_column("'events'::regclass::oid::int4")
)
lock_row = func.esource_lock_positions(type_=BigInteger())
"""Locks the row that holds the last position, which it returns; see `positions`."""


def lock_statement(switches: Switches) -> Select[Any]:
    """What takes the append lock until the open transaction ends; one row, with the schema in which that log lies. With the
    advisory lock that row says whether the log draws its positions from a row instead, which is to be locked as well."""
    schema = func.current_schema().label("schema")
    if switches.append_lock == "row":
        return select(lock_row.label("granted"), schema)
    from_row: ColumnElement[Any] = literal_column(FROM_ROW)
    return select(from_row.label("granted"), schema, cast(lock_log, Text()))


_TYPES = SIGNATURE[SIGNATURE.index("(") + 1 : -1].split(", ")
# With their types: no other function of that name, which somebody laid beside it, is taken for it.
_PARAMETERS = ", ".join(f"CAST(${place} AS {kind})" for place, kind in enumerate(_TYPES, 1))
APPEND = f"SELECT versions, accepted, known, positions, refusals FROM esource_append({_PARAMETERS})"  # noqa: S608


def arguments(plan: Plan, switches: Switches) -> list[Any]:
    """The parameters of that statement."""
    streams, rows = plan.streams, plan.rows
    is_one = len(streams) == 1  # all rows are that stream's, in order
    given: list[Any] = [
        [write.stream.aggregate_id for write in streams],
        [write.stream.aggregate_type for write in streams],
        # Past what the column can hold is a conflict like any other, not a value to refuse.
        [min(write.expected_version, _LAST_VERSION) for write in streams],
        [write.first_event_id for write in streams],
        [as_json(write.condition) for write in streams] if plan.conditional else None,
        None if is_one else [index + 1 for index, _, _ in rows],  # ordinals count from 1
        None if is_one else [step for _, step, _ in rows],
    ]
    columns = zip(*[event for _, _, event in rows], strict=True)
    values = [_sent(name, column) for name, column in zip(EncodedEvent._fields, columns, strict=True)]
    return [switches.append_lock == "row", plan.outbox, switches.notify, *given, *values]


_REPEATED = frozenset({"event_type", "tenant_id", "actor_id"})
"""Columns of a batch that often have one value in all rows: then it is sent once."""
_JOINED = frozenset({"payload", "tags"})
"""Columns of JSON, whose texts are sent as one, which costs the client a quarter of what an array of them does."""
SEPARATOR = "\x1f"
"""Between the texts of a joined column: no JSON has this character as it is."""


def _sent(name: str, values: tuple[Any, ...]) -> Any:
    """A column: an array; a text if it is joined; None for nothing but None, which `unnest` fills up."""
    first = values[0]
    if first is values[-1] and (first is None or name in _REPEATED) and values.count(first) == len(values):
        return None if first is None else [first]
    return SEPARATOR.join([text or "" for text in values]) if name in _JOINED else values

"""PostgreSQL's append: a whole batch in one statement, and so in one round trip and one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Integer,
    Text,
    bindparam,
    case,
    cast,
    column,
    exists,
    false,
    func,
    insert,
    literal_column,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP, UUID, aggregate_order_by

from esource.dialect.backend import STANDARD, Switches
from esource.dialect.plan import Plan
from esource.dialect.postgresql.conditions import as_json
from esource.dialect.postgresql.positions import FROM_ROW
from esource.tables.constructs import CHANNEL, LISTENING_KEY, version_or_closed
from esource.tables.model import event_outbox, events
from esource.tables.rows import EncodedEvent
from esource.tables.statement import Statement
from esource.tables.types import Identifier, Json, Timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import CTE, ColumnElement, FromClause, Insert, Select

LOG_LOCK_CLASS = 0x65736F75
"""First half of the append lock's key ("esou"); the second is the events table's own id, so that stores
in other schemas do not wait for each other."""

_LAST_VERSION = 2**31 - 1
"""The greatest INTEGER."""

# A sequence hands out positions before the commit. A writer that takes this lock BEFORE drawing positions and
# holds it to the commit makes them visible in order, for every reader there is.
lock_log = func.pg_advisory_xact_lock(
    literal_column(str(LOG_LOCK_CLASS)), literal_column("'events'::regclass::oid::int4")
)
lock_row = func.esource_lock_positions(type_=BigInteger())
"""Locks the row that holds the last position, which it returns; see `positions`."""
_NOTIFY = f"CAST(pg_notify({CHANNEL}, '') AS text)"
# Delivered at the commit. PostgreSQL lets one such commit at a time on the whole server, so that logs which have
# nothing to do with each other would wait for each other: nobody is told where nobody listens. Whoever listens shares a
# lock, and gets it when no append is under way that has not told.
_told: dict[str, ColumnElement[str]] = {
    "advisory": literal_column(
        f"CASE WHEN NOT pg_try_advisory_xact_lock({LISTENING_KEY}) THEN {_NOTIFY} END"
    ),
    "row": literal_column(_NOTIFY),
}


def _array(name: str, item: Any) -> ColumnElement[Any]:
    # Behind a subquery the planner cannot count the array's elements, so its plan for these arrays is no
    # cheaper than the one for any, and after five executions it plans no more: 444 µs became 208 µs.
    return select(bindparam(name, type_=ARRAY(item))).scalar_subquery()


def _joined(name: str) -> ColumnElement[Any]:
    return func.string_to_array(
        select(bindparam(name, type_=Text())).scalar_subquery(),
        literal_column(f"chr({ord(SEPARATOR)})"),
        literal_column("''"),
    )


_REPEATED = frozenset({"event_type", "tenant_id", "actor_id"})
"""Columns of a batch that often have one value in all rows: then it is sent once."""
_JOINED = frozenset({"payload", "tags"})
"""Columns of JSON, whose texts are sent as one, which costs the client a quarter of what an array of them does."""
SEPARATOR = "\x1f"
"""Between the texts of a joined column: no JSON has this character as it is."""


def _given(name: str, columns: dict[str, Any], *, many: bool) -> FromClause:
    """The values of a batch as a table: from arrays, see `_sent`; from scalars where there is one row only, as most
    often, which takes the server half the time."""
    if not many:
        return select(
            *[cast(bindparam(each, type_=kind), kind).label(each) for each, kind in columns.items()],
            literal_column("1").label("ordinal"),
        ).subquery(name)
    arrays = {
        each: _joined(each) if each in _JOINED else _array(each, kind) for each, kind in columns.items()
    }
    rows = func.unnest(*arrays.values()).table_valued(
        *[column(each, kind) for each, kind in columns.items()],
        with_ordinality="ordinal",
        name=f"sent_{name}",
    )
    sent = rows.render_derived()
    one: ColumnElement[int] = literal_column("1")
    repeated = [
        case((func.cardinality(arrays[each]) == one, arrays[each][one]), else_=sent.c[each]).label(each)
        for each in columns
        if each in _REPEATED
    ]
    return select(*[each for each in sent.c if each.name not in _REPEATED], *repeated).subquery(name)


_STREAM_VALUES = {
    "aggregate_id": UUID(as_uuid=True),
    "aggregate_type": Text(),
    "expected_version": Integer(),
    "first_event_id": UUID(as_uuid=True),
}
_CONDITION = {"condition": Text()}
_PLACE_VALUES = {"stream": Integer(), "step": Integer()}
"""Where a row belongs; when there is one stream, its rows are simply that stream's in order."""
_SENT_AS: dict[type[Any], Any] = {
    Identifier: UUID(as_uuid=True),
    Timestamp: TIMESTAMP(timezone=True),
    Integer: Integer(),
}
"""The types of parameters by those of the model; all others are sent as text."""
_ROW_VALUES = {name: _SENT_AS.get(type(events.c[name].type), Text()) for name in EncodedEvent._fields}
"""What each event of a batch brings."""
_OUTBOX_COLUMNS = [
    "event_id",
    "event_type",
    "aggregate_id",
    "aggregate_type",
    "tenant_id",
    "created_at",
    "global_position",
]


def lock_statement(switches: Switches) -> Select[Any]:
    """What takes the append lock until the open transaction ends; one row, with the schema in which that log lies. With the
    advisory lock that row says whether the log draws its positions from a row instead, which is to be locked as well."""
    schema = func.current_schema().label("schema")
    if switches.append_lock == "row":
        return select(lock_row.label("granted"), schema)
    from_row: ColumnElement[Any] = literal_column(FROM_ROW)
    return select(from_row.label("granted"), schema, cast(lock_log, Text()))


def _statement(
    switches: Switches, *, outbox: bool, streams: bool, rows: bool, conditional: bool
) -> Select[Any]:
    """The whole batch in one round trip; for several streams or one, several rows or one.

    The streams' versions are read once each, in a materialised CTE: a subquery per row would make a
    batch of 1000 four times slower. The lock comes first by data dependency: no row leaves ``stream``
    before it is granted. The snapshot is older than the lock, so a version read here can be stale; the
    unique constraint then refuses, and the caller repeats the batch with the lock taken beforehand.
    """
    by_row = switches.append_lock == "row"
    granted: ColumnElement[Any] = lock_row if by_row else cast(lock_log, Text())
    lock = select(granted.label("granted")).cte("log_lock").prefix_with("MATERIALIZED")
    wanted = _given(
        "wanted", _STREAM_VALUES | (_CONDITION if conditional and not streams else {}), many=streams
    )
    # The stream as a range of the unique index, read backwards. With equalities the planner takes the
    # index by type, or the whole of a young table, to be as cheap, and keeps that plan while the table
    # grows: 840 µs instead of 210 after 1500 events.
    place = tuple_(wanted.c.aggregate_id, wanted.c.aggregate_type)
    stream_of = tuple_(events.c.aggregate_id, events.c.aggregate_type)
    last = (
        select(version_or_closed)
        .where(stream_of >= place, stream_of <= place)
        .order_by(events.c.aggregate_id.desc(), events.c.aggregate_type.desc(), events.c.version.desc())
        .limit(literal_column("1"))
        .scalar_subquery()
    )
    version = func.coalesce(last, literal_column("0"))
    # Its own queries see what was committed before them, so that they come after the lock.
    judged = lock
    refusal: list[ColumnElement[Any]] = []
    if conditional and streams:
        of_all = func.esource_refusals(cast(_array("condition", Text()), ARRAY(JSONB())))
        judged = select(of_all.label("refusals")).select_from(lock).cte("judged").prefix_with("MATERIALIZED")
        refusal = [literal_column("judged.refusals[wanted.ordinal]").label("refusal")]
    elif conditional:
        refusal = [func.esource_refusal(cast(wanted.c.condition, JSONB())).label("refusal")]
    found = (
        select(*wanted.c, version.label("version"), *refusal)
        .select_from(wanted.join(judged, true()))
        .cte("found")
        .prefix_with("MATERIALIZED")
    )
    accepted = case(
        (found.c.version < literal_column("0"), false()),
        *([(found.c.refusal.is_not(None), false())] if conditional else []),
        (found.c.expected_version == literal_column("-1"), true()),
        (found.c.expected_version == literal_column("-2"), found.c.version > literal_column("0")),
        else_=found.c.version == found.c.expected_version,
    )
    stream = select(*found.c, accepted.label("accepted")).cte("stream").prefix_with("MATERIALIZED")
    row = _given("new", {**_PLACE_VALUES, **_ROW_VALUES} if streams else _ROW_VALUES, many=rows)
    placed = (
        select(
            stream.c.aggregate_id,
            stream.c.aggregate_type,
            (stream.c.version + (row.c.step if streams else cast(row.c.ordinal, Integer()))).label("version"),
            *(
                cast(row.c[name], JSONB()).label(name)
                if isinstance(events.c[name].type, Json)
                else row.c[name]
                for name in EncodedEvent._fields
            ),
        )
        .select_from(row.join(stream, stream.c.ordinal == row.c.stream if streams else true()))
        .where(stream.c.accepted)
    )
    names = ["aggregate_id", "aggregate_type", "version", *EncodedEvent._fields]
    if by_row:
        names, placed = ["global_position", *names], _at_drawn_positions(placed, row, lock, rows=rows)
    elif rows:
        # PostgreSQL draws a sequence default after the sort: positions follow the plan's order.
        placed = placed.order_by(row.c.ordinal)
    written: Insert = (
        insert(events)
        .from_select(names, placed)
        .returning(*[events.c[name] for name in (_OUTBOX_COLUMNS if outbox else ["global_position"])])
    )
    inserted = written.cte("inserted")

    def listed(value: Any, order: Any, *, many: bool) -> ColumnElement[Any]:
        return func.array_agg(aggregate_order_by(value, order) if many else value)

    known = case(
        (stream.c.accepted, false()),
        # A condition sees what was committed while the lock was waited for, and this snapshot does not: the event that
        # stands in the way may be this append's own.
        *([(stream.c.refusal.is_not(None), true())] if conditional else []),
        else_=exists(select(literal_column("1")).where(events.c.event_id == stream.c.first_event_id)),
    )
    result = select(
        listed(stream.c.version, stream.c.ordinal, many=streams),
        listed(stream.c.accepted, stream.c.ordinal, many=streams),
        listed(known, stream.c.ordinal, many=streams),
        select(listed(inserted.c.global_position, inserted.c.global_position, many=rows)).scalar_subquery(),
        *([listed(cast(stream.c.refusal, Text()), stream.c.ordinal, many=streams)] if conditional else []),
        *([_told[switches.append_lock]] if switches.notify else []),
    ).select_from(stream)
    if outbox:
        result = result.add_cte(
            insert(event_outbox)
            .from_select(_OUTBOX_COLUMNS, select(*inserted.c).order_by(inserted.c.global_position))
            .cte("outbox")
        )
    return result


def _at_drawn_positions(placed: Select[Any], row: FromClause, lock: CTE, *, rows: bool) -> Select[Any]:
    """The accepted rows behind the last position, which moves on by their number."""
    ordinal = func.row_number().over(order_by=row.c.ordinal) if rows else row.c.ordinal
    accepted = placed.add_columns(ordinal.label("place")).cte("accepted").prefix_with("MATERIALIZED")
    how_many = select(func.count()).select_from(accepted).scalar_subquery()
    drawn = (
        select(func.esource_draw_positions(how_many, lock.c.granted, type_=BigInteger()).label("reached"))
        .cte("drawn")
        .prefix_with("MATERIALIZED")
    )
    return (
        select(drawn.c.reached + accepted.c.place, *(each for each in accepted.c if each.name != "place"))
        .select_from(accepted.join(drawn, true()))
        .order_by(*([accepted.c.place] if rows else []))
    )


Shape: TypeAlias = "tuple[bool, bool, bool, bool]"


def statements(switches: Switches) -> dict[Shape, Statement]:
    """The appends, by the shape of the plan."""
    return {
        (outbox, streams, rows, conditional): Statement(
            _statement(switches, outbox=outbox, streams=streams, rows=rows, conditional=conditional)
        )
        for outbox in (False, True)
        for streams in (False, True)
        for rows in (False, True)
        for conditional in (False, True)
    }


STATEMENTS = statements(STANDARD)


def shape(plan: Plan) -> Shape:
    """Which of the statements writes this plan."""
    return plan.outbox, len(plan.streams) > 1, len(plan.rows) > 1, plan.conditional


def arguments(plan: Plan) -> dict[str, Any]:
    """The parameters of that statement."""
    values = _by_name(
        _STREAM_VALUES,
        # Past what the column can hold is a conflict like any other, not a value to refuse.
        [
            (*write.stream, min(write.expected_version, _LAST_VERSION), write.first_event_id)
            for write in plan.streams
        ],
    )
    if plan.conditional:
        values |= _by_name(_CONDITION, [(as_json(write.condition),) for write in plan.streams])
    values |= _by_name(_ROW_VALUES, [event for _, _, event in plan.rows])
    if len(plan.streams) > 1:
        # Ordinals count from 1.
        values |= _by_name(_PLACE_VALUES, [(index + 1, step) for index, step, _ in plan.rows])
    return values


def _by_name(names: Iterable[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """One row's values, or those of each column as `_given` takes them."""
    if len(rows) == 1:
        return dict(zip(names, rows[0], strict=True))
    columns = zip(*rows, strict=True)
    return {name: _sent(name, values) for name, values in zip(names, columns, strict=True)}


def _sent(name: str, values: tuple[Any, ...]) -> Any:
    """A column of a batch: an array; a text if it is joined; None for nothing but None, which `unnest` fills up."""
    first = values[0]
    if first is values[-1] and (first is None or name in _REPEATED) and values.count(first) == len(values):
        return None if first is None else [first]
    return SEPARATOR.join([text or "" for text in values]) if name in _JOINED else values

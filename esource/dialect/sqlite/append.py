"""SQLite's append: a whole batch in one write transaction of a cursor, in the thread of its connection."""

from __future__ import annotations

from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, literal_column, null, select

from esource.dialect.plan import Plan, Refusal, Written
from esource.dialect.sqlite.conditions import Judge, index_tags
from esource.dialect.sqlite.moving import refuse_if_moved
from esource.moments import utc_now, utc_to_iso
from esource.tables.constructs import version_or_closed
from esource.tables.model import event_outbox, events
from esource.tables.statement import Statement
from esource.tables.types import id_as_text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from sqlalchemy import Dialect

_VERSION = Statement(
    select(version_or_closed)
    .where(
        events.c.aggregate_id == bindparam("aggregate_id"),
        events.c.aggregate_type == bindparam("aggregate_type"),
    )
    .order_by(events.c.version.desc())
    .limit(literal_column("1"))
    .offset(literal_column("0"))  # else SQLAlchemy says it with a parameter
)
_KNOWN = Statement(select(events.c.global_position).where(events.c.event_id == bindparam("event_id")))
_OUTBOX = Statement(
    insert(event_outbox).from_select(
        [
            "event_id",
            "event_type",
            "aggregate_id",
            "aggregate_type",
            "tenant_id",
            "created_at",
            "global_position",
        ],
        select(
            events.c.event_id,
            events.c.event_type,
            events.c.aggregate_id,
            events.c.aggregate_type,
            events.c.tenant_id,
            events.c.created_at,
            events.c.global_position,
        )
        .where(events.c.global_position.between(bindparam("first"), bindparam("last")))
        .order_by(events.c.global_position),
    )
)


_ROWS_AT_ONCE = (50, 10)
"""Rows of one statement, which take half the time that each would take in one of its own. All their values are less than 999,
which is what an older SQLite has room for. OR FAIL, because else SQLite would copy each page before a statement of several rows
changes it, to undo the statement alone: a transaction that fails is undone as a whole."""

_HAS_TRIGGERS = """
SELECT 1 FROM sqlite_master
WHERE type = 'trigger' AND tbl_name = 'events' AND name NOT LIKE 'esource_event_tags_%'
UNION ALL SELECT 1 FROM sqlite_temp_master WHERE type = 'trigger' AND tbl_name = 'events'"""
"""Whether others have made triggers on the log. OR FAIL would hold for the statements in them, too, in place of their own OR
IGNORE and OR REPLACE."""


class Append:
    """Runs plans of appends. It keeps the text of its statements, which the driver knows its prepared ones by."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._version = _VERSION.on(dialect).text
        self._known = _KNOWN.on(dialect).text
        self._outbox = _OUTBOX.on(dialect).text
        self._forms: dict[tuple[int, ...], _Form] = {}

    def run(self, plan: Plan, cursor: sqlite3.Cursor) -> Written:
        """Write what a plan says, as far as its streams are where it expects them, inside an open write transaction."""
        execute = cursor.execute
        versions: list[int] = []
        accepted, known, streams = [], [], []
        judge = Judge(cursor, self._dialect, plan.streams) if plan.conditional else None
        refusals: dict[int, Refusal] = {}
        for (aggregate_id, aggregate_type), expected, first_event_id, condition in plan.streams:
            key = (id_as_text(aggregate_id), aggregate_type)
            version = (execute(self._version, key).fetchone() or (0,))[0]
            fits = version >= 0 and (expected in (version, -1) or (expected == -2 and version > 0))
            if fits and judge and condition and (refusal := judge.refusal(condition)) is not None:
                fits, refusals[len(versions)] = False, refusal
            versions.append(version)
            accepted.append(fits)
            known.append(
                not fits and execute(self._known, (id_as_text(first_event_id),)).fetchone() is not None
            )
            streams.append(key)
        created_at = utc_to_iso(utc_now())
        rows = [
            (
                id_as_text(row.event_id),
                *streams[stream],
                row.event_type,
                None if row.tenant_id is None else id_as_text(row.tenant_id),
                row.actor_id,
                versions[stream] + step,
                utc_to_iso(row.timestamp),
                row.payload,
                created_at,
                row.tags,
            )
            for stream, step, row in plan.rows
            if accepted[stream]
        ]
        if not rows:
            refuse_if_moved(cursor, self._dialect)
            return Written(versions, accepted, known, (), refusals)
        last = self._insert(cursor, rows)
        # AUTOINCREMENT, inside one write transaction: the new positions have no hole between them.
        first = last - len(rows) + 1
        tagged = [(row[-1], place) for place, row in enumerate(rows, first) if row[-1] is not None]
        if tagged:
            index_tags(cursor, self._dialect, tagged)
        if plan.outbox:
            execute(self._outbox, (first, last))
        return Written(versions, accepted, known, range(first, last + 1), refusals)

    def _insert(self, cursor: sqlite3.Cursor, rows: Sequence[tuple[Any, ...]]) -> int:
        """Insert the rows in their order, and return the position of the last."""
        empty = tuple([place for place in _NULLABLE if _is_empty(rows, place)])
        form = self._forms.get(empty)
        if form is None:
            form = self._forms[empty] = _Form(empty, self._dialect)
        if len(rows) == 1:
            cursor.execute(form.insertion(1), form.values(rows[0]))
        else:
            left, values = len(rows), chain.from_iterable(map(form.values, rows))
            is_single = left < _ROWS_AT_ONCE[-1] or cursor.execute(_HAS_TRIGGERS).fetchone() is not None
            for size in (1,) if is_single else (*_ROWS_AT_ONCE, 1):
                pieces, left = divmod(left, size)
                for _ in range(pieces):
                    cursor.execute(form.insertion(size), tuple(islice(values, size * form.width)))
        return cursor.lastrowid or 0


_COLUMNS = [column.name for column in events.c if not column.primary_key]
_NULLABLE = [place for place, name in enumerate(_COLUMNS) if events.c[name].nullable]


def _is_empty(rows: Sequence[tuple[Any, ...]], place: int) -> bool:
    return rows[0][place] is None and {row[place] for row in rows} == {None}


class _Form:
    """Inserts of rows that all have nothing in some of the columns. The statement itself says NULL there: the driver spends as
    much on a None as on three texts."""

    def __init__(self, empty: tuple[int, ...], dialect: Dialect) -> None:
        places = [place for place in range(len(_COLUMNS)) if place not in empty]
        self.values: Callable[[tuple[Any, ...]], tuple[Any, ...]] = itemgetter(*places)
        """The values that are sent of a row."""
        self.width = len(places)
        self._insertions: dict[int, str] = {}
        one = insert(events).values(
            {name: null() if place in empty else bindparam(name) for place, name in enumerate(_COLUMNS)}
        )
        self._into, self._row = Statement(one).on(dialect).text.removeprefix("INSERT ").split(" VALUES ")

    def insertion(self, rows: int) -> str:
        """The statement that inserts so many rows."""
        text = self._insertions.get(rows)
        if text is None:
            insert_ = "INSERT" if rows == 1 else "INSERT OR FAIL"
            text = f"{insert_} {self._into} VALUES {', '.join([self._row] * rows)}"
            self._insertions[rows] = text
        return text

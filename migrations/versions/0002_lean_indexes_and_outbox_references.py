"""Fewer indexes, outbox rows that refer to their event, one form of timestamps.

Eight indexes go, because another serves their queries as well:

- idx_events_aggregate_version repeats the index of its UNIQUE constraint, idx_events_aggregate_id is
  that index's prefix, idx_events_aggregate_type a prefix of idx_events_type_tenant_timestamp;
- idx_snapshots_aggregate_lookup repeats a UNIQUE, idx_snapshots_aggregate_type is a prefix of
  idx_snapshots_schema_version;
- idx_dlq_event_id and idx_dlq_projection_name are prefixes of uq_dlq_event_projection and of
  idx_dlq_projection_status; idx_outbox_status_created repeats idx_outbox_pending.

The events table gets CHECK (version > 0). An outbox row written with an append now holds the event's
global position instead of a copy of its payload. On SQLite, timestamps that other writers left in other
forms are brought into ours (ISO 8601, UTC, microseconds), so that the order of the text is the order of
time; a trigger of eventsource-py that wrote another form goes. So do its table comments and the one index
that only its PostgreSQL schema had, so that an adopted database is the same as one of ours.
"""

import re
from typing import Any

import sqlalchemy as sa
from alembic.util import CommandError
from sqlalchemy.dialects import postgresql

from esource.schema.operations import op, record_revision, require_named_branch

revision = "esource_0002"
down_revision = "esource_0001"
branch_labels = None
depends_on = None

THEIR_COMMENTS = [
    ("events", "Immutable event store containing all domain events"),
    ("events", "Partitioned event store for high-volume deployments"),
    ("event_outbox", "Transactional outbox for reliable event publishing"),
    ("projection_checkpoints", "Tracks projection positions in the event stream"),
    ("dead_letter_queue", "Stores events that failed processing after all retries"),
    ("snapshots", "Point-in-time aggregate state snapshots for fast loading"),
]
"""eventsource-py's on PostgreSQL. A comment that the application wrote stays."""
DROP_THEIR_TRIGGER = """
DO $do$ BEGIN
    IF EXISTS (SELECT FROM pg_trigger WHERE tgname = 'trg_checkpoint_updated_at'
            AND tgrelid = 'projection_checkpoints'::regclass) THEN
        DROP TRIGGER trg_checkpoint_updated_at ON projection_checkpoints;
    END IF;
END $do$"""
"""Citus refuses DROP TRIGGER for a distributed table, even if there is none."""
REDUNDANT_INDEXES = {
    "idx_events_aggregate_id": ("events", ["aggregate_id"]),
    "idx_events_aggregate_type": ("events", ["aggregate_type"]),
    "idx_events_aggregate_version": ("events", ["aggregate_id", "aggregate_type", "version"]),
    "idx_dlq_projection_name": ("dead_letter_queue", ["projection_name"]),
    "idx_dlq_event_id": ("dead_letter_queue", ["event_id"]),
    "idx_snapshots_aggregate_lookup": ("snapshots", ["aggregate_id", "aggregate_type"]),
    "idx_snapshots_aggregate_type": ("snapshots", ["aggregate_type"]),
}
PENDING = {"sqlite_where": sa.text("status = 'pending'"), "postgresql_where": sa.text("status = 'pending'")}

TIMESTAMPS = {
    "events": ["timestamp", "created_at"],
    "event_outbox": ["created_at", "published_at"],
    "projection_checkpoints": ["last_processed_at", "created_at", "updated_at"],
    "dead_letter_queue": ["first_failed_at", "last_failed_at", "resolved_at"],
    "snapshots": ["created_at"],
}
COLUMNS_IN_EVENT_DATA = {
    "event_id": "events.event_id",
    "event_type": "events.event_type",
    "aggregate_id": "events.aggregate_id",
    "aggregate_type": "events.aggregate_type",
    "aggregate_version": "version",
    "tenant_id": "events.tenant_id",
    "actor_id": "actor_id",
}

# What follows is SQLite's: every table of revision 0001, apart from the indexes above.
_ROW = "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT"
_NOW = "TEXT DEFAULT (datetime('now')) NOT NULL"
COLUMNS = {
    "events": {
        "global_position": _ROW,
        "event_id": "TEXT NOT NULL",
        "aggregate_id": "TEXT NOT NULL",
        "aggregate_type": "TEXT NOT NULL",
        "event_type": "TEXT NOT NULL",
        "tenant_id": "TEXT",
        "actor_id": "TEXT",
        "version": "INTEGER NOT NULL",
        "timestamp": "TEXT NOT NULL",
        "payload": "TEXT NOT NULL",
        "created_at": _NOW,
    },
    "event_outbox": {
        "id": _ROW,
        "event_id": "TEXT NOT NULL",
        "event_type": "TEXT NOT NULL",
        "aggregate_id": "TEXT NOT NULL",
        "aggregate_type": "TEXT NOT NULL",
        "tenant_id": "TEXT",
        "event_data": "TEXT NOT NULL",
        "created_at": _NOW,
        "published_at": "TEXT",
        "retry_count": "INTEGER DEFAULT 0 NOT NULL",
        "last_error": "TEXT",
        "status": "TEXT DEFAULT 'pending' NOT NULL",
    },
    "projection_checkpoints": {
        "projection_name": "TEXT NOT NULL",
        "last_event_id": "TEXT",
        "last_event_type": "TEXT",
        "last_processed_at": "TEXT",
        "global_position": "INTEGER",
        "events_processed": "INTEGER DEFAULT 0 NOT NULL",
        "created_at": _NOW,
        "updated_at": _NOW,
    },
    "dead_letter_queue": {
        "id": _ROW,
        "event_id": "TEXT NOT NULL",
        "projection_name": "TEXT NOT NULL",
        "event_type": "TEXT NOT NULL",
        "event_data": "TEXT NOT NULL",
        "error_message": "TEXT NOT NULL",
        "error_stacktrace": "TEXT",
        "retry_count": "INTEGER DEFAULT 0 NOT NULL",
        "first_failed_at": _NOW,
        "last_failed_at": _NOW,
        "status": "TEXT DEFAULT 'failed' NOT NULL",
        "resolved_at": "TEXT",
        "resolved_by": "TEXT",
    },
    "snapshots": {
        "id": _ROW,
        "aggregate_id": "TEXT NOT NULL",
        "aggregate_type": "TEXT NOT NULL",
        "version": "INTEGER NOT NULL",
        "schema_version": "INTEGER DEFAULT 1 NOT NULL",
        "state": "TEXT NOT NULL",
        "created_at": _NOW,
    },
}
CONSTRAINTS = {
    "events": [
        "CONSTRAINT uq_events_aggregate_version UNIQUE (aggregate_id, aggregate_type, version)",
        "CONSTRAINT events_event_id_key UNIQUE (event_id)",
    ],
    "event_outbox": ["CONSTRAINT chk_outbox_status CHECK (status IN ('pending', 'published', 'failed'))"],
    "projection_checkpoints": ["CONSTRAINT projection_checkpoints_pkey PRIMARY KEY (projection_name)"],
    "dead_letter_queue": [
        "CONSTRAINT chk_dlq_status CHECK (status IN ('failed', 'retrying', 'resolved'))",
        "CONSTRAINT uq_dlq_event_projection UNIQUE (event_id, projection_name)",
    ],
    "snapshots": ["CONSTRAINT uq_snapshots_aggregate UNIQUE (aggregate_id, aggregate_type)"],
}
UNIQUE = {
    "events": [("event_id",), ("aggregate_id", "aggregate_type", "version")],
    "event_outbox": [],
    "projection_checkpoints": [],
    "dead_letter_queue": [("event_id", "projection_name")],
    "snapshots": [("aggregate_id", "aggregate_type")],
}
INDEXES: dict[str, dict[str, tuple[str, str | None]]] = {
    "events": {
        "idx_events_event_type": ("event_type", None),
        "idx_events_timestamp": ("timestamp", None),
        "idx_events_tenant_id": ("tenant_id", "tenant_id IS NOT NULL"),
        "idx_events_type_tenant_timestamp": ("aggregate_type, tenant_id, timestamp", None),
    },
    "event_outbox": {
        "idx_outbox_pending": ("created_at", "status = 'pending'"),
        "idx_outbox_event_id": ("event_id", None),
        "idx_outbox_tenant_id": ("tenant_id", "tenant_id IS NOT NULL"),
        "idx_outbox_failed": ("created_at", "status = 'failed'"),
        "idx_outbox_published_at": ("published_at", "status = 'published'"),
    },
    "projection_checkpoints": {
        "idx_checkpoints_last_processed": ("last_processed_at", None),
        "idx_checkpoints_updated_at": ("updated_at", None),
    },
    "dead_letter_queue": {
        "idx_dlq_status": ("status", None),
        "idx_dlq_first_failed_at": ("first_failed_at", None),
        "idx_dlq_projection_status": ("projection_name, status", None),
        "idx_dlq_active_failures": ("first_failed_at", "status IN ('failed', 'retrying')"),
        "idx_dlq_resolved_at": ("resolved_at", "status = 'resolved'"),
    },
    "snapshots": {
        "idx_snapshots_schema_version": ("aggregate_type, schema_version", None),
        "idx_snapshots_created_at": ("created_at", None),
    },
}


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _require_rebuildable(*TIMESTAMPS)
    for index, (table, _) in REDUNDANT_INDEXES.items():
        op.drop_index(index, table)
    op.drop_index("idx_outbox_status_created", "event_outbox")
    if op.get_context().dialect.name == "sqlite":
        op.execute("DROP TRIGGER IF EXISTS trg_checkpoint_updated_at")
        _rebuild_on_sqlite(*TIMESTAMPS, checked=True)
        for table, columns in TIMESTAMPS.items():
            for column in columns:
                _normalise(table, column)
    else:
        op.execute(DROP_THEIR_TRIGGER)
        op.execute("DROP INDEX IF EXISTS idx_checkpoints_global_position")
        for table, comment in THEIR_COMMENTS:
            op.execute(
                f"DO $$ BEGIN IF obj_description('{table}'::regclass, 'pg_class') = '{comment}' "
                f"THEN COMMENT ON TABLE {table} IS NULL; END IF; END $$"
            )
        op.create_check_constraint("chk_events_version", "events", "version > 0")
        op.alter_column("event_outbox", "event_data", existing_type=postgresql.JSONB(), nullable=True)
        op.add_column("event_outbox", sa.Column("global_position", sa.BigInteger()))
    record_revision(op, revision)


def downgrade() -> None:
    require_named_branch(op)
    if op.get_context().dialect.name == "sqlite":
        _require_rebuildable("events", "event_outbox")
        fields = ", ".join(f"'$.{name}', {column}" for name, column in COLUMNS_IN_EVENT_DATA.items())
        _fill_event_data(f"json_set(payload, {fields}, '$.occurred_at', timestamp)", "'{}'")
        _rebuild_on_sqlite("events", "event_outbox", checked=False)
    else:
        fields = ", ".join(f"'{name}', {column}" for name, column in COLUMNS_IN_EVENT_DATA.items())
        moment = """to_char(timezone('UTC', timestamp), 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')"""
        _fill_event_data(
            f"payload || jsonb_build_object({fields}, 'occurred_at', {moment})", "CAST('{}' AS jsonb)"
        )
        op.drop_column("event_outbox", "global_position")
        op.alter_column("event_outbox", "event_data", existing_type=postgresql.JSONB(), nullable=False)
        op.drop_constraint("chk_events_version", "events")
    for index, (table, columns) in REDUNDANT_INDEXES.items():
        op.create_index(index, table, columns)
    op.create_index("idx_outbox_status_created", "event_outbox", ["status", "created_at"], **PENDING)
    record_revision(op, down_revision)


def _fill_event_data(whole_event: str, nothing: str) -> None:
    """Write the event into the outbox rows that only refer to it; the event may have been deleted."""
    op.execute(
        f"UPDATE event_outbox SET event_data = coalesce((SELECT {whole_event} FROM events "
        f"WHERE events.event_id = event_outbox.event_id), {nothing}) WHERE event_data IS NULL"
    )


def _rebuild_on_sqlite(*tables: str, checked: bool) -> None:
    """SQLite cannot alter a constraint: the tables are written anew, with the sequences they had.

    Stated in full rather than reflected, so that a file of eventsource-py, whose constraints have no
    names, comes out the same as one of ours.
    """
    suspended, broken = _suspend_foreign_keys(), _broken_references()
    # Else the renaming would fail over a view of the application's that reads one of these tables.
    op.execute("PRAGMA legacy_alter_table = ON")
    # A sequence may be ahead of the last row; a copied table would start again at its last row, and give
    # a position out twice.
    op.execute("CREATE TEMPORARY TABLE esource_sequences AS SELECT name, seq FROM sqlite_sequence")
    for table in tables:
        added = _added_by_the_application(table)
        definition, columns = _definition(table, checked=checked)
        op.execute(f"CREATE TABLE esource_new_{table} ({definition})")
        op.execute(f"INSERT INTO esource_new_{table} ({columns}) SELECT {columns} FROM {table}")
        op.execute(f"DROP TABLE {table}")
        op.execute(f"ALTER TABLE esource_new_{table} RENAME TO {table}")
        op.execute(f"DELETE FROM sqlite_sequence WHERE name = '{table}'")
        op.execute(
            "INSERT INTO sqlite_sequence (name, seq) SELECT name, seq FROM esource_sequences "
            f"WHERE name = '{table}'"
        )
        for index, (columns, condition) in INDEXES[table].items():
            where = {"sqlite_where": sa.text(condition)} if condition else {}
            op.create_index(index, table, columns.split(", "), **where)
        for statement in added:
            op.get_bind().exec_driver_sql(statement)
    op.execute("DROP TABLE esource_sequences")
    op.execute("PRAGMA legacy_alter_table = OFF")
    if _broken_references() - broken:
        raise CommandError(f"rows that refer to {', '.join(tables)} would lose what they refer to")
    if suspended:
        op.execute("PRAGMA foreign_keys = ON")


def _rows(statement: str) -> list[Any]:
    """What a query finds; nothing where only SQL is printed."""
    if op.get_context().as_sql:
        return []
    return op.get_bind().exec_driver_sql(statement).fetchall()


def _suspend_foreign_keys() -> bool:
    """Switch foreign keys off, unless a transaction is open: then the PRAGMA does nothing."""
    if op.get_context().as_sql:
        op.execute("PRAGMA foreign_keys = OFF")
        return False
    was_on = _rows("PRAGMA foreign_keys") == [(1,)]
    if was_on:
        op.execute("PRAGMA foreign_keys = OFF")
    return was_on


def _broken_references() -> set[Any]:
    try:
        return {tuple(row) for row in _rows("PRAGMA foreign_key_check")}
    except sa.exc.OperationalError:
        return set()  # a reference to what has no unique index: SQLite cannot check it, before and after


def _require_rebuildable(*tables: str) -> None:
    """Refuse, before anything is changed, to write a table anew where something would be lost.

    A new table has our columns and the columns that the application has added, with type, NOT NULL and default. With
    foreign keys on, SQLite deletes the rows of a table that is dropped, and with them, or not, what refers to them.
    """
    for table in tables:
        if lost := _what_would_be_lost(table):
            raise CommandError(
                f"SQLite has to write the table {table} anew, and would lose {', '.join(lost)}, which esource does not "
                "know. Nothing was changed. Take it away first, and make it anew afterwards."
            )
    if _rows("PRAGMA foreign_keys") != [(1,)]:
        return
    op.execute("PRAGMA foreign_keys = OFF")
    in_a_transaction = _rows("PRAGMA foreign_keys") == [(1,)]
    op.execute("PRAGMA foreign_keys = ON")
    if not in_a_transaction:
        return
    for (referring,) in _rows("SELECT name FROM sqlite_master WHERE type = 'table'"):
        quoted = referring.replace('"', '""')
        for row in _rows(f'PRAGMA foreign_key_list("{quoted}")'):
            if row[2].lower() in tables:
                raise CommandError(
                    f"the table {referring} refers to {row[2]}, which has to be written anew, and PRAGMA foreign_keys is "
                    "on: SQLite would delete or break its rows. Nothing was changed. Run `esource upgrade`, which "
                    "switches it off first, or switch it off before the transaction begins."
                )


def _what_would_be_lost(table: str) -> list[str]:
    columns = _rows(f"PRAGMA table_xinfo({table})")
    lost = [f"the generated column {row[1]}" for row in columns if row[6] in (2, 3)]
    lost += [f"the reference to {row[2]}" for row in _rows(f"PRAGMA foreign_key_list({table})")]
    ours = {name for names in UNIQUE[table] for name in names}
    for row in _rows(f"PRAGMA index_list({table})"):
        if row[3] == "u":
            quoted = row[1].replace('"', '""')
            unique = {found[2] for found in _rows(f'PRAGMA index_info("{quoted}")')}
            if not unique <= ours:
                lost.append(f"UNIQUE ({', '.join(sorted(unique))})")
    for (sql,) in _rows(f"SELECT sql FROM sqlite_master WHERE type = 'table' AND name = '{table}'"):
        said = re.sub(r"--.*|'[^']*'", "", sql).upper()
        checks = len(re.findall(r"\bCHECK\s*\(", said)) - said.count("CHK_EVENTS_VERSION")
        if checks > sum("CHECK" in constraint for constraint in CONSTRAINTS[table]):
            lost.append("a CHECK")
        if re.search(r"\bCOLLATE\b", said):
            lost.append("a COLLATE")
        if re.search(r"\)\s*(STRICT|WITHOUT\s+ROWID)", said):
            lost.append("STRICT or WITHOUT ROWID")
    return lost


def _added_by_the_application(table: str) -> list[str]:
    """Indexes and triggers that go with the dropped table but are not ours. A script cannot know them."""
    if op.get_context().as_sql:
        return []
    found = op.get_bind().execute(
        sa.text(
            "SELECT name, sql FROM sqlite_master "
            "WHERE tbl_name = :table AND type IN ('index', 'trigger') AND sql IS NOT NULL"
        ),
        {"table": table},
    )
    return [sql for name, sql in found if name not in INDEXES[table]]


def _definition(table: str, *, checked: bool) -> tuple[str, str]:
    """A table of this revision (or of the one before), and the columns to copy into it."""
    columns = {**COLUMNS[table], **_columns_of_the_application(table)}
    names = ", ".join(columns)
    constraints = CONSTRAINTS[table]
    if checked and table == "events":
        constraints = [*constraints, "CONSTRAINT chk_events_version CHECK (version > 0)"]
    if checked and table == "event_outbox":
        columns = {**columns, "event_data": "TEXT", "global_position": "INTEGER"}
    return ", ".join([*(f"{name} {kind}" for name, kind in columns.items()), *constraints]), names


def _columns_of_the_application(table: str) -> dict[str, str]:
    """The columns that the application has added, as they are said in CREATE TABLE."""
    ours = {*COLUMNS[table], *(["global_position"] if table == "event_outbox" else [])}
    found = {}
    for _, name, kind, is_required, default, *_ in _rows(f"PRAGMA table_xinfo({table})"):
        if name not in ours:
            words = [
                kind,
                f"DEFAULT ({default})" if default is not None else "",
                "NOT NULL" if is_required else "",
            ]
            quoted = name.replace('"', '""')
            found[f'"{quoted}"'] = " ".join(filter(None, words))
    return found


def _normalise(table: str, column: str) -> None:
    """Bring a column's moments into the form YYYY-MM-DDTHH:MM:SS.ffffff+00:00.

    What is not understood stays as it is. SQLite reckons in milliseconds: the fraction is kept out of
    the conversion and put back digit by digit.
    """
    two, four = "[0-9]" * 2, "[0-9]" * 4
    ours = f"{four}-{two}-{two}T{two}:{two}:{two}.{two * 3}+00:00"
    tail = f"substr({column}, 20)"
    offset = f"ltrim({tail}, '.0123456789')"
    fraction = f"ltrim(substr({tail}, 1, length({tail}) - length({offset})), '.')"
    known_offset = (
        f"CASE WHEN {offset} IN ('', 'Z', 'z') THEN '' "
        f"WHEN {offset} GLOB '[+-]{two}:{two}' THEN {offset} "
        f"WHEN {offset} GLOB '[+-]{four}' THEN substr({offset}, 1, 3) || ':' || substr({offset}, 4) "
        f"WHEN {offset} GLOB '[+-]{two}' THEN {offset} || ':' || '00' END"
    )
    moment = f"strftime('%Y-%m-%dT%H:%M:%S', substr({column}, 1, 19) || {known_offset})"
    op.execute(
        f"UPDATE {table} SET {column} = {moment} || '.' || substr({fraction} || '000000', 1, 6) || '+00:00' "
        f"WHERE {column} NOT GLOB '{ours}' AND {moment} IS NOT NULL"
    )

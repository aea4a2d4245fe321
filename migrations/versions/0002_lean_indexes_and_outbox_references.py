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
time; a trigger of eventsource-py that wrote another form goes.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from esource.schema import record_revision

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

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


def upgrade() -> None:
    on_sqlite = op.get_context().dialect.name == "sqlite"
    if on_sqlite:
        op.execute("DROP TRIGGER IF EXISTS trg_checkpoint_updated_at")
    else:
        op.execute("DROP TRIGGER IF EXISTS trg_checkpoint_updated_at ON projection_checkpoints")
        op.execute("DROP INDEX IF EXISTS idx_checkpoints_global_position")
    for index, (table, _) in REDUNDANT_INDEXES.items():
        op.drop_index(index, table)
    op.drop_index("idx_outbox_status_created", "event_outbox")
    if on_sqlite:
        _rebuild_on_sqlite(checked=True)
        for table, columns in TIMESTAMPS.items():
            for column in columns:
                _normalise(table, column)
    else:
        op.create_check_constraint("chk_events_version", "events", "version > 0")
        op.alter_column("event_outbox", "event_data", existing_type=postgresql.JSONB(), nullable=True)
        op.add_column("event_outbox", sa.Column("global_position", sa.BigInteger()))
    record_revision(op, revision)


def downgrade() -> None:
    op.execute(
        "UPDATE event_outbox SET event_data = coalesce((SELECT payload FROM events "
        "WHERE events.event_id = event_outbox.event_id), '{}') WHERE event_data IS NULL"
    )
    if op.get_context().dialect.name == "sqlite":
        _rebuild_on_sqlite(checked=False)
    else:
        op.drop_column("event_outbox", "global_position")
        op.alter_column("event_outbox", "event_data", existing_type=postgresql.JSONB(), nullable=False)
        op.drop_constraint("chk_events_version", "events")
    for index, (table, columns) in REDUNDANT_INDEXES.items():
        op.create_index(index, table, columns)
    op.create_index("idx_outbox_status_created", "event_outbox", ["status", "created_at"], **PENDING)
    record_revision(op, down_revision)


def _rebuild_on_sqlite(*, checked: bool) -> None:
    """SQLite cannot alter a constraint: the table is written anew, with the sequence it had.

    Stated in full rather than reflected, so that a file of eventsource-py, whose constraints have no
    names, comes out the same as one of ours.
    """
    # A sequence may be ahead of the last row; a copied table would start again at its last row, and give
    # a position out twice.
    op.execute("CREATE TEMPORARY TABLE esource_sequences AS SELECT name, seq FROM sqlite_sequence")
    now = "(datetime('now'))"
    op.execute(
        f"""CREATE TABLE esource_new_events (
            global_position INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
            event_id TEXT NOT NULL,
            aggregate_id TEXT NOT NULL,
            aggregate_type TEXT NOT NULL,
            event_type TEXT NOT NULL,
            tenant_id TEXT,
            actor_id TEXT,
            version INTEGER NOT NULL,
            timestamp TEXT NOT NULL,
            payload TEXT NOT NULL,
            created_at TEXT DEFAULT {now} NOT NULL,
            CONSTRAINT uq_events_aggregate_version UNIQUE (aggregate_id, aggregate_type, version),
            {"CONSTRAINT chk_events_version CHECK (version > 0)," if checked else ""}
            CONSTRAINT events_event_id_key UNIQUE (event_id)
        )"""
    )
    _replace(
        "events",
        "global_position, event_id, aggregate_id, aggregate_type, event_type, tenant_id, actor_id, version, "
        "timestamp, payload, created_at",
    )
    op.create_index("idx_events_event_type", "events", ["event_type"])
    op.create_index("idx_events_timestamp", "events", ["timestamp"])
    op.create_index(
        "idx_events_tenant_id", "events", ["tenant_id"], sqlite_where=sa.text("tenant_id IS NOT NULL")
    )
    op.create_index(
        "idx_events_type_tenant_timestamp", "events", ["aggregate_type", "tenant_id", "timestamp"]
    )

    op.execute(
        f"""CREATE TABLE esource_new_event_outbox (
            id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
            event_id TEXT NOT NULL,
            event_type TEXT NOT NULL,
            aggregate_id TEXT NOT NULL,
            aggregate_type TEXT NOT NULL,
            tenant_id TEXT,
            event_data TEXT {"" if checked else "NOT NULL"},
            created_at TEXT DEFAULT {now} NOT NULL,
            published_at TEXT,
            retry_count INTEGER DEFAULT 0 NOT NULL,
            last_error TEXT,
            status TEXT DEFAULT 'pending' NOT NULL,
            {"global_position INTEGER," if checked else ""}
            CONSTRAINT chk_outbox_status CHECK (status IN ('pending', 'published', 'failed'))
        )"""
    )
    _replace(
        "event_outbox",
        "id, event_id, event_type, aggregate_id, aggregate_type, tenant_id, event_data, created_at, "
        "published_at, retry_count, last_error, status",
    )
    for index, column, condition in (
        ("idx_outbox_pending", "created_at", "status = 'pending'"),
        ("idx_outbox_event_id", "event_id", None),
        ("idx_outbox_tenant_id", "tenant_id", "tenant_id IS NOT NULL"),
        ("idx_outbox_failed", "created_at", "status = 'failed'"),
        ("idx_outbox_published_at", "published_at", "status = 'published'"),
    ):
        where = {"sqlite_where": sa.text(condition)} if condition else {}
        op.create_index(index, "event_outbox", [column], **where)
    op.execute("DROP TABLE esource_sequences")


def _replace(table: str, columns: str) -> None:
    op.execute(f"INSERT INTO esource_new_{table} ({columns}) SELECT {columns} FROM {table}")
    op.execute(f"DROP TABLE {table}")
    op.execute(f"ALTER TABLE esource_new_{table} RENAME TO {table}")
    op.execute(f"DELETE FROM sqlite_sequence WHERE name = '{table}'")
    op.execute(
        f"INSERT INTO sqlite_sequence (name, seq) SELECT name, seq FROM esource_sequences WHERE name = '{table}'"
    )


def _normalise(table: str, column: str) -> None:
    """Bring a column's moments into the form YYYY-MM-DDTHH:MM:SS.ffffff+00:00."""
    digits = {n: "[0-9]" * n for n in (2, 3, 4, 6)}
    ours = f"{digits[4]}-{digits[2]}-{digits[2]}T{digits[2]}:{digits[2]}:{digits[2]}.{digits[6]}+00:00"
    offset = f"CASE WHEN substr({column}, -6) GLOB '[+-]{digits[2]}:{digits[2]}' THEN substr({column}, -6) ELSE '' END"
    # SQLite reckons in milliseconds: the fraction is kept out of the conversion and put back as it was.
    op.execute(
        f"UPDATE {table} SET {column} = "
        f"strftime('%Y-%m-%dT%H:%M:%S', substr({column}, 1, 19) || {offset}) || "
        f"CASE WHEN substr({column}, 20) GLOB '.{digits[6]}*' THEN substr({column}, 20, 7) "
        f"WHEN substr({column}, 20) GLOB '.{digits[3]}*' THEN substr({column}, 20, 4) || '000' "
        f"ELSE '.000000' END || '+00:00' "
        f"WHERE {column} NOT GLOB '{ours}' AND strftime('%s', substr({column}, 1, 19)) IS NOT NULL"
    )

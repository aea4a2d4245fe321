"""The five tables as eventsource-py 0.4 and 0.5 had them: a database of theirs can be stamped 0001.

Names of tables, columns and indexes are part of the contract. Constraints have the names that
PostgreSQL gives them by itself, on SQLite too.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from esource.schema.operations import op, record_revision, require_named_branch

revision = "esource_0001"
down_revision = None
branch_labels = ("esource",)
depends_on = None

identifier = postgresql.UUID(as_uuid=True).with_variant(sa.Text(), "sqlite")
moment = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
name = sa.String(255).with_variant(sa.Text(), "sqlite")
status = sa.String(20).with_variant(sa.Text(), "sqlite")
json = postgresql.JSONB().with_variant(sa.Text(), "sqlite")
position = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    on_sqlite = op.get_context().dialect.name == "sqlite"
    now = sa.text("(datetime('now'))") if on_sqlite else sa.text("now()")

    def created(column: str) -> sa.Column:
        return sa.Column(column, moment, nullable=False, server_default=now)

    def where(condition: str) -> dict[str, sa.TextClause]:
        return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}

    op.create_table(
        "events",
        sa.Column("global_position", position, autoincrement=True, nullable=False),
        sa.Column("event_id", identifier, nullable=False),
        sa.Column("aggregate_id", identifier, nullable=False),
        sa.Column("aggregate_type", name, nullable=False),
        sa.Column("event_type", name, nullable=False),
        sa.Column("tenant_id", identifier),
        sa.Column("actor_id", name),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("timestamp", moment, nullable=False),
        sa.Column("payload", json, nullable=False),
        created("created_at"),
        sa.PrimaryKeyConstraint("global_position", name="events_pkey"),
        sa.UniqueConstraint("event_id", name="events_event_id_key"),
        sa.UniqueConstraint("aggregate_id", "aggregate_type", "version", name="uq_events_aggregate_version"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_events_aggregate_id", "events", ["aggregate_id"])
    op.create_index("idx_events_aggregate_type", "events", ["aggregate_type"])
    op.create_index("idx_events_event_type", "events", ["event_type"])
    op.create_index("idx_events_timestamp", "events", ["timestamp"])
    op.create_index("idx_events_tenant_id", "events", ["tenant_id"], **where("tenant_id IS NOT NULL"))
    op.create_index(
        "idx_events_type_tenant_timestamp", "events", ["aggregate_type", "tenant_id", "timestamp"]
    )
    op.create_index("idx_events_aggregate_version", "events", ["aggregate_id", "aggregate_type", "version"])

    op.create_table(
        "event_outbox",
        sa.Column(
            "id",
            sa.Integer() if on_sqlite else postgresql.UUID(as_uuid=True),
            autoincrement=False,  # on SQLite the table's option says so; on PostgreSQL it would mean SERIAL
            nullable=False,
            server_default=None if on_sqlite else sa.text("gen_random_uuid()"),
        ),
        sa.Column("event_id", identifier, nullable=False),
        sa.Column("event_type", name, nullable=False),
        sa.Column("aggregate_id", identifier, nullable=False),
        sa.Column("aggregate_type", name, nullable=False),
        sa.Column("tenant_id", identifier),
        sa.Column("event_data", json, nullable=False),
        created("created_at"),
        sa.Column("published_at", moment),
        sa.Column("retry_count", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("last_error", sa.Text()),
        sa.Column("status", status, nullable=False, server_default=sa.text("'pending'")),
        sa.PrimaryKeyConstraint("id", name="event_outbox_pkey"),
        sa.CheckConstraint("status IN ('pending', 'published', 'failed')", name="chk_outbox_status"),
        sqlite_autoincrement=True,
    )
    pending = where("status = 'pending'")
    op.create_index("idx_outbox_status_created", "event_outbox", ["status", "created_at"], **pending)
    op.create_index("idx_outbox_pending", "event_outbox", ["created_at"], **pending)
    op.create_index("idx_outbox_event_id", "event_outbox", ["event_id"])
    op.create_index("idx_outbox_tenant_id", "event_outbox", ["tenant_id"], **where("tenant_id IS NOT NULL"))
    op.create_index("idx_outbox_failed", "event_outbox", ["created_at"], **where("status = 'failed'"))
    op.create_index(
        "idx_outbox_published_at", "event_outbox", ["published_at"], **where("status = 'published'")
    )

    op.create_table(
        "projection_checkpoints",
        sa.Column("projection_name", name, nullable=False),
        sa.Column("last_event_id", identifier),
        sa.Column("last_event_type", name),
        sa.Column("last_processed_at", moment),
        sa.Column("global_position", position),
        sa.Column("events_processed", position, nullable=False, server_default=sa.text("0")),
        created("created_at"),
        created("updated_at"),
        sa.PrimaryKeyConstraint("projection_name", name="projection_checkpoints_pkey"),
    )
    op.create_index("idx_checkpoints_last_processed", "projection_checkpoints", ["last_processed_at"])
    op.create_index("idx_checkpoints_updated_at", "projection_checkpoints", ["updated_at"])

    op.create_table(
        "dead_letter_queue",
        sa.Column("id", position, autoincrement=True, nullable=False),
        sa.Column("event_id", identifier, nullable=False),
        sa.Column("projection_name", name, nullable=False),
        sa.Column("event_type", name, nullable=False),
        sa.Column("event_data", json, nullable=False),
        sa.Column("error_message", sa.Text(), nullable=False),
        sa.Column("error_stacktrace", sa.Text()),
        sa.Column("retry_count", sa.Integer(), nullable=False, server_default=sa.text("0")),
        created("first_failed_at"),
        created("last_failed_at"),
        sa.Column("status", status, nullable=False, server_default=sa.text("'failed'")),
        sa.Column("resolved_at", moment),
        sa.Column("resolved_by", name),
        sa.PrimaryKeyConstraint("id", name="dead_letter_queue_pkey"),
        sa.CheckConstraint("status IN ('failed', 'retrying', 'resolved')", name="chk_dlq_status"),
        sa.UniqueConstraint("event_id", "projection_name", name="uq_dlq_event_projection"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_dlq_status", "dead_letter_queue", ["status"])
    op.create_index("idx_dlq_projection_name", "dead_letter_queue", ["projection_name"])
    op.create_index("idx_dlq_event_id", "dead_letter_queue", ["event_id"])
    op.create_index("idx_dlq_first_failed_at", "dead_letter_queue", ["first_failed_at"])
    op.create_index("idx_dlq_projection_status", "dead_letter_queue", ["projection_name", "status"])
    op.create_index(
        "idx_dlq_active_failures",
        "dead_letter_queue",
        ["first_failed_at"],
        **where("status IN ('failed', 'retrying')"),
    )
    op.create_index(
        "idx_dlq_resolved_at", "dead_letter_queue", ["resolved_at"], **where("status = 'resolved'")
    )

    op.create_table(
        "snapshots",
        sa.Column("id", position, autoincrement=True, nullable=False),
        sa.Column("aggregate_id", identifier, nullable=False),
        sa.Column("aggregate_type", name, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False, server_default=sa.text("1")),
        sa.Column("state", json, nullable=False),
        created("created_at"),
        sa.PrimaryKeyConstraint("id", name="snapshots_pkey"),
        sa.UniqueConstraint("aggregate_id", "aggregate_type", name="uq_snapshots_aggregate"),
        sqlite_autoincrement=True,
    )
    op.create_index("idx_snapshots_aggregate_lookup", "snapshots", ["aggregate_id", "aggregate_type"])
    op.create_index("idx_snapshots_aggregate_type", "snapshots", ["aggregate_type"])
    op.create_index("idx_snapshots_schema_version", "snapshots", ["aggregate_type", "schema_version"])
    op.create_index("idx_snapshots_created_at", "snapshots", ["created_at"])
    record_revision(op, revision)


def downgrade() -> None:
    require_named_branch(op)
    for table in ("snapshots", "dead_letter_queue", "projection_checkpoints", "event_outbox", "events"):
        op.drop_table(table)
    if op.get_context().dialect.name == "postgresql":
        # What row-level security leaves when its tables go.
        for function in (
            "esource_own_stream(uuid, text)",
            "esource_own_stream(uuid, text, integer)",
            "esource_own_row(jsonb)",
            "esource_newest_outbox_row()",
            "esource_every_tenant()",
            "esource_tenant()",
            "esource_progress(text)",
        ):
            op.execute(f"DROP FUNCTION IF EXISTS {function}")
        op.execute("DROP TABLE IF EXISTS esource_tenant_roles")
        # What a log leaves that draws its positions from a row.
        op.execute("DROP FUNCTION IF EXISTS esource_lock_positions()")
        op.execute("DROP FUNCTION IF EXISTS esource_draw_positions(bigint, bigint)")
        op.execute("DROP FUNCTION IF EXISTS esource_has_drawn(bigint)")
        op.execute("DROP TABLE IF EXISTS esource_append_lock")
    record_revision(op, None)

"""Leases: one worker of a projection at a time, one relay per outbox row at a time.

A checkpoint names the worker that holds it and until when; another may take it over after that moment.
It also says which version of a projection's read model is the one to read.
An outbox row names the relay that has claimed it and until when, and the moment before which it is not
to be tried again; two indexes serve the search for the next rows of the log and of a stream. All columns may be NULL, so that the release before this one goes on writing.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from esource.schema.operations import op, record_revision, require_named_branch

revision = "esource_0003"
down_revision = "esource_0002"
branch_labels = None
depends_on = None

NAME = sa.Text().with_variant(sa.String(255), "postgresql")
MOMENT = sa.Text().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")

COLUMNS = {
    "projection_checkpoints": {"lease_owner": NAME, "lease_until": MOMENT, "active_version": sa.Integer()},
    "event_outbox": {"available_at": MOMENT, "claimed_by": NAME, "claimed_until": MOMENT},
}

INDEXES = {
    "idx_outbox_position": ["global_position"],
    "idx_outbox_stream": ["aggregate_id", "aggregate_type", "global_position"],
}
PENDING = {"sqlite_where": sa.text("status = 'pending'"), "postgresql_where": sa.text("status = 'pending'")}


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        for name, kind in columns.items():
            op.add_column(table, sa.Column(name, kind))
    for index, columns in INDEXES.items():
        op.create_index(index, "event_outbox", columns, **PENDING)
    # Rows that hold a copy of their event get its place in the log, so that they keep their stream's order.
    op.execute(
        "UPDATE event_outbox SET global_position = (SELECT events.global_position FROM events "
        "WHERE events.event_id = event_outbox.event_id) WHERE global_position IS NULL"
    )
    record_revision(op, revision)


def downgrade() -> None:
    require_named_branch(op)
    for index in INDEXES:
        op.drop_index(index, "event_outbox")
    for table, columns in COLUMNS.items():
        for name in reversed(columns):
            op.drop_column(table, name)
    record_revision(op, down_revision)

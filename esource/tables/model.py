"""The table model: seven tables, described once for both databases.

This module says what the newest schema is; the scripts in ``migrations/`` lead there, and a test
proves that both give the same tables. Database differences live in the column types
(`esource.tables.types`); constraints carry the names that PostgreSQL would give them, on SQLite too, so that
an error can be told by the constraint's name. A column that came after revision 0001 says since when in
its ``info``.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    DDL,
    CheckConstraint,
    Column,
    FetchedValue,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    event,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from esource.tables.types import Identifier, Json, Name, Position, Status, Timestamp

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "ck": "%(constraint_name)s",
        "ix": "%(constraint_name)s",
    }
)


class _Now(FunctionElement[Any]):
    """The column default for rows that others write; our own writers always name the moment."""

    inherit_cache = True


@compiles(_Now)
def _now(element: _Now, compiler: Any, **kw: Any) -> str:
    return "now()"


@compiles(_Now, "sqlite")
def _now_sqlite(element: _Now, compiler: Any, **kw: Any) -> str:
    return "(datetime('now'))"


events = Table(
    "events",
    metadata,
    Column("global_position", Position, primary_key=True, autoincrement=True),
    Column("event_id", Identifier, nullable=False, unique=True),
    Column("aggregate_id", Identifier, nullable=False),
    Column("aggregate_type", Name, nullable=False),
    Column("event_type", Name, nullable=False),
    Column("tenant_id", Identifier),
    Column("actor_id", Name),
    Column("version", Integer, nullable=False),
    Column("timestamp", Timestamp, nullable=False),
    Column("payload", Json, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=_Now()),
    Column("tags", Json, info={"since": "0004"}),
    UniqueConstraint("aggregate_id", "aggregate_type", "version", name="uq_events_aggregate_version"),
    CheckConstraint("version > 0", name="chk_events_version"),
    sqlite_autoincrement=True,
)
"""The log. A stream is (aggregate_type, aggregate_id) and ``version`` counts its events from 1;
``global_position`` orders the whole log and may have holes. ``payload`` holds what no column holds. ``tags``, if there
are any, is a sorted array of texts."""


def indexes_of(table: Table) -> list[Index]:
    """A table's indexes, without those of its constraints, by name: always in one order."""
    return sorted(table.indexes, key=lambda index: str(index.name))


Index("idx_events_event_type", events.c.event_type)
Index("idx_events_timestamp", events.c.timestamp)
Index(
    "idx_events_tenant_id",
    events.c.tenant_id,
    postgresql_where=events.c.tenant_id.is_not(None),
    sqlite_where=events.c.tenant_id.is_not(None),
)
Index("idx_events_type_tenant_timestamp", events.c.aggregate_type, events.c.tenant_id, events.c.timestamp)


def _where(condition: str) -> dict[str, Any]:
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


event_outbox = Table(
    "event_outbox",
    metadata,
    # AUTOINCREMENT on SQLite comes from the table's option; autoincrement=True would mean SERIAL to PostgreSQL.
    Column(
        "id",
        Integer().with_variant(Uuid(), "postgresql"),
        primary_key=True,
        autoincrement=False,
        server_default=FetchedValue(),  # either way the database makes it
    ),
    Column("event_id", Identifier, nullable=False),
    Column("event_type", Name, nullable=False),
    Column("aggregate_id", Identifier, nullable=False),
    Column("aggregate_type", Name, nullable=False),
    Column("tenant_id", Identifier),
    Column("event_data", Json),
    Column("created_at", Timestamp, nullable=False, server_default=_Now()),
    Column("published_at", Timestamp),
    Column("retry_count", Integer, nullable=False, server_default=text("0")),
    Column("last_error", Text),
    Column("status", Status, nullable=False, server_default=text("'pending'")),
    Column("global_position", Position, info={"since": "0002"}),
    Column("available_at", Timestamp, info={"since": "0003"}),
    Column("claimed_by", Name, info={"since": "0003"}),
    Column("claimed_until", Timestamp, info={"since": "0003"}),
    CheckConstraint("status IN ('pending', 'published', 'failed')", name="chk_outbox_status"),
    sqlite_autoincrement=True,
)
"""Events waiting to be published. Rows written with an append refer to the event by its position;
``event_data`` is filled only for rows added by hand. A relay that has claimed a row keeps the others off
it until ``claimed_until``; after a failed attempt it is not to be tried again before ``available_at``."""

# A UUID on PostgreSQL, a row number on SQLite, as in the databases we take over: one Column cannot carry
# a default for one database only.
event.listen(
    event_outbox,
    "after_create",
    DDL("ALTER TABLE event_outbox ALTER COLUMN id SET DEFAULT gen_random_uuid()").execute_if(  # type: ignore[no-untyped-call]
        dialect="postgresql"
    ),
)

Index("idx_outbox_pending", event_outbox.c.created_at, **_where("status = 'pending'"))
Index("idx_outbox_event_id", event_outbox.c.event_id)
Index("idx_outbox_tenant_id", event_outbox.c.tenant_id, **_where("tenant_id IS NOT NULL"))
Index("idx_outbox_failed", event_outbox.c.created_at, **_where("status = 'failed'"))
Index("idx_outbox_position", event_outbox.c.global_position, **_where("status = 'pending'"))
Index(
    "idx_outbox_stream",
    event_outbox.c.aggregate_id,
    event_outbox.c.aggregate_type,
    event_outbox.c.global_position,
    **_where("status = 'pending'"),
)
Index("idx_outbox_published_at", event_outbox.c.published_at, **_where("status = 'published'"))


projection_checkpoints = Table(
    "projection_checkpoints",
    metadata,
    Column("projection_name", Name, primary_key=True),
    Column("last_event_id", Identifier),
    Column("last_event_type", Name),
    Column("last_processed_at", Timestamp),
    Column("global_position", Position),
    Column("events_processed", Position, nullable=False, server_default=text("0")),
    Column("created_at", Timestamp, nullable=False, server_default=_Now()),
    Column("updated_at", Timestamp, nullable=False, server_default=_Now()),
    Column("lease_owner", Name, info={"since": "0003"}),
    Column("lease_until", Timestamp, info={"since": "0003"}),
    Column("active_version", Integer, info={"since": "0003"}),
)
"""How far each projection has read the log, and which worker of it is at work, until when. The row with
a projection's bare name says which version of its read model readers are to use."""

Index("idx_checkpoints_last_processed", projection_checkpoints.c.last_processed_at)
Index("idx_checkpoints_updated_at", projection_checkpoints.c.updated_at)


dead_letter_queue = Table(
    "dead_letter_queue",
    metadata,
    Column("id", Position, primary_key=True, autoincrement=True),
    Column("event_id", Identifier, nullable=False),
    Column("projection_name", Name, nullable=False),
    Column("event_type", Name, nullable=False),
    Column("event_data", Json, nullable=False),
    Column("error_message", Text, nullable=False),
    Column("error_stacktrace", Text),
    Column("retry_count", Integer, nullable=False, server_default=text("0")),
    Column("first_failed_at", Timestamp, nullable=False, server_default=_Now()),
    Column("last_failed_at", Timestamp, nullable=False, server_default=_Now()),
    Column("status", Status, nullable=False, server_default=text("'failed'")),
    Column("resolved_at", Timestamp),
    Column("resolved_by", Name),
    CheckConstraint("status IN ('failed', 'retrying', 'resolved')", name="chk_dlq_status"),
    UniqueConstraint("event_id", "projection_name", name="uq_dlq_event_projection"),
    sqlite_autoincrement=True,
)
"""Events that a projection gave up on, once per event and projection."""

Index("idx_dlq_status", dead_letter_queue.c.status)
Index("idx_dlq_first_failed_at", dead_letter_queue.c.first_failed_at)
Index("idx_dlq_projection_status", dead_letter_queue.c.projection_name, dead_letter_queue.c.status)
Index(
    "idx_dlq_active_failures",
    dead_letter_queue.c.first_failed_at,
    **_where("status IN ('failed', 'retrying')"),
)
Index("idx_dlq_resolved_at", dead_letter_queue.c.resolved_at, **_where("status = 'resolved'"))


snapshots = Table(
    "snapshots",
    metadata,
    Column("id", Position, primary_key=True, autoincrement=True),
    Column("aggregate_id", Identifier, nullable=False),
    Column("aggregate_type", Name, nullable=False),
    Column("version", Integer, nullable=False),
    Column("schema_version", Integer, nullable=False, server_default=text("1")),
    Column("state", Json, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=_Now()),
    UniqueConstraint("aggregate_id", "aggregate_type", name="uq_snapshots_aggregate"),
    sqlite_autoincrement=True,
)
"""The newest saved state of an aggregate, so that loading replays only what came after it."""

Index("idx_snapshots_schema_version", snapshots.c.aggregate_type, snapshots.c.schema_version)
Index("idx_snapshots_created_at", snapshots.c.created_at)


event_tags = Table(
    "event_tags",
    metadata,
    Column("tag", Name, primary_key=True),
    Column("global_position", Position, primary_key=True, autoincrement=False),
    info={"since": "0004"},
    sqlite_with_rowid=False,
)
"""The index of the tags of all events: made of ``events.tags``, in the same transaction. Triggers do that; on SQLite
whoever inserts an event."""


tag_fillings = Table(
    "tag_fillings",
    metadata,
    Column("event_type", Name, primary_key=True),
    Column("tag_name", Name, primary_key=True),
    Column("global_position", Position, nullable=False),
    Column("completed_at", Timestamp),
    info={"since": "0004"},
)
"""Which tags are given to events that were stored before their class declared them, and how far that has come: every
event of the type up to ``global_position`` has its tags of that name. While ``completed_at`` is empty, a query over such a
tag is refused."""

import inspect
import re
from uuid import uuid4

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

import esource
from esource import errors
from esource.errors import EventSourceError, InvalidOptionError
from esource.moments import utc_now
from esource.tables import dead_letter_queue, event_outbox, events, projection_checkpoints, snapshots


def drawn_tree():
    """The docstring's tree as child -> parent."""
    parents, path = {}, []
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            parents[found[2]] = path[depth - 1] if depth else None
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    classes = {
        name: cls
        for name, cls in vars(errors).items()
        if inspect.isclass(cls) and issubclass(cls, Exception) and cls.__module__ == errors.__name__
    }
    real = {
        name: next((base.__name__ for base in cls.__bases__ if issubclass(base, EventSourceError)), None)
        for name, cls in classes.items()
    }
    assert drawn_tree() == real
    assert len(real) > 15


def test_every_error_is_documented():
    for cls in EventSourceError.__subclasses__():
        assert cls.__doc__


def test_a_wrong_argument_is_also_a_value_error():
    with pytest.raises(ValueError, match="position"):
        raise InvalidOptionError("position")


def test_the_public_names_are_these():
    assert sorted(esource.__all__) == sorted(
        """
        BatchPublisher FastStreamPublisher OutboxRelay Publisher to_cloud_event
        POSTGRESQL_AVAILABLE SQLITE_AVAILABLE AggregateNotFoundError AggregateRepository AggregateRoot
        AppendResult CheckpointRepository DLQRepository DeclarativeAggregate DomainEvent DuplicateEventError
        EventPublisher EventRegistry EventSourceError EventStore EventStream Every ExpectedVersion Health
        InMemoryCheckpointRepository InMemoryDLQRepository InMemoryEventStore InMemoryOutboxRepository
        InMemorySnapshotStore InvalidEventError InvalidOptionError Lease Limits OptimisticLockError
        OutboxRepository PostgreSQLCheckpointRepository PostgreSQLDLQRepository PostgreSQLEventStore
        PostgreSQLOutboxRepository PostgreSQLSnapshotStore Projection ProjectionContext
        ProjectionFailedError ProjectionRunner ReadDirection ReadOptions Retry SQLiteCheckpointRepository
        SQLiteDLQRepository SQLiteEventStore SQLiteOutboxRepository SQLiteSnapshotStore Snapshot
        AppendCondition AppendConditionError Query QueryItem QueryResult Tag
        SnapshotStore StoredEvent StreamClosed StreamClosedError Subscription TenantMismatchError Transaction UntypedEvent View
        active_version correlated default_registry handles open_store partition_of register_event upcaster
    """.split()
    )
    for name in esource.__all__:
        assert getattr(esource, name) is not None


async def test_constraints_have_the_same_names_on_both_databases(shared_store):
    """Each is violated once, by hand; the error names it alike."""
    i, j, now = uuid4(), uuid4(), utc_now()
    event = {
        "event_id": i, "aggregate_id": i, "aggregate_type": "A", "event_type": "E", "version": 1,
        "timestamp": now, "payload": "{}", "created_at": now,
    }  # fmt: skip
    letter = {
        "event_id": i, "projection_name": "p", "event_type": "E", "event_data": "{}", "error_message": "x",
    }  # fmt: skip
    snapshot = {"aggregate_id": i, "aggregate_type": "A", "version": 1, "state": "{}"}
    row = {"event_id": i, "event_type": "E", "aggregate_id": i, "aggregate_type": "A"}
    for table, values in [
        (events, event),
        (dead_letter_queue, letter),
        (snapshots, snapshot),
        (projection_checkpoints, {"projection_name": "p"}),
    ]:
        async with shared_store.transaction() as tx:
            await tx.connection.execute(insert(table).values(values))
    backend = shared_store._opened.database.backend
    for table, values, name in [
        (events, {**event, "event_id": j}, "uq_events_aggregate_version"),
        (events, {**event, "version": 2}, "events_event_id_key"),
        (events, {**event, "event_id": j, "version": 0}, "chk_events_version"),
        (dead_letter_queue, letter, "uq_dlq_event_projection"),
        (dead_letter_queue, {**letter, "event_id": j, "status": "gone"}, "chk_dlq_status"),
        (snapshots, snapshot, "uq_snapshots_aggregate"),
        (event_outbox, {**row, "status": "gone"}, "chk_outbox_status"),
        (projection_checkpoints, {"projection_name": "p"}, "projection_checkpoints_pkey"),
    ]:
        with pytest.raises((IntegrityError, EventSourceError)) as refused:
            async with shared_store.transaction() as tx:
                await tx.connection.execute(insert(table).values(values))
        found = refused.value
        if not isinstance(found, EventSourceError):
            found = backend.explain(found, "the database")
        assert found.constraint == name

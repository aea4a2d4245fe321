"""What the tables beside the log of every event store must do: see `esource.testing.conformance`."""

from __future__ import annotations

from uuid import UUID, uuid4

from esource import (
    CheckpointRepository,
    DLQRepository,
    DomainEvent,
    EventStore,
    OutboxRepository,
    Snapshot,
    SnapshotStore,
)


class Noted(DomainEvent):
    event_type: str = "esource.conformance.Noted"
    aggregate_type: str = "Conformance"
    text: str = "x"


def noted(stream: UUID) -> Noted:
    return Noted(aggregate_id=stream)


class BesideTheLogConformance:
    """Checkpoints, snapshots, dead letters and the outbox."""

    async def test_a_checkpoint_moves_only_forward(self, event_store: EventStore) -> None:
        checkpoints = CheckpointRepository(event_store)
        assert await checkpoints.get_position("p") is None
        event = uuid4()
        for position, is_news, then in [(3, True, 3), (3, False, 3), (2, False, 3), (8, True, 8)]:
            assert await checkpoints.save_position("p", position, event, "Noted") is is_news
            assert await checkpoints.get_position("p") == then
        [found] = await checkpoints.get_all_checkpoints()
        assert (found.projection_name, found.last_event_id, found.events_processed) == ("p", event, 2)
        await checkpoints.reset_checkpoint("p")
        assert await checkpoints.get_all_checkpoints() == []

    async def test_lag_is_what_is_past_the_checkpoint(self, event_store: EventStore) -> None:
        checkpoints, stream = CheckpointRepository(event_store), uuid4()
        events = [noted(stream), noted(stream), noted(stream)]
        await event_store.append_events(stream, "Conformance", events)
        assert await checkpoints.get_lag_metrics("p") is None
        await checkpoints.update_checkpoint("p", events[0].event_id, events[0].event_type)
        lag = await checkpoints.get_lag_metrics("p")
        assert lag is not None
        assert (lag.lag_events, lag.latest_event_id) == (2, str(events[2].event_id))

    async def test_an_older_snapshot_never_overwrites_a_newer_one(self, event_store: EventStore) -> None:
        snapshots, stream = SnapshotStore(event_store), uuid4()
        assert await snapshots.get_snapshot(stream, "Conformance") is None
        assert await snapshots.save_snapshot(Snapshot(stream, "Conformance", 2, {"a": 2.0}, schema_version=3))
        assert not await snapshots.save_snapshot(Snapshot(stream, "Conformance", 1, {"a": 1.0}))
        found = await snapshots.get_snapshot(stream, "Conformance")
        assert found is not None
        assert (found.version, found.state, found.schema_version) == (2, {"a": 2.0}, 3)
        assert await snapshots.delete_snapshot(stream, "Conformance")
        assert not await snapshots.snapshot_exists(stream, "Conformance")

    async def test_a_dead_letter_is_kept_once_with_its_last_error(self, event_store: EventStore) -> None:
        letters, event = DLQRepository(event_store), uuid4()
        first = await letters.add_failed_event(event, "p", "Noted", {"a": 1}, ValueError("first"))
        again = await letters.add_failed_event(event, "p", "Noted", {"a": 1}, KeyError("second"), 2)
        assert first == again
        [entry] = await letters.get_failed_events("p")
        assert (entry.event_id, entry.event_data, entry.retry_count) == (event, {"a": 1}, 2)
        assert entry.error_message == "KeyError: 'second'"
        assert await letters.mark_retrying(first)
        assert await letters.mark_resolved(first, "me")
        assert await letters.get_failed_events("p") == []
        assert not await letters.mark_retrying(first)

    async def test_the_outbox_gives_events_in_order_until_they_are_published(
        self, event_store: EventStore
    ) -> None:
        outbox, stream = OutboxRepository(event_store), uuid4()
        events = [noted(stream), noted(stream)]
        await event_store.append_events(stream, "Conformance", events)
        pending = await outbox.get_pending_events()
        assert len(pending) == (2 if event_store.outbox_enabled else 0)
        if not pending:
            for event in events:
                await outbox.add_event(event)
            pending = await outbox.get_pending_events()
        assert [entry.event_id for entry in pending] == [event.event_id for event in events]
        assert [entry.event_data["text"] for entry in pending] == ["x", "x"]
        assert await outbox.increment_retry(pending[0].id, "later") == 1
        assert await outbox.mark_published(pending[0].id)
        assert await outbox.mark_failed(pending[1].id, "never")
        stats = await outbox.get_stats()
        assert (stats.pending_count, stats.published_count, stats.failed_count) == (0, 1, 1)

    async def test_what_a_transaction_wrote_beside_the_log_goes_with_it(
        self, event_store: EventStore
    ) -> None:
        stream, event = uuid4(), noted(uuid4())
        try:
            async with event_store.transaction() as transaction:
                await transaction.checkpoints.save_position("p", 1, event.event_id, "Noted")
                await transaction.snapshots.save_snapshot(Snapshot(stream, "Conformance", 1, {}))
                await transaction.dead_letters.add_failed_event(
                    event.event_id, "p", "Noted", {}, ValueError("x")
                )
                await transaction.outbox.add_event(event)
                raise RuntimeError("on purpose")  # noqa: TRY301
        except RuntimeError:
            pass
        assert await CheckpointRepository(event_store).get_position("p") is None
        assert not await SnapshotStore(event_store).snapshot_exists(stream, "Conformance")
        assert await DLQRepository(event_store).get_failed_events() == []
        assert await OutboxRepository(event_store).get_pending_events() == []

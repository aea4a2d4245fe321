"""What can be done with the tables beside the log: checkpoints, snapshots, dead letters, the outbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from adversity.model.operations import HOSTILE, STREAMS, TENANTS, Operation, Store, of
from adversity.model.plain import Letter, Plain
from esource import ReadOptions, Snapshot

NAMES = ["balances", "a'b\"c", "%s :x ?"]


def stored_name(name: int, tenant: int | None) -> str:
    return NAMES[name] if tenant is None else f"{TENANTS[tenant]}:{NAMES[name]}"


# -- checkpoints ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SavePosition(Operation):
    name: int
    place: int
    tenant: int | None
    types: tuple[str, ...] | None

    def on_model(self, plain: Plain) -> Any:
        is_news = None
        name = stored_name(self.name, self.tenant)
        if plain.log:
            is_news = plain.save_position(name, 1 + self.place % len(plain.log), UUID(int=self.place))
        return is_news, self.look(plain)

    def look(self, plain: Plain) -> Any:
        """The checkpoint, and how far it is behind: how many events, and the last of all."""
        kept = plain.checkpoints.get(stored_name(self.name, self.tenant))
        if kept is None:
            return None
        seen = [place for place, _ in plain.read(ReadOptions(event_types=self.types), None, of(self.tenant))]
        behind = sum(place > (kept[0] or 0) for place in seen)
        return *kept, behind, seen[-1] if seen else None

    async def on_store(self, target: Store, beside: Any) -> Any:
        checkpoints = target.tables(self.tenant, beside).checkpoints
        places = await target.places()
        is_news = None
        if places:
            at = places[self.place % len(places)]
            is_news = await checkpoints.save_position(NAMES[self.name], at, UUID(int=self.place), "Counted")
        return is_news, await self.found(checkpoints, target)

    async def found(self, checkpoints: Any, target: Store) -> Any:
        types = None if self.types is None else list(self.types)
        lag = await checkpoints.get_lag_metrics(NAMES[self.name], types)
        if lag is None:
            return None
        log = [(each.global_position, str(each.event_id)) async for each in target.store.read_all()]
        positions, ids = [each[0] for each in log], [each[1] for each in log]
        at = None if lag.global_position is None else positions.index(lag.global_position) + 1
        latest = lag.latest_event_id and ids.index(lag.latest_event_id) + 1
        last_event_id = lag.last_event_id and UUID(lag.last_event_id)
        return at, last_event_id, lag.events_processed, lag.lag_events, latest


@dataclass(frozen=True)
class SaveEvent(SavePosition):
    """Saved by the id of an event, which may not be stored, or be another tenant's."""

    def on_model(self, plain: Plain) -> Any:
        name, event_id = stored_name(self.name, self.tenant), UUID(int=1000 + self.place)
        found = plain.event(event_id, of(self.tenant))
        is_news = plain.save_position(name, found and found[0], event_id)
        return is_news, self.look(plain)

    async def on_store(self, target: Store, beside: Any) -> Any:
        checkpoints = target.tables(self.tenant, beside).checkpoints
        event_id = UUID(int=1000 + self.place)
        is_news = await checkpoints.update_checkpoint(NAMES[self.name], event_id, "Counted")
        return is_news, await self.found(checkpoints, target)


@dataclass(frozen=True)
class ResetCheckpoint(Operation):
    name: int
    tenant: int | None

    def on_model(self, plain: Plain) -> Any:
        plain.checkpoints.pop(stored_name(self.name, self.tenant), None)
        prefix = "" if self.tenant is None else f"{TENANTS[self.tenant]}:"
        return sorted(name.removeprefix(prefix) for name in plain.checkpoints if name.startswith(prefix))

    async def on_store(self, target: Store, beside: Any) -> Any:
        checkpoints = target.tables(self.tenant, beside).checkpoints
        await checkpoints.reset_checkpoint(NAMES[self.name])
        return sorted(data.projection_name for data in await checkpoints.get_all_checkpoints())


# -- snapshots -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SaveSnapshot(Operation):
    stream: int
    version: int
    schema: int
    tenant: int | None

    def on_model(self, plain: Plain) -> Any:
        stream, state = STREAMS[self.stream], {"v": HOSTILE[self.version]}
        saved = plain.save_snapshot(stream, self.version, self.schema, state, of(self.tenant))
        return saved, plain.snapshots[stream]

    async def on_store(self, target: Store, beside: Any) -> Any:
        snapshots = target.tables(self.tenant, beside).snapshots
        stream = STREAMS[self.stream]
        state = {"v": HOSTILE[self.version]}
        saved = await snapshots.save_snapshot(Snapshot(*stream, self.version, state, self.schema))
        found = await snapshots.get_snapshot(*stream)
        return saved, (found.version, found.schema_version, found.state)


@dataclass(frozen=True)
class DeleteSnapshot(Operation):
    """One, or those of a whole type below a schema version; looking beforehand."""

    stream: int
    below: int | None
    tenant: int | None

    def on_model(self, plain: Plain) -> Any:
        stream = STREAMS[self.stream]
        own = plain.snapshots_of(of(self.tenant))
        gone = [
            key
            for key, kept in own.items()
            if (key == stream if self.below is None else key[1] == stream[1] and kept[1] < self.below)
        ]
        for key in gone:
            del plain.snapshots[key]
        return stream in own, len(gone)

    async def on_store(self, target: Store, beside: Any) -> Any:
        snapshots = target.tables(self.tenant, beside).snapshots
        stream = STREAMS[self.stream]
        was_there = await snapshots.snapshot_exists(*stream)
        if self.below is None:
            return was_there, int(await snapshots.delete_snapshot(*stream))
        return was_there, await snapshots.delete_snapshots_by_type(stream[1], self.below)


# -- dead letters --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AddLetter(Operation):
    number: int
    name: int
    attempts: int
    tenant: int | None

    def on_model(self, plain: Plain) -> Any:
        tenant = of(self.tenant)
        plain.add_letter(UUID(int=1000 + self.number), NAMES[self.name], self.attempts, tenant)
        return listed(plain.letters_of(tenant))

    async def on_store(self, target: Store, beside: Any) -> Any:
        letters = target.tables(self.tenant, beside).dead_letters
        await letters.add_failed_event(
            UUID(int=1000 + self.number), NAMES[self.name], "X", {"a": 1}, ValueError("\x00no"), self.attempts
        )
        return await found_letters(letters)


@dataclass(frozen=True)
class ChangeLetter(Operation):
    place: int
    resolves: bool
    tenant: int | None

    def on_model(self, plain: Plain) -> Any:
        letters = plain.letters_of(of(self.tenant))
        if not letters:
            return None
        letter = letters[self.place % len(letters)]
        changed = self.resolves or letter.status != "resolved"
        if changed:
            letter.status = "resolved" if self.resolves else "retrying"
            letter.attempts += not self.resolves
        return changed, listed(letters)

    async def on_store(self, target: Store, beside: Any) -> Any:
        letters = target.tables(self.tenant, beside).dead_letters
        found = await letters.get_failed_events(status=None)
        if not found:
            return None
        entry = found[self.place % len(found)]
        if self.resolves:
            changed = await letters.mark_resolved(entry.id, "me")
        else:
            changed = await letters.mark_retrying(entry.id)
        return changed, await found_letters(letters)


@dataclass(frozen=True)
class CountLetters(Operation):
    """Totals, and a selection; perhaps after what is resolved has been swept out."""

    name: int | None
    status: str | None
    limit: int
    sweeps: bool
    tenant: int | None

    def on_model(self, plain: Plain) -> Any:
        letters = plain.letters_of(of(self.tenant))
        swept = [letter for letter in letters if self.sweeps and letter.status == "resolved"]
        plain.letters = [letter for letter in plain.letters if letter not in swept]
        letters = [letter for letter in letters if letter not in swept]
        open_ones = [letter for letter in letters if letter.status != "resolved"]
        names = [letter.name for letter in open_ones]
        name = None if self.name is None else NAMES[self.name]
        chosen = [
            each for each in letters if name in (None, each.name) and self.status in (None, each.status)
        ]
        retrying = sum(letter.status == "retrying" for letter in open_ones)
        return (
            len(swept),
            (len(open_ones) - retrying, retrying, len(set(names))),
            {each: names.count(each) for each in names},
            listed(chosen[: self.limit]),
        )

    async def on_store(self, target: Store, beside: Any) -> Any:
        letters = target.tables(self.tenant, beside).dead_letters
        swept = await letters.delete_resolved_events(0 if self.sweeps else 30)
        stats = await letters.get_failure_stats()
        counts = await letters.get_projection_failure_counts()
        name = None if self.name is None else NAMES[self.name]
        return (
            swept,
            (stats.total_failed, stats.total_retrying, stats.affected_projections),
            {each.projection_name: each.failure_count for each in counts},
            await found_letters(letters, name, self.status, self.limit),
        )


def listed(letters: list[Letter]) -> Any:
    return [(letter.event_id, letter.name, letter.attempts, letter.status) for letter in letters]


async def found_letters(
    letters: Any, name: str | None = None, status: str | None = None, limit: int = 100
) -> Any:
    found = await letters.get_failed_events(name, status, limit)
    return [(e.event_id, e.projection_name, e.retry_count, e.status) for e in found]


# -- the outbox ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChangeOutbox(Operation):
    place: int
    how: str  # publish, fail, count (an attempt), again (what failed), clean
    tenant: int | None

    def on_model(self, plain: Plain) -> Any:
        tenant = of(self.tenant)
        pending = plain.outbox_of(tenant, "pending")
        done = 0
        if self.how == "again":
            for row in plain.outbox_of(tenant, "failed"):
                row.status, row.attempts, done = "pending", 0, done + 1
        elif self.how == "clean":
            gone = plain.outbox_of(tenant, "published")
            plain.outbox, done = [row for row in plain.outbox if row not in gone], len(gone)
        elif pending:
            row = pending[self.place % len(pending)]
            row.attempts += self.how == "count"
            row.status = {"publish": "published", "fail": "failed"}.get(self.how, row.status)
            done = row.attempts if self.how == "count" else 1
        pending = plain.outbox_of(tenant, "pending")
        counts = [len(plain.outbox_of(tenant, status)) for status in ("pending", "published", "failed")]
        return done, [row.attempts for row in pending], counts, sum(row.attempts for row in pending)

    async def on_store(self, target: Store, beside: Any) -> Any:
        outbox = target.tables(self.tenant, beside).outbox
        pending = await outbox.get_pending_events(1000)
        done = 0
        if self.how == "again":
            done = await outbox.retry_failed()
        elif self.how == "clean":
            done = await outbox.cleanup_published(0)
        elif pending:
            entry = pending[self.place % len(pending)]
            if self.how == "count":
                done = await outbox.increment_retry(entry.id, "no")
            elif self.how == "publish":
                done = int(await outbox.mark_published(entry.id))
            else:
                done = int(await outbox.mark_failed(entry.id, "no"))
        pending = await outbox.get_pending_events(1000)
        positions = [entry.global_position for entry in pending]
        assert positions == sorted(positions)
        stats = await outbox.get_stats()
        counts = [stats.pending_count, stats.published_count, len(await outbox.get_failed_events(1000))]
        assert counts[2] == stats.failed_count
        attempts = [entry.retry_count for entry in pending]
        return done, attempts, counts, round(stats.avg_retries * stats.pending_count)

"""Appending to the log for one store: what an append may hold, its row values, and its way to the database."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from functools import partial
from itertools import islice
from uuid import UUID

from esource.checks import STANDARD_LIMITS, Limits, check_id, check_name, shown
from esource.codec.codec import Codec
from esource.database.database import Database
from esource.database.transactions import Connection
from esource.database.unit_of_work import Unit, open_units
from esource.dialect.plan import Condition
from esource.domain.events import UNASSIGNED, DomainEvent, filled_in
from esource.domain.queries import AppendCondition
from esource.domain.stream_closed import STREAM_CLOSED, StreamClosed
from esource.domain.tags import NO_TAGS, Tag, declared_tags, given_tags, tagged_fields, tags_to_store
from esource.errors import DuplicateEventError, InvalidEventError, InvalidOptionError, StreamClosedError
from esource.log.appender import Appender
from esource.log.batch import Append
from esource.log.reader import LogReader
from esource.log.streams import AppendResult, ExpectedVersion
from esource.log.tenants import append_as_tenant, owned
from esource.tables.rows import EncodedEvent, StreamId
from esource.telemetry import span


class LogWriter:
    """Appends to the log as one store does: for its tenant, with its keys, within its limits."""

    def __init__(self, reader: LogReader, appender: Appender, limits: Limits = STANDARD_LIMITS) -> None:
        self._reader = reader
        self._database: Database = reader.database
        self._codec: Codec = reader.codec
        self._key_store = reader.key_store
        self._tenant_id = reader.tenant_id
        self._tracer = reader.tracer
        self._appender = appender
        self._limits = limits
        self._is_plain = self._tenant_id is None and self._tracer is None

    def for_tenant(self, tenant_id: UUID) -> LogWriter:
        """The same writer, of one tenant's events."""
        return LogWriter(self._reader.for_tenant(tenant_id), self._appender, self._limits)

    def append(
        self,
        stream: StreamId,
        events: Sequence[DomainEvent],
        expected_version: int,
        within: Unit | Connection | None = None,
        condition: AppendCondition | None = None,
        tags: Iterable[str] = (),
    ) -> Awaitable[AppendResult]:
        """Check and encode the events now; what is returned writes them. See `EventStore.append_events`.

        Args:
            stream: Where they belong.
            events: In order.
            expected_version: The stream's.
            within: The transaction to write them in: ours, or a connection of the application's.
            condition: What must not have come meanwhile.
            tags: Tags of all of them, beside those that their classes declare.
        """
        if type(expected_version) is not int or expected_version < -2:
            raise InvalidOptionError(
                f"expected_version must be an int from 0, or one of ExpectedVersion, not {expected_version!r}"
            )
        limits = self._limits
        aggregate_id, aggregate_type = stream
        check_name("aggregate_type", aggregate_type, limits.name_characters)
        events = _few_enough(events, limits.append_events)
        wanted = None if condition is None else self._wanted(condition)
        if self._key_store is not None:
            return self._append_with_keys(stream, events, expected_version, within, wanted, tags)
        encode = self._codec.encode
        encoded = [encode(event, aggregate_type, aggregate_id) for event in events]
        given = given_tags(tags) if tags else NO_TAGS
        if given or Tag.are_used:
            encoded = _tagged(events, encoded, given)
        if encoded and within is None and self._is_plain and not open_units.get():
            # The way of most appends: nothing is left to ask, and no frame of ours waits for the queue.
            append = Append(stream, encoded, expected_version, wanted, given)
            if len(encoded) > 1:
                _check_together(append, limits)
            return self._appender.append(append)
        return self._write(stream, encoded, expected_version, within, wanted, given)

    def append_named(
        self,
        events: Sequence[DomainEvent],
        condition: AppendCondition | None,
        tags: Iterable[str],
        within: Unit | Connection | None = None,
    ) -> Awaitable[AppendResult]:
        """See `EventStore.append`."""
        events = _few_enough(events, self._limits.append_events)
        first = next(iter(events), None)
        if not isinstance(first, DomainEvent):
            raise InvalidOptionError(f"append takes a list of events, with one at least, not {shown(events)}")
        aggregate_id, expected = first.aggregate_id, ExpectedVersion.ANY
        if aggregate_id == UNASSIGNED:
            aggregate_id, expected = first.event_id, ExpectedVersion.NO_STREAM
        stream = StreamId(aggregate_id, first.aggregate_type or first.event_type)
        return self.append(stream, events, expected, within, condition, tags)

    async def _append_with_keys(
        self,
        stream: StreamId,
        events: Sequence[DomainEvent],
        expected_version: int,
        within: Unit | Connection | None,
        condition: Condition | None,
        tags: Iterable[str],
    ) -> AppendResult:
        """The same where events may have personal fields: their keys come first, with one query at most."""
        assert self._key_store is not None
        # The key of a personal field may go by the aggregate, which an event need not name.
        events = [_of_aggregate(event, stream.aggregate_id) for event in events]
        keys = await self._key_store.keys_to_seal(events)
        encode = self._codec.encode
        encoded = [encode(event, stream.aggregate_type, stream.aggregate_id, keys) for event in events]
        given = given_tags(tags) if tags else NO_TAGS
        if given or Tag.are_used:
            encoded = _tagged(events, encoded, given)
        return await self._write(stream, encoded, expected_version, within, condition, given)

    def _wanted(self, condition: AppendCondition) -> Condition:
        """A condition as the database is given it: with the names of the types, and of the tenant's events only."""
        if not isinstance(condition, AppendCondition):
            raise InvalidOptionError(f"condition must be AppendCondition(...), not {shown(condition)}")
        items = () if condition.query is None else condition.query.items
        registry = self._codec.registry
        return Condition(
            condition.after or 0,
            tuple([(frozenset(map(str, item.types_in(registry))), item.tags) for item in items]),
            tuple([(StreamId(*stream), version) for stream, version in condition.streams.items()]),
            self._tenant_id,
        )

    async def _write(
        self,
        stream: StreamId,
        encoded: list[EncodedEvent],
        expected_version: int,
        within: Unit | Connection | None,
        condition: Condition | None,
        given: frozenset[str],
    ) -> AppendResult:
        """Write in the transaction that there is, or through the queue; for a tenant, and traced, if so."""
        if self._tenant_id is not None:
            encoded = [owned(event, self._tenant_id) for event in encoded]
        if not encoded:
            return AppendResult(True, await self._reader.version_of(stream, await self._unit(within)))
        append = Append(stream, encoded, expected_version, condition, given)
        if len(encoded) > 1:
            _check_together(append, self._limits)
        aggregate_id, aggregate_type = stream
        with span(
            self._tracer,
            "append",
            system=self._database.backend.name,
            aggregate_type=aggregate_type,
            aggregate_id=aggregate_id,
            event_count=len(append.events),
            expected_version=append.expected_version,
        ):
            unit = await self._unit(within) or self._database.current_unit()
            write = self._appender.append
            if unit is not None:
                unit.require_writable()
                write = partial(self._appender.append_in, unit)
            if self._tenant_id is None:
                return await write(append)
            return await append_as_tenant(self._database, unit, append, self._tenant_id, write)

    async def close_stream(
        self,
        stream: StreamId,
        expected_version: int,
        reason: str | None,
        within: Unit | Connection | None = None,
    ) -> AppendResult:
        """See `EventStore.close_stream`."""
        aggregate_id, aggregate_type = stream
        check_id("aggregate_id", aggregate_id)
        check_name("aggregate_type", aggregate_type, self._limits.name_characters)
        if reason is not None and not isinstance(reason, str):
            raise InvalidEventError("reason", f"is {shown(reason)}, which is not text")
        tombstone = StreamClosed(aggregate_id=aggregate_id, aggregate_type=aggregate_type, reason=reason)
        try:
            return await self.append(stream, [tombstone], expected_version, within)
        except StreamClosedError:
            [(position, _, version)] = await self._reader.last_of(stream, await self._unit(within))
            return AppendResult(True, version, position, idempotent=True)

    async def _unit(self, within: Unit | Connection | None) -> Unit | None:
        if within is None or isinstance(within, Unit):
            return within
        return await self._database.join(within)


def _of_aggregate(event: DomainEvent, aggregate_id: UUID) -> DomainEvent:
    """The event with the id of its aggregate, if it names none."""
    if isinstance(event, DomainEvent) and event.aggregate_id == UNASSIGNED:
        return filled_in(event, {"aggregate_id": aggregate_id})
    return event


def _tagged(
    events: Sequence[DomainEvent], encoded: list[EncodedEvent], given: frozenset[str]
) -> list[EncodedEvent]:
    """The rows with the tags that their events declare, and those that were given."""
    return [
        row.tagged(tags_to_store(tags))
        if (given or tagged_fields(type(event))) and (tags := given | declared_tags(event))
        else row
        for event, row in zip(events, encoded, strict=True)
    ]


def _few_enough(events: Sequence[DomainEvent], limit: int) -> Sequence[DomainEvent]:
    """The events, if they are no more than the limit; an iterator is not followed beyond it.

    Raises:
        InvalidEventError: there are more.
    """
    if not isinstance(events, (list, tuple)):
        if not isinstance(events, Iterable):
            raise InvalidEventError("events", f"is {shown(events)}, not a list of events")
        events = list(islice(events, limit + 1))
    if len(events) > limit:
        raise InvalidEventError(
            "events",
            f"are more than {limit}, the limit of one append",
            remedy="Append them in several steps, or raise Limits.append_events",
        )
    return events


def _check_together(append: Append, limits: Limits) -> None:
    """Refuse events that one append may not hold together.

    Raises:
        InvalidEventError: the events are too much together, or something follows the end of the stream.
        DuplicateEventError: two of them have one id.
    """
    if append.bytes > limits.append_characters:
        raise InvalidEventError(
            "events",
            f"have {append.bytes} characters of JSON together, the limit is {limits.append_characters}",
            remedy="Append them in several steps, or raise Limits.append_characters",
        )
    seen: set[int] = set()
    for event in append.events:
        number = event.event_id.int  # a UUID itself is hashed in Python
        if number in seen:
            raise DuplicateEventError(event.event_id, "earlier in the same append")
        seen.add(number)
    if STREAM_CLOSED in [event.event_type for event in append.events[:-1]]:
        raise InvalidEventError("events", f"{STREAM_CLOSED} has to be the last one: nothing may follow it")

"""Reading the log for one store: its tenant's share of it, decoded with its classes and its keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractContextManager, aclosing
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias
from uuid import UUID

from esource.checks import check_id, check_seconds, check_whole
from esource.codec.codec import Codec
from esource.database.database import Database
from esource.database.sources import SourceParts
from esource.database.unit_of_work import Unit
from esource.dialect.urls import moving_of
from esource.domain.events import DomainEvent
from esource.domain.stream_closed import STREAM_CLOSED
from esource.errors import AsyncRequiredError, DatabaseError, InvalidOptionError, PositionNotReachedError
from esource.log.filling import require_filled
from esource.log.pages import (
    EVENT_EXISTS,
    LAST_EVENT,
    LAST_POSITION,
    PAGE_EVENTS,
    STREAM_VERSION,
    TYPES_OF_ID,
    Selection,
    first_page,
    last_position,
    pages,
)
from esource.log.streams import EVERYTHING, EventStream, ReadOptions, StoredEvent, parse_stream_name
from esource.log.tenants import of_tenant, restricted
from esource.privacy.keys import KeyStore
from esource.tables.model import events as log_table
from esource.tables.rows import EVENT_TYPE, PAYLOAD, VERSION, EventRow, StreamId
from esource.tables.statement import Statement
from esource.telemetry import NO_SPAN, Tracer, reading_span, span

FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.1
"""The pause between two looks for a position. Nothing wakes a waiter: a replica cannot LISTEN, and its log grows
without an append of this process."""


Page: TypeAlias = tuple[list[EventRow], Callable[[EventRow], DomainEvent]]
"""Rows that are to be handed over, and what decodes them."""


class _Course:
    """What a reading wants from here on: where a page could not be fetched, another attempt begins there."""

    __slots__ = ("call", "options", "stream", "wanted")

    def __init__(self, call: str, options: ReadOptions, stream: StreamId | None) -> None:
        self.call = call
        self.options = options
        self.stream = stream
        self.wanted: Selection | None = None
        """What is left of it; None before the first page."""


class EventReader(AsyncGenerator[StoredEvent, None]):
    """Stored events one after another, for ``async for``; `aclose` gives the connection back early.

    After an error, or a cancellation as by ``asyncio.wait_for``, it goes on where it was, if it is asked again:
    that it is at its end always means the end of what was to be read.
    """

    __slots__ = ("_begin", "_call", "_decode", "_is_over", "_pages", "fetching", "rows")

    def __init__(self, call: str, begin: Callable[[], AsyncGenerator[Page, None]]) -> None:
        self._call = call
        self._begin = begin
        """Makes pages from where the reading has come to, without knowing this reader: a dropped one is collected at once."""
        self._pages: AsyncGenerator[Page, None] | None = None
        self.rows: Iterator[EventRow] = iter(())
        """What is left of the page that was fetched."""
        self.fetching: asyncio.Task[Any] | None = None
        """The task that waits for the next page."""
        self._decode: Callable[[EventRow], DomainEvent]
        self._is_over = False

    async def __anext__(self) -> StoredEvent:
        for row in self.rows:
            return StoredEvent(row, self._decode)
        while not self._is_over:
            if self._pages is None:
                self._pages = self._begin()
            self.fetching = asyncio.current_task()
            try:
                rows, self._decode = await self._pages.__anext__()
            except StopAsyncIteration:
                self._is_over = True
            except BaseException:
                self._pages = None  # a generator that has failed is at its end; another one goes on
                raise
            else:
                self.rows = iter(rows)
                for row in self.rows:
                    return StoredEvent(row, self._decode)
            finally:
                self.fetching = None
        raise StopAsyncIteration

    def asend(self, value: None) -> Coroutine[Any, Any, StoredEvent]:
        return self.__anext__()

    async def athrow(self, *error: Any) -> StoredEvent:
        pages = self._ended() or self._begin()
        return await pages.athrow(*error)  # type: ignore[return-value] # it raises the error

    async def aclose(self) -> None:
        pages = self._ended()
        if pages is not None:
            await pages.aclose()

    def _ended(self) -> AsyncGenerator[Page, None] | None:
        """The pages; the same iterator does not give them twice."""
        self._is_over = True
        self.rows = iter(())
        pages, self._pages = self._pages, None
        return pages

    if not TYPE_CHECKING:  # a type checker refuses both by itself

        def __iter__(self) -> NoReturn:
            raise AsyncRequiredError(self._call, f"async for stored in store.{self._call}(...)")

        __await__ = __iter__


class LogReader:
    """The log as one store sees it. What each public method promises stands at the store's method of that name."""

    def __init__(
        self,
        database: Database,
        codec: Codec,
        key_store: KeyStore | None = None,
        tenant_id: UUID | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.database = database
        self.codec = codec
        self.key_store = key_store
        self.tenant_id = tenant_id
        self.tracer = tracer

    @property
    def _opened(self) -> SourceParts:
        return SourceParts(self.database, None, self.tenant_id, self.key_store)

    def for_tenant(self, tenant_id: UUID) -> LogReader:
        """The same reader, of one tenant's share."""
        return LogReader(self.database, self.codec, self.key_store, tenant_id, self.tracer)

    # The reads of a store, in the order of `EventStore`.

    async def get_events(
        self,
        aggregate_id: UUID,
        aggregate_type: str | None,
        from_version: int,
        from_timestamp: datetime | None,
        to_timestamp: datetime | None,
    ) -> EventStream:
        check_id("aggregate_id", aggregate_id)
        if aggregate_type is None:
            aggregate_type = await self._only_type_of(aggregate_id)
        stream = StreamId(aggregate_id, aggregate_type)
        options = EVERYTHING
        if from_version != 0 or from_timestamp is not None or to_timestamp is not None:
            options = ReadOptions(
                from_position=from_version, from_timestamp=from_timestamp, to_timestamp=to_timestamp
            )
        if self.tracer is None:
            events, version = await self._load(stream, options)
        else:
            with span(self.tracer, "read_stream", system=self.database.backend.name, **stream._asdict()):
                events, version = await self._load(stream, options)
        if not events and version == from_version:
            version = await self.version_of(stream) if from_version else 0
        return EventStream(aggregate_id, aggregate_type, events, version)

    async def _load(self, stream: StreamId, options: ReadOptions) -> tuple[list[DomainEvent], int]:
        """The events wanted of a stream, and the version of the last of them; else the version to begin after."""
        is_whole = options is EVERYTHING and self.tenant_id is None
        # Most streams are one page. The others come in pages, too, to let other tasks run in between.
        wanted = None if is_whole else self.selection(options, stream, only_events=True)
        rows = await first_page(self.database, stream, wanted)
        if not rows:
            return [], options.from_position
        decode = self.codec.decode if self.key_store is None else await self.decoder(rows)
        events = [decode(row) for row in self.known(rows)]
        version = rows[-1][VERSION]
        if len(rows) == PAGE_EVENTS:
            wanted = wanted or self.selection(options, stream, only_events=True)
            wanted.start = version
            async with aclosing(pages(self.database, wanted, PAGE_EVENTS)) as found:
                async for rows in found:
                    if self.key_store is not None:
                        decode = await self.decoder(rows)
                    events += [decode(row) for row in self.known(rows)]
                    version = rows[-1][VERSION]
        return events, version

    async def get_events_by_type(
        self, aggregate_type: str, tenant_id: UUID | None, from_timestamp: datetime | None
    ) -> list[DomainEvent]:
        options = ReadOptions(
            aggregate_types=(aggregate_type,), tenant_id=tenant_id, from_timestamp=from_timestamp
        )
        async with aclosing(self._follow(_Course("read_all", options, None))) as found:
            return [decode(row) async for rows, decode in found for row in rows]

    def read_stream(self, stream_id: str, options: ReadOptions | None = None) -> EventReader:
        course = _Course("read_stream", options or EVERYTHING, parse_stream_name(stream_id))
        return EventReader(course.call, partial(self._follow, course))

    def read_all(self, options: ReadOptions | None = None) -> EventReader:
        course = _Course("read_all", options or EVERYTHING, None)
        return EventReader(course.call, partial(self._follow, course))

    async def _follow(self, course: _Course) -> AsyncGenerator[Page, None]:
        """The pages of a course, from where it has come to."""
        with self._reading_span(course):
            if course.wanted is None:
                query, wanted = course.options.query, self.selection(course.options, course.stream)
                if query and await require_filled(self.database, query.named(self.codec.registry)):
                    wanted.hide_tags()
                course.wanted = wanted
            # Closed here, the pages give their connection back as soon as the reader leaves, not when collected.
            async with aclosing(pages(self.database, course.wanted)) as found:
                async for rows in found:
                    decode = self.codec.decode if self.key_store is None else await self.decoder(rows)
                    course.wanted.move_past(rows[-1], len(rows))
                    yield (rows if self.codec.unknown_events != "skip" else self.known(rows)), decode

    def _reading_span(self, course: _Course) -> AbstractContextManager[None]:
        if self.tracer is None:
            return NO_SPAN
        names = {} if course.stream is None else course.stream._asdict()
        return reading_span(self.tracer, course.call, system=self.database.backend.name, **names)

    async def event_exists(self, event_id: UUID) -> bool:
        return bool(await self._rows(EVENT_EXISTS, {"event_id": check_id("event_id", event_id)}))

    async def is_closed(self, stream: StreamId) -> bool:
        last = await self.last_of(stream)
        return bool(last) and last[0][1] == STREAM_CLOSED

    async def last_position(self) -> int:
        """The position of the last event, of the tenant's events if there is a tenant."""
        return (await self._rows(LAST_POSITION, {}))[0][0] or 0

    async def require_reached(self, name: str, position: int) -> None:
        """Refuse a checkpoint that is ahead of the log: the events up to there would be passed over. One query.

        Raises:
            InvalidOptionError: it is; the database or its log was restored from an older backup.
        """
        if not position or position <= (found := await last_position(self.database)):
            return
        # Events that were archived are gone from the end of the log, but not their positions.
        try:
            counter = await self.database.inspect(
                partial(moving_of(self.database.backend).counter, table=log_table)
            )
        except DatabaseError:
            return  # a role that may not read the counter
        if position > (found if counter is None else max(found, counter)):
            raise InvalidOptionError(
                f"the checkpoint {name} is at position {position}, and the log of {self.database.name} has only come to "
                f"{found}: it was restored from an older copy, and the next events would be passed over. Rebuild "
                f"the projection, or delete the checkpoint (`esource projections reset {name}`) and save the "
                "position up to which all is dealt with"
            )

    async def wait_for_position(self, position: int, seconds: float) -> int:
        check_whole("position", position)
        check_seconds("timeout_seconds", seconds, least=0)
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            found = await last_position(self.database)
            if found >= position:
                return found
            if (left := until - clock()) <= 0:
                raise PositionNotReachedError(self.database.name, position, found)
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    # What others build their reading on.

    def selection(
        self, options: ReadOptions, stream: StreamId | None = None, *, only_events: bool = False
    ) -> Selection:
        """What to read of the whole log, or of the tenant's share of it: the one way to any page of rows."""
        if self.tenant_id is not None:
            options = restricted(options, self.tenant_id)
        return Selection(self.database, options.named(self.codec.registry), stream, only_events)

    async def decoder(self, rows: Iterable[EventRow]) -> Callable[[EventRow], DomainEvent]:
        """What decodes these rows, with the keys of their personal fields. One query at most."""
        if self.key_store is None:
            return self.codec.decode
        keys = await self.key_store.keys_to_open(row[PAYLOAD] for row in rows)
        return self.codec.decode if keys is None else partial(self.codec.decode, keys=keys)

    def known(self, rows: list[EventRow]) -> list[EventRow]:
        """The rows without those that the policy for unknown event types skips."""
        if self.codec.unknown_events != "skip":
            return rows
        return [row for row in rows if self.codec.event_class(row[EVENT_TYPE]) is not None]

    async def version_of(self, stream: StreamId, unit: Unit | None = None) -> int:
        """The version of the stream's last event; 0 if it has none. One query."""
        return (await self._rows(STREAM_VERSION, stream._asdict(), unit))[0][0] or 0

    async def last_of(self, stream: StreamId, unit: Unit | None = None) -> list[tuple[int, str, int]]:
        """Position, type and version of the stream's last event; nothing if it has none. One query."""
        return await self._rows(LAST_EVENT, stream._asdict(), unit)

    async def _only_type_of(self, aggregate_id: UUID) -> str:
        types = [row[0] for row in await self._rows(TYPES_OF_ID, {"aggregate_id": aggregate_id})]
        if len(types) > 1:
            raise InvalidOptionError(
                f"{aggregate_id} is used by {', '.join(sorted(types))}: say which with aggregate_type"
            )
        return types[0] if types else ""

    async def _rows(
        self, statement: Statement, values: dict[str, Any], unit: Unit | None = None
    ) -> list[Any]:
        """Rows about the whole log, or about the tenant's share of it."""
        if self.tenant_id is not None:
            statement, values = of_tenant(statement, "events"), {**values, "of_tenant": self.tenant_id}
        return await self.database.rows(statement, values, unit)


class Readable(Protocol):
    """A store, for those who only read its log."""

    @property
    def reader(self) -> LogReader: ...

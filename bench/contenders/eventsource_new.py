"""eventsource-py since its ports and adapters (0.8 and newer), as its guide sets it up."""

from __future__ import annotations

from typing import Any

from eventsource import (
    ExpectedVersion,
    InMemoryEventStore,
    PostgreSQLEventStore,
    SQLiteEventStore,
    StreamId,
    create_async_engine,
)

from bench.contenders.base import AGGREGATE_TYPE, CONTENT, Target
from bench.contenders.eventsource_py import EventSource, LineAdded


class EventSourceNew(EventSource):
    async def open(self, target: Target) -> None:
        self.kind, self.engine = target.kind, None
        if target.kind == "postgresql":
            self.engine = create_async_engine(
                target.address.replace("postgresql://", "postgresql+asyncpg://", 1),
                pool_size=target.writers,
                max_overflow=0,
            )
            self.use(PostgreSQLEventStore(self.engine, create_schema=not target.ready))
            await self.store._ensure_schema()
        elif target.kind == "memory":
            self.use(InMemoryEventStore())
        else:
            self.use(SQLiteEventStore(target.address))
            # It has no option for it.
            await (await self.store._conn()).execute(f"PRAGMA synchronous = {target.synchronous}")

    async def sqlite_connection(self) -> Any:
        return await self.store._conn()

    def event(self, stream: Any, version: int) -> LineAdded:
        return LineAdded(aggregate_id=stream.aggregate_id, aggregate_version=version, **CONTENT)

    def new_stream(self) -> StreamId:
        return StreamId(super().new_stream(), AGGREGATE_TYPE)

    async def append(self, stream: Any, events: list[Any], expected: int) -> None:
        await self.store.append(stream, events, ExpectedVersion.exact(expected))

    async def version(self, stream: Any) -> int:
        return await self.store.get_stream_version(stream)

    async def load(self, stream: Any) -> int:
        return len([envelope.event async for envelope in self.store.read_stream(stream)])

    async def read_all(self) -> int:
        count = 0
        async for envelope in self.store.read_all():
            count += envelope.event.quantity > 0
        return count

    read_envelopes = read_all  # it decodes every event, wanted or not

    async def new_aggregate(self, events: int) -> Any:
        return await self.aggregate_of(self.new_stream().aggregate_id, events)

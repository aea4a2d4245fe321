"""eventsource-py 0.5.0, as its guide sets it up; tracing off."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from uuid import uuid4

import asyncpg
from eventsource import (
    ExpectedVersion,
    InMemoryEventStore,
    PostgreSQLEventStore,
    SQLiteEventStore,
)
from eventsource.bus import InMemoryEventBus
from eventsource.migrations import get_schema
from eventsource.projections import DatabaseProjection, handles
from eventsource.repositories.checkpoint import PostgreSQLCheckpointRepository, SQLiteCheckpointRepository
from eventsource.subscriptions import SubscriptionConfig, SubscriptionManager
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from bench.contenders.base import AGGREGATE_TYPE, CONTENT, Target
from bench.contenders.eventsource_py import EventSource, LineAdded


class EventSource050(EventSource):
    async def open(self, target: Target) -> None:
        self.kind, self.address, self.engine = target.kind, target.address, None
        if target.kind == "postgresql":
            if not target.ready:
                await self._create_tables(target.address)
            self.engine = create_async_engine(
                target.address.replace("postgresql://", "postgresql+asyncpg://", 1),
                pool_size=target.writers,
                max_overflow=0,
            )
            sessions = async_sessionmaker(self.engine, expire_on_commit=False)
            self.use(PostgreSQLEventStore(sessions, enable_tracing=False))
        elif target.kind == "memory":
            self.use(InMemoryEventStore(enable_tracing=False))
        else:
            self.use(SQLiteEventStore(target.address, enable_tracing=False))
            await self.store.initialize()
            # It has no option for it.
            await self.store._connection.execute(f"PRAGMA synchronous = {target.synchronous}")

    async def sqlite_connection(self) -> Any:
        return self.store._connection

    async def _create_tables(self, address: str) -> None:
        connection = await asyncpg.connect(address)
        # Its tables use nothing of the extension, and not every server has it.
        await connection.execute(re.sub("CREATE EXTENSION[^;]*;", "", get_schema("all")))
        await connection.close()

    def event(self, stream: Any, version: int) -> LineAdded:
        return LineAdded(aggregate_id=stream, aggregate_version=version, **CONTENT)

    async def append(self, stream: Any, events: list[Any], expected: int) -> None:
        await self.store.append_events(stream, AGGREGATE_TYPE, events, expected)

    async def version(self, stream: Any) -> int:
        return await self.store.get_stream_version(stream, AGGREGATE_TYPE)

    async def load(self, stream: Any) -> int:
        return len((await self.store.get_events(stream, AGGREGATE_TYPE)).events)

    async def read_all(self) -> int:
        count = 0
        async for stored in self.store.read_all():
            count += stored.event.quantity > 0
        return count

    read_envelopes = read_all  # it decodes every event, wanted or not

    async def new_aggregate(self, events: int) -> Any:
        return await self.aggregate_of(self.new_stream(), events)

    async def move(self, source: Target) -> None:
        """The script of its tutorial on SQLite."""
        async with SQLiteEventStore(source.address) as old:
            await old.initialize()
            async for stored in old.read_all():
                event = stored.event
                await self.store.append_events(
                    aggregate_id=event.aggregate_id,
                    aggregate_type=event.aggregate_type,
                    events=[event],
                    expected_version=ExpectedVersion.ANY,
                )

    async def project(self, events: int) -> int:
        table = f"lines_{uuid4().hex[:12]}"
        engine = self.engine or create_async_engine(f"sqlite+aiosqlite:///{self.address}")
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        try:
            async with engine.begin() as connection:
                await connection.execute(
                    text(f"CREATE TABLE {table} (id TEXT PRIMARY KEY, lines INTEGER, total FLOAT)")
                )
            checkpoints = (
                PostgreSQLCheckpointRepository(engine)
                if self.engine is not None
                else SQLiteCheckpointRepository(self.store._connection)
            )
            projection = lines_projection(table)(sessions, enable_tracing=False)
            manager = SubscriptionManager(
                self.store, InMemoryEventBus(enable_tracing=False), checkpoints, enable_tracing=False
            )
            config = SubscriptionConfig(start_from="beginning", batch_size=500)
            subscription = await manager.subscribe(projection, config, name=table)
            for failure in (await manager.start()).values():
                if failure is not None:
                    raise failure
            while subscription.events_processed < events:
                await asyncio.sleep(0.001)
            await manager.stop()
            async with engine.connect() as connection:
                counted = await connection.execute(text(f"SELECT sum(lines) FROM {table}"))
                return int(counted.scalar() or 0)
        finally:
            if self.engine is None:
                await engine.dispose()


def lines_projection(table: str) -> type[DatabaseProjection]:
    add = text(
        f"INSERT INTO {table} (id, lines, total) VALUES (:id, 1, :total) ON CONFLICT (id) DO UPDATE "
        f"SET lines = {table}.lines + 1, total = {table}.total + excluded.total"
    )

    class Lines(DatabaseProjection):
        @handles(LineAdded)
        async def _added(self, connection: Any, event: LineAdded) -> None:
            total = event.quantity * event.price
            await connection.execute(add, {"id": str(event.aggregate_id), "total": total})

    return Lines

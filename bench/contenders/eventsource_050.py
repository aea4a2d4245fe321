"""eventsource-py 0.5.0, as its guide sets it up; tracing off."""

from __future__ import annotations

import asyncio
import re
from importlib.metadata import version
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from eventsource import (
    AggregateRepository,
    AggregateRoot,
    DomainEvent,
    ExpectedVersion,
    InMemoryEventStore,
    OptimisticLockError,
    PostgreSQLEventStore,
    SQLiteEventStore,
    register_event,
)
from eventsource.bus import InMemoryEventBus
from eventsource.migrations import get_schema
from eventsource.projections import DatabaseProjection, handles
from eventsource.repositories.checkpoint import PostgreSQLCheckpointRepository, SQLiteCheckpointRepository
from eventsource.subscriptions import SubscriptionConfig, SubscriptionManager
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from bench.contenders.base import (
    AGGREGATE_TYPE,
    CONTENT,
    SYNCHRONOUS,
    Contender,
    Target,
    asyncpg_durability,
)


@register_event
class LineAdded(DomainEvent):
    event_type: str = "LineAdded"
    aggregate_type: str = AGGREGATE_TYPE
    customer: str
    product: str
    quantity: int
    price: float
    reference: UUID
    note: str


class OrderState(BaseModel):
    lines: int = 0
    total: float = 0.0


class Order(AggregateRoot[OrderState]):
    aggregate_type = AGGREGATE_TYPE

    def _get_initial_state(self) -> OrderState:
        return OrderState()

    def _apply(self, event: DomainEvent) -> None:
        state = self._state or OrderState()
        self._state = OrderState(lines=state.lines + 1, total=state.total + event.quantity * event.price)

    def add_line(self) -> None:
        self.create_event(LineAdded, **CONTENT)  # which applies it as well


class EventSource050(Contender):
    conflicts = (OptimisticLockError,)

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
            self.store = PostgreSQLEventStore(sessions, enable_tracing=False)
        elif target.kind == "memory":
            self.store = InMemoryEventStore(enable_tracing=False)
        else:
            self.store = SQLiteEventStore(target.address, enable_tracing=False)
            await self.store.initialize()
            # It has no option for it.
            await self.store._connection.execute(f"PRAGMA synchronous = {target.synchronous}")
        self.orders = AggregateRepository(
            self.store, aggregate_factory=Order, aggregate_type=AGGREGATE_TYPE, enable_tracing=False
        )

    async def _create_tables(self, address: str) -> None:
        connection = await asyncpg.connect(address)
        # Its tables use nothing of the extension, and not every server has it.
        await connection.execute(re.sub("CREATE EXTENSION[^;]*;", "", get_schema("all")))
        await connection.close()

    async def close(self) -> None:
        if self.engine is not None:
            await self.engine.dispose()
        elif self.kind != "memory":
            await self.store.close()

    async def durability(self) -> dict[str, str]:
        if self.engine is not None:
            async with self.engine.connect() as connection:
                return await asyncpg_durability((await connection.get_raw_connection()).driver_connection)
        if self.kind == "memory":
            return {"storage": "Python objects"}
        mode = list(await self.store._connection.execute_fetchall("PRAGMA journal_mode"))
        level = list(await self.store._connection.execute_fetchall("PRAGMA synchronous"))
        return {"journal_mode": mode[0][0], "synchronous": SYNCHRONOUS[level[0][0]]}

    def versions(self) -> dict[str, str]:
        return {
            name: version(name)
            for name in ("eventsource-py", "sqlalchemy", "aiosqlite", "asyncpg", "pydantic")
        }

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
        order = self.orders.create_new(self.new_stream())
        for _ in range(events):
            order.add_line()
        await self.orders.save(order)
        return order.aggregate_id

    async def change_aggregate(self, identifier: Any) -> None:
        order = await self.orders.load(identifier)
        order.add_line()
        await self.orders.save(order)

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

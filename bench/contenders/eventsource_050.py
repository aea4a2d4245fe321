"""eventsource-py 0.5.0, as its guide sets it up; tracing off."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any
from uuid import UUID

import asyncpg
from eventsource import (
    AggregateRepository,
    AggregateRoot,
    DomainEvent,
    InMemoryEventStore,
    OptimisticLockError,
    PostgreSQLEventStore,
    SQLiteEventStore,
    register_event,
)
from eventsource.migrations import get_schema
from pydantic import BaseModel
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

"""eventsource-py since its ports and adapters (0.8 and newer), as its guide sets it up."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any
from uuid import UUID

from eventsource import (
    AggregateRepository,
    AggregateRoot,
    DomainEvent,
    ExpectedVersion,
    InMemoryEventStore,
    OptimisticLockError,
    PostgreSQLEventStore,
    SQLiteEventStore,
    StreamId,
    create_async_engine,
    register_event,
)
from pydantic import BaseModel

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


class EventSourceNew(Contender):
    conflicts = (OptimisticLockError,)

    async def open(self, target: Target) -> None:
        self.kind, self.engine = target.kind, None
        if target.kind == "postgresql":
            self.engine = create_async_engine(
                target.address.replace("postgresql://", "postgresql+asyncpg://", 1),
                pool_size=target.writers,
                max_overflow=0,
            )
            self.store = PostgreSQLEventStore(self.engine, create_schema=not target.ready)
            await self.store._ensure_schema()
        elif target.kind == "memory":
            self.store = InMemoryEventStore()
        else:
            self.store = SQLiteEventStore(target.address)
            # It has no option for it.
            await (await self.store._conn()).execute(f"PRAGMA synchronous = {target.synchronous}")
        self.orders = AggregateRepository(
            self.store, aggregate_factory=Order, aggregate_type=AGGREGATE_TYPE, enable_tracing=False
        )

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
        connection = await self.store._conn()
        mode = list(await connection.execute_fetchall("PRAGMA journal_mode"))
        level = list(await connection.execute_fetchall("PRAGMA synchronous"))
        return {"journal_mode": mode[0][0], "synchronous": SYNCHRONOUS[level[0][0]]}

    def versions(self) -> dict[str, str]:
        return {
            name: version(name)
            for name in ("eventsource-py", "sqlalchemy", "aiosqlite", "asyncpg", "pydantic")
        }

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
        order = self.orders.create_new(self.new_stream().aggregate_id)
        for _ in range(events):
            order.add_line()
        await self.orders.save(order)
        return order.aggregate_id

    async def change_aggregate(self, identifier: Any) -> None:
        order = await self.orders.load(identifier)
        order.add_line()
        await self.orders.save(order)

"""What both releases of eventsource-py have in common: the same domain, the same ends of a round."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any
from uuid import UUID

from eventsource import AggregateRepository, AggregateRoot, DomainEvent, OptimisticLockError, register_event
from pydantic import BaseModel

from bench.contenders.base import AGGREGATE_TYPE, CONTENT, SYNCHRONOUS, Contender, asyncpg_durability


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


class EventSource(Contender):
    """A release: it says how a store is opened, and how events are appended and read."""

    conflicts = (OptimisticLockError,)
    kind: str
    engine: Any
    store: Any
    orders: AggregateRepository[Order]

    def use(self, store: Any) -> None:
        """Work with an open store from now on."""
        self.store = store
        self.orders = AggregateRepository(store, aggregate_factory=Order, enable_tracing=False)

    async def sqlite_connection(self) -> Any:
        """The connection of an open store on SQLite."""
        raise NotImplementedError

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
        connection = await self.sqlite_connection()
        mode = list(await connection.execute_fetchall("PRAGMA journal_mode"))
        level = list(await connection.execute_fetchall("PRAGMA synchronous"))
        return {"journal_mode": mode[0][0], "synchronous": SYNCHRONOUS[level[0][0]]}

    def versions(self) -> dict[str, str]:
        return {
            name: version(name)
            for name in ("eventsource-py", "sqlalchemy", "aiosqlite", "asyncpg", "pydantic")
        }

    async def aggregate_of(self, identifier: UUID, events: int) -> UUID:
        """Save a new aggregate with so many events."""
        order = self.orders.create_new(identifier)
        for _ in range(events):
            order.add_line()
        await self.orders.save(order)
        return order.aggregate_id

    async def change_aggregate(self, identifier: Any) -> None:
        order = await self.orders.load(identifier)
        order.add_line()
        await self.orders.save(order)

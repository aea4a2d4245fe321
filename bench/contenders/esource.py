"""esource through its public interface, with its defaults; tracing off."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from sqlalchemy import Column, Float, Integer, MetaData, Table, Text, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from bench.contenders.base import AGGREGATE_TYPE, CONTENT, SYNCHRONOUS, Contender, Items, Target
from bench.contenders.courses import Course, Student, define, join, query_of, register
from bench.contenders.typed import LineAdded, Order
from esource import (
    AggregateRepository,
    AppendCondition,
    EventStore,
    InMemoryEventStore,
    OptimisticLockError,
    PostgreSQLEventStore,
    Projection,
    ProjectionContext,
    ProjectionRunner,
    SQLiteEventStore,
    handles,
)
from esource.copying import copy


class Esource(Contender):
    conflicts = (OptimisticLockError,)
    execution: Any = "thread"

    async def open(self, target: Target) -> None:
        self.store: EventStore
        self.on_server = target.kind == "postgresql"
        if self.on_server:
            self.store = PostgreSQLEventStore(target.address, enable_tracing=False)
        elif target.kind == "memory":
            self.store = InMemoryEventStore(enable_tracing=False)
        else:
            synchronous: Any = target.synchronous
            self.store = SQLiteEventStore(
                target.address, synchronous=synchronous, execution=self.execution, enable_tracing=False
            )
        await self.store.initialize()
        self.orders = AggregateRepository(self.store, Order, enable_tracing=False)

    async def close(self) -> None:
        await self.store.close()

    async def durability(self) -> dict[str, str]:
        async with self.store.transaction() as transaction:
            run = transaction.connection.exec_driver_sql
            if self.on_server:
                names = ("fsync", "synchronous_commit", "full_page_writes")
                return {name: str((await run(f"SHOW {name}")).scalar()) for name in names}
            return {
                "journal_mode": str((await run("PRAGMA journal_mode")).scalar()),
                "synchronous": SYNCHRONOUS[int((await run("PRAGMA synchronous")).scalar() or 0)],
            }

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("esource", "sqlalchemy", "aiosqlite", "asyncpg", "pydantic")}

    def event(self, stream: Any, version: int) -> LineAdded:
        return LineAdded(aggregate_id=stream, aggregate_version=version, **CONTENT)

    async def append(self, stream: Any, events: list[Any], expected: int) -> None:
        await self.store.append_events(stream, AGGREGATE_TYPE, events, expected)

    async def version(self, stream: Any) -> int:
        return await self.store.get_stream_version(stream, AGGREGATE_TYPE)

    async def execute(self, stream: Any, event: Any) -> int:
        await self.orders.execute_or_create(stream, Order.add_line)
        return 0

    async def load(self, stream: Any) -> int:
        return len((await self.store.get_events(stream, AGGREGATE_TYPE)).events)

    async def read_all(self) -> int:
        count = 0
        async for stored in self.store.read_all():
            count += stored.event.quantity > 0  # type: ignore[attr-defined]
        return count

    async def read_envelopes(self) -> int:
        count = 0
        async for stored in self.store.read_all():
            count += stored.global_position > 0
        return count

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

    async def append_if(self, event: Any, tags: tuple[str, ...], items: Items, after: int) -> int:
        condition = AppendCondition(query_of(items), after)
        return (await self.store.append([event], condition=condition, tags=tags)).global_position

    async def read_decision(self, items: Items) -> int:
        found = await self.store.read_query(query_of(items))
        return sum([stored.event.quantity > 0 for stored in found.events])  # type: ignore[attr-defined]

    async def enrol(self, students: list[str], courses: list[str]) -> int:
        for student in students:
            await self.store.decide(partial(register, places=len(courses)), Student(student))
        for course in courses:
            await self.store.decide(partial(define, places=len(students)), Course(course))
        for student in students:
            for course in courses:
                await self.store.decide(join, Student(student), Course(course))
        return len(students) + len(courses) + len(students) * len(courses)

    async def move(self, source: Target) -> None:
        await copy(source.address if "://" in source.address else f"sqlite:///{source.address}", self.store)

    async def project(self, events: int) -> int:
        lines = read_model(f"lines_{uuid4().hex[:12]}")
        await ProjectionRunner(self.store, Lines(lines)).run(live=False)
        async with self.store.transaction() as transaction:
            counted = await transaction.connection.execute(select(func.sum(lines.c.lines)))
            return int(counted.scalar() or 0)


class EsourceWithoutHop(Esource):
    """In the thread of the loop."""

    execution = "caller"


class EsourcePlain(Esource):
    """The same appends without tags and condition."""

    async def append_if(self, event: Any, tags: tuple[str, ...], items: Items, after: int) -> int:
        return (await self.store.append([event])).global_position


def read_model(name: str) -> Table:
    return Table(
        name,
        MetaData(),
        Column("id", Text, primary_key=True),
        Column("lines", Integer),
        Column("total", Float),
    )


class Lines(Projection):
    """Batches of 500, progress saved with the read model: the defaults."""

    def __init__(self, table: Table) -> None:
        self.table, self.name = table, table.name
        row = insert(table)
        self.add = row.on_conflict_do_update(
            index_elements=["id"],
            set_={"lines": table.c.lines + 1, "total": table.c.total + row.excluded.total},
        )

    async def reset(self, connection: AsyncConnection) -> None:
        await connection.run_sync(self.table.create)

    @handles(LineAdded)
    async def added(self, event: LineAdded, context: ProjectionContext) -> None:
        total = event.quantity * event.price
        context.write(self.add, {"id": str(event.aggregate_id), "lines": 1, "total": total})

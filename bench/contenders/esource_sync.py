"""esource for programs without an event loop: `esource.sync`, with its defaults; tracing off."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import Any

from bench.contenders.base import AGGREGATE_TYPE, CONTENT, SYNCHRONOUS, BlockingContender, Items, Target
from bench.contenders.courses import Course, Student, define, join, query_of, register
from bench.contenders.typed import LineAdded, Order
from esource.sync import (
    AggregateRepository,
    AppendCondition,
    EventStore,
    InMemoryEventStore,
    OptimisticLockError,
    PostgreSQLEventStore,
    SQLiteEventStore,
)


class EsourceSync(BlockingContender):
    conflicts = (OptimisticLockError,)

    async def open(self, target: Target) -> None:
        self.store: EventStore
        self.on_server = target.kind == "postgresql"
        if self.on_server:
            self.store = PostgreSQLEventStore(target.address, enable_tracing=False)
        elif target.kind == "memory":
            self.store = InMemoryEventStore(enable_tracing=False)
        else:
            synchronous: Any = target.synchronous
            self.store = SQLiteEventStore(target.address, synchronous=synchronous, enable_tracing=False)
        self.store.initialize()
        self.orders = AggregateRepository(self.store, Order, enable_tracing=False)

    async def close(self) -> None:
        self.store.close()

    async def durability(self) -> dict[str, str]:
        with self.store.transaction() as transaction:
            run = transaction.connection.exec_driver_sql
            if self.on_server:
                names = ("fsync", "synchronous_commit", "full_page_writes")
                return {name: str(run(f"SHOW {name}").scalar()) for name in names}
            return {
                "journal_mode": str(run("PRAGMA journal_mode").scalar()),
                "synchronous": SYNCHRONOUS[int(run("PRAGMA synchronous").scalar() or 0)],
            }

    def versions(self) -> dict[str, str]:
        return {"esource": version("esource")}

    def event(self, stream: Any, version: int) -> LineAdded:
        return LineAdded(aggregate_id=stream, aggregate_version=version, **CONTENT)

    async def append(self, stream: Any, events: list[Any], expected: int) -> None:
        self.store.append_events(stream, AGGREGATE_TYPE, events, expected)

    async def version(self, stream: Any) -> int:
        return self.store.get_stream_version(stream, AGGREGATE_TYPE)

    async def execute(self, stream: Any, event: Any) -> int:
        self.orders.execute_or_create(stream, Order.add_line)
        return 0

    async def load(self, stream: Any) -> int:
        return len(self.store.get_events(stream, AGGREGATE_TYPE).events)

    async def read_all(self) -> int:
        count = 0
        for stored in self.store.read_all():
            count += stored.event.quantity > 0  # type: ignore[attr-defined]
        return count

    async def read_envelopes(self) -> int:
        count = 0
        for stored in self.store.read_all():
            count += stored.global_position > 0
        return count

    async def new_aggregate(self, events: int) -> Any:
        order = self.orders.create_new(self.new_stream())
        for _ in range(events):
            order.add_line()
        self.orders.save(order)
        return order.aggregate_id

    async def change_aggregate(self, identifier: Any) -> None:
        order = self.orders.load(identifier)
        order.add_line()
        self.orders.save(order)

    async def append_if(self, event: Any, tags: tuple[str, ...], items: Items, after: int) -> int:
        condition = AppendCondition(query_of(items), after)
        return self.store.append([event], condition=condition, tags=tags).global_position

    async def read_decision(self, items: Items) -> int:
        found = self.store.read_query(query_of(items))
        return sum([stored.event.quantity > 0 for stored in found.events])  # type: ignore[attr-defined]

    async def enrol(self, students: list[str], courses: list[str]) -> int:
        for student in students:
            self.store.decide(partial(register, places=len(courses)), Student(student))
        for course in courses:
            self.store.decide(partial(define, places=len(students)), Course(course))
        for student in students:
            for course in courses:
                self.store.decide(join, Student(student), Course(course))
        return len(students) + len(courses) + len(students) * len(courses)

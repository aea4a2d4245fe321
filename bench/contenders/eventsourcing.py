"""eventsourcing with its SQLite, PostgreSQL and POPO recorders, its JSON transcoder and its own pools."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any
from uuid import UUID, uuid4

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError, Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.sqlite import SQLiteTrackingRecorder
from psycopg.sql import SQL

from bench.contenders.base import CONTENT, SYNCHRONOUS, BlockingContender, Target, server_address

PAGE = 1000


class Order(Aggregate):
    class Placed(Aggregate.Created):
        customer: str
        product: str
        quantity: int
        price: float
        reference: UUID
        note: str

    class LineAdded(Aggregate.Event):
        customer: str
        product: str
        quantity: int
        price: float
        reference: UUID
        note: str

    @event(Placed)
    def __init__(self, customer, product, quantity, price, reference, note):
        self.lines, self.total = 1, quantity * price

    @event(LineAdded)
    def add_line(self, customer, product, quantity, price, reference, note):
        self.lines += 1
        self.total += quantity * price


class Student(Aggregate):
    @event("Registered")
    def __init__(self, places: int):
        self.places, self.courses = places, []

    @event("Joined")
    def join(self, course_id: UUID):
        self.courses.append(course_id)


class Course(Aggregate):
    @event("Defined")
    def __init__(self, places: int):
        self.places, self.students = places, []

    @event("Accepted")
    def accept(self, student_id: UUID):
        self.students.append(student_id)


class EventSourcing(BlockingContender):
    conflicts = (IntegrityError,)
    functions = "no"

    async def open(self, target: Target) -> None:
        self.kind = target.kind
        if target.kind == "postgresql":
            address = server_address(target.address)
            env = {
                "PERSISTENCE_MODULE": "eventsourcing.postgres",
                "POSTGRES_POOL_SIZE": str(target.writers),
                "POSTGRES_MAX_OVERFLOW": "0",
                "POSTGRES_ENABLE_DB_FUNCTIONS": self.functions,
                **{f"POSTGRES_{name.upper()}": value for name, value in address.items()},
            }
        elif target.kind == "memory":
            env = {"PERSISTENCE_MODULE": "eventsourcing.popo"}
        else:
            env = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": target.address}
            self._set_synchronous(target.synchronous)
        # Its guide turns this off in production; it alters the tables on every start otherwise.
        self.env = env
        self.app = Application({**env, "CREATE_TABLE": "no" if target.ready else "yes"})

    def _set_synchronous(self, level: str) -> None:
        """It has no option for it: every connection that its pool makes gets the PRAGMA."""
        from eventsourcing.sqlite import SQLiteConnectionPool

        make = getattr(SQLiteConnectionPool, "made_plain", SQLiteConnectionPool._create_connection)

        def make_with_level(pool: SQLiteConnectionPool) -> Any:
            connection = make(pool)
            connection.cursor().execute(f"PRAGMA synchronous = {level}")
            return connection

        SQLiteConnectionPool.made_plain = make
        SQLiteConnectionPool._create_connection = make_with_level

    async def close(self) -> None:
        self.app.close()

    async def durability(self) -> dict[str, str]:
        if self.kind == "memory":
            return {"storage": "Python objects"}
        datastore = self.app.recorder.datastore
        if self.kind == "postgresql":
            found = {}
            with datastore.transaction(commit=True) as cursor:
                for name in ("fsync", "synchronous_commit", "full_page_writes"):
                    cursor.execute(f"SHOW {name}")
                    found[name] = cursor.fetchone()[name]
            return found
        with datastore.transaction(commit=True) as cursor:
            cursor.execute("PRAGMA journal_mode")
            mode = cursor.fetchone()[0]
            cursor.execute("PRAGMA synchronous")
            return {"journal_mode": mode, "synchronous": SYNCHRONOUS[cursor.fetchone()[0]]}

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("eventsourcing", "psycopg")}

    def event(self, stream: Any, version: int) -> Any:
        return Order.LineAdded(
            originator_id=stream,
            originator_version=version,
            timestamp=Order.LineAdded.create_timestamp(),
            **CONTENT,
        )

    async def append(self, stream: Any, events: list[Any], expected: int) -> None:
        # An event states its own version here, so under contention it has to be made anew.
        if events[0].originator_version != expected + 1:
            events = [self.event(stream, expected + step) for step in range(1, len(events) + 1)]
        self.app.events.put(events)

    async def version(self, stream: Any) -> int:
        for last in self.app.events.get(stream, desc=True, limit=1):
            return last.originator_version
        return 0

    async def load(self, stream: Any) -> int:
        return len(list(self.app.events.get(stream)))

    async def read_all(self) -> int:
        decode = self.app.mapper.to_domain_event
        count = last = 0
        while page := self._page(last):
            last = page[-1].id
            for notification in page:
                count += decode(notification).quantity > 0
        return count

    async def read_envelopes(self) -> int:
        count = last = 0
        while page := self._page(last):
            last = page[-1].id
            count += len(page)
        return count

    def _page(self, last: int) -> Any:
        return self.app.recorder.select_notifications(last, PAGE, inclusive_of_start=False)

    async def new_aggregate(self, events: int) -> Any:
        order = Order(**CONTENT)
        for _ in range(events - 1):
            order.add_line(**CONTENT)
        self.app.save(order)
        return order.id

    async def change_aggregate(self, identifier: Any) -> None:
        order = self.app.repository.get(identifier)
        order.add_line(**CONTENT)
        self.app.save(order)

    async def enrol(self, students: list[str], courses: list[str]) -> int:
        """With two aggregates for each rule, saved together."""
        made = [Student(places=len(courses)) for _ in students]
        places = [Course(places=len(students)) for _ in courses]
        for each in (*made, *places):
            self.app.save(each)
        for student_id in [student.id for student in made]:
            for course_id in [course.id for course in places]:
                student, course = self.app.repository.get(student_id), self.app.repository.get(course_id)
                if len(student.courses) >= student.places or len(course.students) >= course.places:
                    raise ValueError("no place is left")
                if course_id in student.courses:
                    raise ValueError("the student has joined already")
                student.join(course_id=course_id)
                course.accept(student_id=student_id)
                self.app.save(student, course)
        return len(students) + len(courses) + 2 * len(students) * len(courses)

    async def prepare_move(self, source: Target) -> None:
        env = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": source.address}
        self.old = Application({**env, "CREATE_TABLE": "no"})

    async def move(self, source: Target) -> None:
        """Recorder to recorder, a page at a time: nothing is decoded."""
        last = 0
        while page := self.old.recorder.select_notifications(last, PAGE, inclusive_of_start=False):
            last = page[-1].id
            self.app.recorder.insert_events(page)
        self.old.close()

    async def project(self, events: int) -> int:
        table = f"lines_{uuid4().hex[:12]}"
        projection, view = lines_projection(table, self.kind)
        with ProjectionRunner(
            application_class=Application, projection_class=projection, view_class=view, env=self.env
        ) as runner:
            runner.wait(self.app.recorder.max_notification_id(), timeout=LONGEST)
            with runner.view.datastore.transaction(commit=True) as cursor:
                cursor.execute(f"SELECT sum(lines) AS counted FROM {table}")
                return int(cursor.fetchone()["counted"])


LONGEST = 200.0


def lines_projection(table: str, kind: str) -> tuple[Any, Any]:
    """A projection and its view, as its guide has them: row and tracking in one transaction per event."""
    on_server = kind == "postgresql"
    place = "%s" if on_server else "?"
    create = f"CREATE TABLE IF NOT EXISTS {table} (id TEXT PRIMARY KEY, lines INTEGER, total FLOAT)"
    add = (
        f"INSERT INTO {table} (id, lines, total) VALUES ({place}, 1, {place}) ON CONFLICT (id) DO UPDATE "
        f"SET lines = {table}.lines + 1, total = {table}.total + excluded.total"
    )
    options = {"prepare": True} if on_server else {}
    recorder: Any = PostgresTrackingRecorder if on_server else SQLiteTrackingRecorder

    class View(recorder):  # type: ignore[misc]
        def __init__(self, datastore: Any, **kwargs: Any) -> None:
            super().__init__(datastore, **kwargs)
            (self.sql_create_statements if on_server else self.create_table_statements).append(
                SQL(create) if on_server else create
            )

        def add(self, stream: str, total: float, tracking: Tracking) -> None:
            with self.datastore.transaction(commit=True) as cursor:
                self._insert_tracking(cursor, tracking)
                cursor.execute(add, (stream, total), **options)

    class Lines(Projection[View]):
        name = table

        def process_event(self, domain_event: Any, tracking: Tracking) -> None:
            total = domain_event.quantity * domain_event.price
            self.view.add(str(domain_event.originator_id), total, tracking)

    return Lines, View


class EventSourcingWithFunctions(EventSourcing):
    """With stored functions that insert a batch in one call."""

    functions = "yes"

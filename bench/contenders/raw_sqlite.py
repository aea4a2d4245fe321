"""sqlite3 of the standard library in one worker thread, one hop for each operation; or without."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from queue import SimpleQueue
from typing import Any

from bench.contenders.base import AGGREGATE_TYPE, SYNCHRONOUS, Contender, Target
from bench.contenders.raw import (
    PAGE,
    ROW,
    ConflictError,
    PlainEvent,
    create_tables,
    decode,
    plain_event,
    rows_of,
    to_json,
    with_moments,
)
from esource.moments import to_iso

VERSION = "SELECT max(version) FROM events WHERE aggregate_id = ? AND aggregate_type = ?"
INSERT = (
    "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, tenant_id, actor_id, version, "
    "timestamp, payload, created_at) VALUES (?, ?, ?, 'LineAdded', NULL, NULL, ?, ?, ?, ?)"
)
COLUMNS = "event_id, aggregate_id, version, timestamp, payload"
STREAM = f"SELECT {COLUMNS} FROM events WHERE aggregate_id = ? AND aggregate_type = ? ORDER BY version"
LOG = f"SELECT {COLUMNS}, global_position FROM events WHERE global_position > ? ORDER BY global_position LIMIT ?"


class _Thread:
    """Runs functions one after another; the cheapest hop there is: one queue there, one callback back."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, future = call
            try:
                settle, value = future.set_result, function()
            except BaseException as error:
                settle, value = future.set_exception, error
            self._loop.call_soon_threadsafe(settle, value)

    def call(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        self._calls.put((function, future))
        return future

    def stop(self) -> None:
        self._calls.put(None)
        self._thread.join()


class _Here:
    """Runs functions where they are called."""

    async def call(self, function: Callable[[], Any]) -> Any:
        return function()

    def stop(self) -> None: ...


class RawSQLite(Contender):
    conflicts = (ConflictError,)
    runner: type[_Thread | _Here] = _Thread

    async def open(self, target: Target) -> None:
        memory = target.kind == "memory"
        if not memory and not target.ready:
            await create_tables(target.address)
        self.thread = self.runner()

        def connect() -> None:
            self.connection = sqlite3.connect(target.address, isolation_level=None)
            if memory:
                from sqlalchemy import create_engine, pool

                from esource.tables import metadata

                engine = create_engine(
                    "sqlite://", creator=lambda: self.connection, poolclass=pool.StaticPool
                )
                metadata.create_all(engine)
            self.connection.executescript(
                f"PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = {target.synchronous}"
            )

        await self.thread.call(connect)

    async def close(self) -> None:
        await self.thread.call(lambda: self.connection.close())
        self.thread.stop()

    async def prepare_move(self, source: Target) -> None:
        rows = await rows_of(source)
        is_text = rows and isinstance(rows[0][8], str)
        self.rows = rows if is_text else with_moments(rows, to_iso)

    async def move(self, source: Target) -> None:
        """One transaction of rows that lie ready in memory: nothing is read, checked or counted."""
        text = f"INSERT INTO events ({', '.join(ROW)}) VALUES ({', '.join('?' * len(ROW))})"

        def run() -> None:
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.executemany(text, self.rows)
            self.connection.execute("COMMIT")

        await self.thread.call(run)

    async def durability(self) -> dict[str, str]:
        def read() -> dict[str, str]:
            (mode,) = self.connection.execute("PRAGMA journal_mode").fetchone()
            (level,) = self.connection.execute("PRAGMA synchronous").fetchone()
            return {"journal_mode": mode, "synchronous": SYNCHRONOUS[level]}

        found: dict[str, str] = await self.thread.call(read)
        return found

    def versions(self) -> dict[str, str]:
        return {"sqlite": sqlite3.sqlite_version}

    def new_stream(self) -> str:
        return str(super().new_stream())

    def event(self, stream: Any, version: int) -> PlainEvent:
        return plain_event()

    async def append(self, stream: Any, events: list[Any], expected: int) -> None:
        await self.thread.call(lambda: self._append(stream, events, expected))

    def _append(self, stream: str, events: list[PlainEvent], expected: int) -> None:
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            if (execute(VERSION, (stream, AGGREGATE_TYPE)).fetchone()[0] or 0) != expected:
                raise ConflictError
            now = datetime.now(timezone.utc).isoformat()
            rows = [
                (
                    str(event.event_id),
                    stream,
                    AGGREGATE_TYPE,
                    expected + step,
                    event.timestamp.isoformat(timespec="microseconds"),
                    to_json(event.payload),
                    now,
                )
                for step, event in enumerate(events, 1)
            ]
            if len(rows) == 1:
                execute(INSERT, rows[0])
            else:
                self.connection.executemany(INSERT, rows)
            execute("COMMIT")
        except BaseException:
            execute("ROLLBACK")
            raise

    async def _rows(self, text: str, *arguments: Any) -> list[Any]:
        rows: list[Any] = await self.thread.call(lambda: self.connection.execute(text, arguments).fetchall())
        return rows

    async def version(self, stream: Any) -> int:
        return (await self._rows(VERSION, stream, AGGREGATE_TYPE))[0][0] or 0

    async def load(self, stream: Any) -> int:
        return len([decode(*row) for row in await self._rows(STREAM, stream, AGGREGATE_TYPE)])

    async def read_all(self) -> int:
        count = last = 0
        while rows := await self._rows(LOG, last, PAGE):
            last = rows[-1][5]
            for row in rows:
                count += decode(*row[:5]).quantity > 0
        return count

    async def read_envelopes(self) -> int:
        count = last = 0
        while rows := await self._rows(LOG, last, PAGE):
            last = rows[-1][5]
            count += len(rows)
        return count


class RawSQLiteWithoutHop(RawSQLite):
    """In the thread of the loop."""

    runner = _Here

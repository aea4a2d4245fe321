"""asyncpg alone: one checked statement, one round trip, one commit for each append."""

from __future__ import annotations

import asyncio
from datetime import datetime
from importlib.metadata import version
from typing import Any

import asyncpg

from bench.contenders.base import AGGREGATE_TYPE, Contender, Target, asyncpg_durability
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

_COLUMNS = (
    "event_id, aggregate_id, aggregate_type, event_type, tenant_id, actor_id, version, timestamp, payload"
)
VERSION = "SELECT max(version) FROM events WHERE aggregate_id = $1 AND aggregate_type = $2"
INSERT_ONE = f"""
    INSERT INTO events ({_COLUMNS})
    SELECT $4::uuid, $1::uuid, $2::text, 'LineAdded', NULL, NULL, $3::int + 1, $5::timestamptz, $6::jsonb
    WHERE (SELECT coalesce(max(version), 0) FROM events WHERE aggregate_id = $1 AND aggregate_type = $2) = $3
    RETURNING global_position"""
INSERT_MANY = f"""
    WITH fitting AS MATERIALIZED (
        SELECT 1 WHERE
        (SELECT coalesce(max(version), 0) FROM events WHERE aggregate_id = $1 AND aggregate_type = $2) = $3::int
    )
    INSERT INTO events ({_COLUMNS})
    SELECT event_id, $1::uuid, $2::text, 'LineAdded', NULL, NULL, $3 + step, timestamp, payload::jsonb
    FROM fitting, unnest($4::uuid[], $5::timestamptz[], $6::text[])
        WITH ORDINALITY AS row (event_id, timestamp, payload, step)
    ORDER BY step
    RETURNING global_position"""
_READ = "event_id::text, aggregate_id::text, version, timestamp, payload"
STREAM = f"SELECT {_READ} FROM events WHERE aggregate_id = $1 AND aggregate_type = $2 ORDER BY version"
LOG = f"SELECT {_READ}, global_position FROM events WHERE global_position > $1 ORDER BY global_position LIMIT $2"


class RawPostgreSQL(Contender):
    conflicts = (ConflictError, asyncpg.UniqueViolationError)

    async def open(self, target: Target) -> None:
        if not target.ready:
            await create_tables(target.address)
        self.all = [await asyncpg.connect(target.address) for _ in range(target.writers)]
        # One connection for each writer: nobody waits for one.
        self.idle = list(self.all)

    async def close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self.all))

    async def durability(self) -> dict[str, str]:
        return await asyncpg_durability(self.all[0])

    def versions(self) -> dict[str, str]:
        return {"asyncpg": version("asyncpg")}

    def event(self, stream: Any, version: int) -> PlainEvent:
        return plain_event()

    async def _rows(self, text: str, *arguments: Any) -> Any:
        connection = self.idle.pop()
        try:
            return await connection.fetch(text, *arguments)
        finally:
            self.idle.append(connection)

    async def append(self, stream: Any, events: list[Any], expected: int) -> None:
        place = (stream, AGGREGATE_TYPE, expected)
        if len(events) == 1:
            (event,) = events
            stored = await self._rows(
                INSERT_ONE, *place, event.event_id, event.timestamp, to_json(event.payload)
            )
        else:
            stored = await self._rows(
                INSERT_MANY,
                *place,
                [event.event_id for event in events],
                [event.timestamp for event in events],
                [to_json(event.payload) for event in events],
            )
        if not stored:
            raise ConflictError

    async def version(self, stream: Any) -> int:
        return (await self._rows(VERSION, stream, AGGREGATE_TYPE))[0][0] or 0

    async def load(self, stream: Any) -> int:
        rows = await self._rows(STREAM, stream, AGGREGATE_TYPE)
        return len([decode(row[0], row[1], row[2], row[3].isoformat(), row[4]) for row in rows])

    async def read_all(self) -> int:
        count = last = 0
        while rows := await self._rows(LOG, last, PAGE):
            last = rows[-1][5]
            for row in rows:
                count += decode(row[0], row[1], row[2], row[3].isoformat(), row[4]).quantity > 0
        return count

    async def read_envelopes(self) -> int:
        count = last = 0
        while rows := await self._rows(LOG, last, PAGE):
            last = rows[-1][5]
            count += len(rows)
        return count

    async def prepare_move(self, source: Target) -> None:
        rows = await rows_of(source)
        is_text = rows and isinstance(rows[0][8], str)
        self.rows = with_moments(rows, datetime.fromisoformat) if is_text else rows

    async def move(self, source: Target) -> None:
        """One binary COPY of rows that lie ready in memory: nothing is read, checked or counted."""
        await self.all[0].copy_records_to_table("events", records=self.rows, columns=ROW)

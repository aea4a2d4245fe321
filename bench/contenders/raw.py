"""What both raw contenders share: rows as plain values, and decoding into the same typed event."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime, timezone
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from bench.contenders.base import AGGREGATE_TYPE, CONTENT, Target
from bench.contenders.typed import LineAdded
from esource import open_store
from esource.domain.events import uuid7


class PlainEvent(NamedTuple):
    """What an application without a library would have at hand."""

    event_id: UUID
    timestamp: datetime
    payload: dict[str, Any]


class ConflictError(Exception):
    """The stream is at another version."""


def plain_event() -> PlainEvent:
    payload = {
        "event_version": 1,
        "correlation_id": str(uuid7()),
        "causation_id": None,
        "metadata": {},
        **CONTENT,
        "reference": str(CONTENT["reference"]),
    }
    return PlainEvent(uuid7(), datetime.now(timezone.utc), payload)


async def create_tables(address: str) -> None:
    """esource's own newest schema: the same table and the same indexes."""
    async with open_store(address, enable_tracing=False) as store:
        await store.initialize()


_validate = LineAdded.__pydantic_validator__.validate_json


def decode(event_id: str, aggregate_id: str, version: int, timestamp: str, payload: str) -> LineAdded:
    """The typed event, validated from one JSON text."""
    event: LineAdded = _validate(
        f'{payload[:-1]},"event_id":"{event_id}","event_type":"LineAdded","aggregate_id":"{aggregate_id}",'
        f'"aggregate_type":"{AGGREGATE_TYPE}","aggregate_version":{version},"tenant_id":null,'
        f'"actor_id":null,"occurred_at":"{timestamp}"}}'
    )
    return event


def to_json(payload: dict[str, Any]) -> str:
    return json.dumps(payload)


PAGE = 1000
"""Rows that a reader of the whole log fetches at once."""


ROW = (
    "global_position", "event_id", "aggregate_id", "aggregate_type", "event_type", "tenant_id", "actor_id",
    "version", "timestamp", "payload", "created_at",
)  # fmt: skip


async def rows_of(source: Target) -> list[tuple[Any, ...]]:
    """The whole log as it is to be inserted elsewhere: text, numbers and moments."""
    if source.kind != "postgresql":
        with closing(sqlite3.connect(source.address)) as connection:
            return connection.execute(f"SELECT {', '.join(ROW)} FROM events ORDER BY 1").fetchall()
    connection = await asyncpg.connect(source.address)
    try:
        wanted = ", ".join(f"{name}::text" if name.endswith("_id") else name for name in ROW)
        return [tuple(row) for row in await connection.fetch(f"SELECT {wanted} FROM events ORDER BY 1")]
    finally:
        await connection.close()


def with_moments(rows: list[tuple[Any, ...]], form: Any) -> list[tuple[Any, ...]]:
    """The rows with both moments as the target's driver takes them."""
    return [(*row[:8], form(row[8]), row[9], form(row[10])) for row in rows]

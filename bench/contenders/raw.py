"""What both raw contenders share: rows as plain values, and decoding into the same typed event."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any, NamedTuple
from uuid import UUID

from bench.contenders.base import AGGREGATE_TYPE, CONTENT
from bench.contenders.typed import LineAdded
from esource import open_store
from esource.events import uuid7


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

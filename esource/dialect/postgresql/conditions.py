"""PostgreSQL: conditions on their way to the function that judges them, and its answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic_core import to_json

from esource.dialect.plan import Condition, Matched, Moved, Plan, Refusal, Unjudged
from esource.tables.filling import Declared
from esource.tables.rows import StreamId

if TYPE_CHECKING:
    from collections.abc import Sequence


def as_json(condition: Condition | None) -> str | None:
    """A condition as the function `esource_refusal` takes it."""
    if condition is None:
        return None
    return to_json(
        {
            "after": condition.after,
            "tenant": None if condition.tenant_id is None else str(condition.tenant_id),
            "items": [
                {"types": sorted(types) or None, "tags": sorted(tags) or None}
                for types, tags in condition.items
            ],
            "streams": [
                {"id": str(stream.aggregate_id), "type": stream.aggregate_type, "version": version}
                for stream, version in condition.streams
            ],
        }
    ).decode()


def refusals(plan: Plan, answers: Sequence[str | None]) -> dict[int, Refusal]:
    """Why the conditions of a plan did not hold, by stream."""
    return {
        index: _refusal(plan.streams[index].condition, json.loads(answer))
        for index, answer in enumerate(answers)
        if answer is not None
    }


def _refusal(condition: Condition | None, answer: dict[str, Any]) -> Refusal:
    if "isolation" in answer:
        return Unjudged(answer["isolation"])
    if "filled" in answer:
        return Declared(answer["filled"], answer["with"])
    if "position" in answer:
        return Matched(answer["position"], answer["type"] or "")
    stream = StreamId(UUID(answer["id"]), answer["type"])
    expected = dict(condition.streams).get(stream, 0) if condition is not None else 0
    return Moved(stream, expected, answer["version"])

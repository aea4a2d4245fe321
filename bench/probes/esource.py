"""esource under the probes."""

from __future__ import annotations

from typing import Any

from bench.contenders.base import AGGREGATE_TYPE
from bench.contenders.esource import Esource
from bench.probes.subject import FIELDS, Shown, Subject, typed_event
from esource import DomainEvent, ReadOptions, register_event

Probed = register_event(typed_event(DomainEvent))


class Probe(Subject, Esource):
    def probed(self, stream: Any, version: int, mark: str, **fields: Any) -> Any:
        return Probed(aggregate_id=stream, aggregate_version=version, mark=mark, **{**FIELDS, **fields})

    async def follow(self, after: Any) -> list[Shown]:
        options = ReadOptions(from_position=after or 0)
        return [
            Shown(stored.global_position, str(stored.event.mark))  # type: ignore[attr-defined]
            async for stored in self.store.read_all(options)
        ]

    async def events(self, stream: Any) -> list[Any]:
        return list((await self.store.get_events(stream, AGGREGATE_TYPE)).events)

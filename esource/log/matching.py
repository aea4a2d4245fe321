"""What the earlier events of a batch mean for a condition: they are not in the table yet when the database judges it.

The rules are those of `esource.domain.queries.Query.matches`; a test compares both with what the databases answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from esource.dialect.plan import Condition
from esource.domain.tags import stored_tags
from esource.tables.rows import EncodedEvent


class Earlier:
    """The rows of a batch, found by their tags and types. Looked at only when a condition asks."""

    __slots__ = ("_by_tag", "_by_type", "_rows", "_seen")

    def __init__(self, rows: Sequence[tuple[int, int, EncodedEvent]]) -> None:
        self._rows = rows
        self._seen = 0
        self._by_tag: dict[str, list[tuple[EncodedEvent, frozenset[str]]]] = defaultdict(list)
        self._by_type: dict[str, list[EncodedEvent]] = defaultdict(list)

    def meet(self, condition: Condition) -> bool:
        """Whether any of them is selected by the condition's query. All of them will be past its position."""
        self._look()
        return any(self._has(types, tags, condition) for types, tags in condition.items)

    def _look(self) -> None:
        for place in range(self._seen, len(self._rows)):
            event = self._rows[place][2]
            tags = stored_tags(event.tags)
            self._by_type[event.event_type].append(event)
            for tag in tags:
                self._by_tag[tag].append((event, tags))
        self._seen = len(self._rows)

    def _has(self, types: frozenset[str], tags: frozenset[str], condition: Condition) -> bool:
        tenant_id = condition.tenant_id
        if not tags:
            of_types = (self._by_type[each] for each in (types or [*self._by_type]) if each in self._by_type)
            return any(tenant_id in (None, event.tenant_id) for events in of_types for event in events)
        rarest = min((self._by_tag.get(tag, []) for tag in tags), key=len)
        return any(
            tags <= found
            and (not types or event.event_type in types)
            and tenant_id in (None, event.tenant_id)
            for event, found in rarest
        )

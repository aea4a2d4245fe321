"""What events that are at hand mean for a condition: those of a batch, which are not in the table yet when the database judges it,
and the few that have come since a decision was made.

The rules are those of `esource.domain.queries.Query.matches`; a test compares both with what the databases answer.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeAlias

from esource.dialect.plan import Matched

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from esource.dialect.plan import Condition

AtHand: TypeAlias = "tuple[int, str, frozenset[str], Any]"
"""An event: its position, type, tags and tenant."""


class EventsAtHand:
    """Events, found by their tags and types: a condition costs the same however many there are."""

    __slots__ = ("_all", "_by_tag", "_by_type")

    def __init__(self, events: Iterable[AtHand] = ()) -> None:
        self._all: list[AtHand] = []
        self._by_tag: dict[str, list[AtHand]] = defaultdict(list)
        self._by_type: dict[str, list[AtHand]] = defaultdict(list)
        self.add(events)

    def add(self, events: Iterable[AtHand]) -> None:
        """Take more of them, in the order of their positions."""
        for event in events:
            self._all.append(event)
            self._by_type[event[1]].append(event)
            for tag in event[2]:
                self._by_tag[tag].append(event)

    def first(self, condition: Condition, tenant: Any, after: int) -> Matched | None:
        """The first event past a position that a condition excludes.

        Args:
            condition: Whose query it is.
            tenant: The condition's, as the events have it; None for all.
            after: The position.
        """
        found: AtHand | None = None
        for types, tags in condition.items:
            for events in self._candidates(types, tags):
                for event in events:
                    position, event_type, of_event, owner = event
                    if found is not None and position >= found[0]:
                        break
                    if (
                        position > after
                        and (not types or event_type in types)
                        and tags <= of_event
                        and (tenant is None or tenant == owner)
                    ):
                        found = event
                        break
        return None if found is None else Matched(found[0], found[1])

    def _candidates(self, types: frozenset[str], tags: frozenset[str]) -> Sequence[Sequence[AtHand]]:
        """Lists of events in which all are that an item selects."""
        if not tags:
            return [self._by_type[each] for each in types if each in self._by_type] if types else [self._all]
        by_tag = self._by_tag
        rarest = self._all
        for tag in tags:
            if tag not in by_tag:
                return ()
            if len(by_tag[tag]) < len(rarest):
                rarest = by_tag[tag]
        return (rarest,)

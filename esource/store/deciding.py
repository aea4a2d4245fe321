"""Decisions over views: read what concerns them, decide, append, and again after a conflict."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from typing_extensions import TypeVarTuple, Unpack

from esource.checks import shown
from esource.codec.codec import Codec
from esource.database.calls import answer_of
from esource.database.patience import Retry, pause_or_raise
from esource.domain.queries import Query, QueryItem
from esource.domain.views import Decision, View, boundary_of, check_views, decided, united
from esource.errors import AppendConditionError, InvalidOptionError
from esource.log.streams import AppendResult, StoredEvent
from esource.store.querying import Queries
from esource.store.turns import RETRY, current_unit_of, turns_of

Views = TypeVarTuple("Views")


class Decisions(Queries):
    """The part of `EventStore` that decides."""

    codec: Codec

    async def decide(
        self,
        decision: Callable[[Unpack[Views]], Decision | Awaitable[Decision]],
        *views: Unpack[Views],
        retry: Retry = RETRY,
    ) -> AppendResult:
        """Decide by what is stored, and store what was decided: ``await store.decide(subscribe, Course("c1"), Student("s1"))``.

        The events of all views are read by one query, of one moment. Each view takes in its own, and the function is called
        with the views. It returns the event that happens (or several, for one stream), or raises an error of its own. The
        append succeeds only if no event of any view's boundary has come meanwhile. Otherwise everything is done again, so the
        function should do nothing besides deciding.

        Decisions of one process with the same boundary wait for each other instead of conflicting. Inside `transaction` a
        decision belongs to that, sees what was appended in it, and waits for no other.

        Args:
            decision: A function of the views, plain or ``async``; see `functools.partial` for further arguments.
            views: What it has to know, each made with its keys.
            retry: How often to try when other processes come first, and how long to wait in between.

        Returns:
            The result of the append. If the decision returns an empty list, nothing is appended: version and position are 0.

        Raises:
            AppendConditionError: other processes came first in every try.
            InvalidOptionError: there is no view, a view says no boundary, or the decision returned no event.
            EventSourceError: as for `append`; and whatever the decision raises.
        """
        if not callable(decision):
            raise InvalidOptionError(f"decide takes a function of the views first, not {shown(decision)}")
        given = check_views(views)
        boundaries = [boundary_of(view) for view in given]
        boundary = united(boundaries)
        attempt = 1
        async with turns_of(self).taken(
            map(_key, boundary.items), current_unit_of(self), f"the decision {decision!r}"
        ):
            found = await self.read_query(boundary)
            known = found.events
            while True:
                # By the classes that are registered by now, as what was read.
                own = [each.named(self.codec.registry) for each in boundaries]
                outcome = await answer_of(partial(decision, *_folded(given, own, known)))  # type: ignore[arg-type]
                events = decided(decision, outcome)
                if not events:
                    return AppendResult(True, 0)
                try:
                    return await self.append(events, condition=found.condition)
                except AppendConditionError as conflict:
                    await pause_or_raise(retry, attempt, conflict)
                attempt += 1
                # What was read stays as it is: the log only grows.
                found = await self.read_query(boundary, found.head)
                known = [*known, *found.events]


def _folded(given: Sequence[View], boundaries: Sequence[Query], events: Sequence[StoredEvent]) -> list[View]:
    """The views anew, each with those of the events that its boundary selects."""
    views = [view.anew() for view in given]
    if len(views) == 1:
        for stored in events:
            views[0].fold(stored.event)
        return views
    for stored in events:
        event_type, tags = stored.event_type, stored.tags
        for view, boundary in zip(views, boundaries, strict=True):
            if boundary.matches(event_type, tags):
                view.fold(stored.event)
    return views


def _key(item: QueryItem) -> str:
    """What decisions have in common that are likely to conflict: the tags of an item, or else its types."""
    return repr(item if not item.tags else sorted(item.tags))

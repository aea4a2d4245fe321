"""`esource.store.deciding` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from collections.abc import Awaitable, Callable

from typing_extensions import Unpack

from esource.database.patience import Retry
from esource.domain.views import Decision
from esource.log.streams import AppendResult
from esource.store import deciding as asynchronous
from esource.store.deciding import Views
from esource.store.turns import RETRY
from esource.sync.querying import Queries


class Decisions(Queries):
    """The part of `EventStore` that decides."""

    _target: asynchronous.Decisions

    def decide(
        self,
        decision: Callable[[Unpack[Views]], Decision | Awaitable[Decision]],
        *views: Unpack[Views],
        retry: Retry = RETRY,
    ) -> AppendResult:
        """Decide by what is stored, and store what was decided: ``store.decide(subscribe, Course("c1"), Student("s1"))``.

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
        return self._call(self._target.decide(decision, *views, retry=retry))

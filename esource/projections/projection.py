"""What a projection is: its handlers, and how it wants to be run."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from esource.checks import check_choice, check_name, check_seconds, check_whole
from esource.database.calls import awaitable
from esource.database.patience import Retry
from esource.domain.events import DomainEvent
from esource.domain.handles import marked_methods, method_for
from esource.domain.queries import Query, check_query
from esource.domain.registry import EventRegistry
from esource.errors import InvalidOptionError
from esource.projections.context import ProjectionContext

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

Handle = Callable[[Any, ProjectionContext], Awaitable[None]]

_RESERVED = re.compile(r"@\d+$|\[\d+/\d+\]$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    """Save progress every so many events or seconds, whichever comes first. After a crash at most that
    much is handled once more.

    Raises:
        InvalidOptionError: fewer than one event, or no time at all.
    """

    events: int = 100
    seconds: float = 5.0

    def __post_init__(self) -> None:
        check_whole("events", self.events, least=1)
        check_seconds("seconds", self.seconds)


Progress = Literal["in_transaction", "after_event"] | Every
FailurePolicy = Literal["stop", "skip", "halt_stream"]


class Projection:
    """A read model's update rules: one method per event, marked with `handles`. A plain method
    blocks the event loop while it runs.

    Its methods see each event of their types once and in the order of the log (or of each stream, when
    partitions share the work). What they write through ``context.connection`` is applied exactly
    once for each event, whatever crashes: the read model and the checkpoint are saved in one transaction.
    Run it with `ProjectionRunner`.

    Example:
        >>> class OrderTotals(Projection):
        ...     @handles(OrderPlaced)
        ...     async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
        ...         await context.connection.execute(
        ...             totals.insert().values(id=event.aggregate_id, total=event.total)
        ...         )

    A method for a base class is for all registered events below it; one for `DomainEvent` is for every
    event in the log, and meets those without a class as the store's ``unknown_events`` says.

    Raises:
        InvalidOptionError: when the class is made: two methods handle the same event, or an
            option makes no sense.
    """

    name: ClassVar[str] = ""
    """The name of its checkpoint; the class name unless set, here or in a base class. At most 200
    characters."""
    version: ClassVar[int] = 1
    """Raise it when the read model is to be built anew: it is built beside the old one, from the start
    of the log, and takes over when it has caught up. See `take_over`."""
    selects: ClassVar[Query | None] = None
    """Of the events that it handles, only those that this query selects; all of them unless set."""
    progress: ClassVar[Progress] = "in_transaction"
    """When the checkpoint is saved. ``in_transaction``: with the read model, in one transaction per
    batch, for exactly-once effects in this database. ``after_event``: after each event's handler, for
    effects elsewhere; after a crash the last event is handled again. `Every`: less often."""
    batch_size: ClassVar[int] = 500
    """Events in a transaction at most, and in a page."""
    on_failure: ClassVar[FailurePolicy] = "stop"
    """When an event has failed for the last time. ``stop``: the run ends with `ProjectionFailedError`.
    ``skip``: the event becomes a dead letter, the others go on. ``halt_stream``: that stream's later
    events become dead letters behind it, untried, until it has been retried with success."""
    retry: ClassVar[Retry] = Retry()
    """How often an event is tried before that."""
    handler_seconds: ClassVar[float | None] = 60.0
    """How long a handler may take with one event, in seconds; None for no limit. What takes longer is cancelled,
    and the attempt has failed with `TimeLimitError`. It limits `take_over`, too, and the end of a batch, where what
    `ProjectionContext.write` was given is written."""

    _handlers: ClassVar[dict[type[DomainEvent], str]] = {}
    _is_named: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._is_named = cls._is_named or "name" in cls.__dict__
        if not cls._is_named:
            cls.name = cls.__name__
        own = marked_methods(cls)
        cls._handlers = {**cls._handlers, **own}
        check_name("name", cls.name)
        if len(cls.name) > 200 or _RESERVED.search(cls.name):
            raise InvalidOptionError(
                f"{cls.name!r} cannot be a projection's name: it has more than 200 characters, or ends like "
                "the checkpoints of versions (@2) and partitions ([0/8])"
            )
        check_whole("version", cls.version, least=1)
        check_whole("batch_size", cls.batch_size, least=1)
        if cls.handler_seconds is not None:
            check_seconds("handler_seconds", cls.handler_seconds)
        if not isinstance(cls.progress, Every) and cls.progress not in ("in_transaction", "after_event"):
            raise InvalidOptionError(f"progress cannot be {cls.progress!r}")
        check_choice("on_failure", cls.on_failure, ("stop", "skip", "halt_stream"))
        if cls.selects is not None:
            check_query(cls.selects)

    async def reset(self, connection: AsyncConnection) -> None:
        """Make this version's read model empty: create its tables, or clear them.

        Called before the first event, and again by a rebuild, in the transaction that sets the
        checkpoint. Must leave the tables of other versions alone.
        """

    async def take_over(self, connection: AsyncConnection) -> None:
        """Make this version the one that readers see, by renaming tables for instance.

        Called once, when a version after the first has caught up with the log, in the transaction that
        makes it the active one; until that commits nothing can be appended. The old version's runners
        end by themselves afterwards.
        """

    @property
    def checkpoint_name(self) -> str:
        """The name of this version's checkpoint and dead letters: ``orders``, later ``orders@2``."""
        return self.name if self.version == 1 else f"{self.name}@{self.version}"

    @property
    def has_handlers(self) -> bool:
        return bool(self._handlers)

    def event_types(self, registry: EventRegistry) -> frozenset[str] | None:
        """The stored types that it handles; None if that is all of them."""
        classes = tuple(self._handlers)
        if DomainEvent in classes:
            return None
        named = {name for name in registry if method_for(self._handlers, registry.get(name)) is not None}
        return registry.types_of(classes) | named  # classes that were defined anew are not below the old ones

    def handler(self, event_class: type[DomainEvent]) -> Handle | None:
        """The method for events of a class: its own, or that of the nearest base class."""
        method = method_for(self._handlers, event_class)
        return None if method is None else awaitable(getattr(self, method))

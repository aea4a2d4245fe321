"""Tags for events that were stored before their class declared them."""

from __future__ import annotations

from collections.abc import Iterable

from esource.copying import tagging
from esource.copying.progress import OnProgress
from esource.copying.tagging import TagsFilled
from esource.domain.events import DomainEvent
from esource.domain.registry import EventRegistry, default_registry
from esource.sync.driven import Driven, Source, unwrapped
from esource.sync.driver import drive


def fill_tags(
    store: Source,
    *,
    registry: EventRegistry = default_registry,
    types: Iterable[str | type[DomainEvent]] | None = None,
    again: bool = False,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> TagsFilled:
    """Give stored events the tags that their classes declare by now, as `esource.copying.fill_tags` does.

    Args:
        store: A store, an engine or a URL, at the newest schema; on PostgreSQL with the rights of the tables' owner.
        registry: The classes that declare the tags.
        types: Only these event types; all whose class declares tags if left out.
        again: Begin at the start of the log, though it was done before.
        dry_run: Only count; nothing is changed.
        on_progress: Called after each page, with positions; in another thread.

    Raises:
        InvalidOptionError: a class declares no tag, or the store is one of a tenant.
        EventDecodeError: an event does not fit its class, or its values make no tag. What was filled stays, and another run goes on
            there.
        DatabaseReadOnlyError: the role may not change the tables.
        SchemaError: the tables are missing, older or newer.
    """
    work = tagging.fill_tags(
        unwrapped(store),
        registry=registry,
        types=types,
        again=again,
        dry_run=dry_run,
        on_progress=on_progress,
    )
    return drive(work, at_once=False, thread=store._thread if isinstance(store, Driven) else None)

"""One name, one projection: two classes under one name would share a checkpoint, and each pass over half."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from esource.database.database import Database
from esource.errors import InvalidOptionError
from esource.projections.projection import Projection

_at_work: WeakKeyDictionary[Database, dict[str, list[str]]] = WeakKeyDictionary()
"""Which classes are at work in this program, by the database and the name of the checkpoint."""


@contextmanager
def only_one_class(database: Database, projection: Projection) -> Iterator[None]:
    """Refuse another class under a projection's name, for as long as the block runs. Several workers of one class may
    be at work.

    Raises:
        InvalidOptionError: another class is at work under the name.
    """
    classes = _at_work.setdefault(database, {}).setdefault(projection.checkpoint_name, [])
    own = f"{type(projection).__module__}.{type(projection).__qualname__}"
    for other in classes:
        if other != own:
            raise InvalidOptionError(
                f"{own} and {other} are both called {projection.checkpoint_name!r}, and would share one checkpoint: "
                "give one of them another name"
            )
    classes.append(own)
    try:
        yield
    finally:
        classes.remove(own)

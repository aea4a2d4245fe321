"""One name, one projection: two classes under one name would share a checkpoint, and each pass over half.

Within a program a second class is refused. Other processes see it by the lease: its owner's name says which class is at work,
and a digest of the types that it handles; both stay there when the lease is released.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import NamedTuple
from weakref import WeakKeyDictionary

from esource.database.database import Database
from esource.errors import InvalidOptionError
from esource.projections.projection import Projection

_at_work: WeakKeyDictionary[Database, dict[str, list[str]]] = WeakKeyDictionary()
"""Which classes are at work in this program, by the database and the name of the checkpoint."""


_DOING = re.compile(r" runs (\S+) \((\w+)\)$")
_NAME_LENGTH = 100
"""So many characters of a class's name, its end, stand in the name of an owner."""


class Doing(NamedTuple):
    """What a worker does, as the name of its lease's owner ends."""

    class_name: str
    types: str
    """A digest of the event types that it handles."""

    @classmethod
    def of(cls, projection: Projection, types: frozenset[str] | None) -> Doing:
        text = "*" if types is None else "\n".join(sorted(types))
        return cls(
            _class_name(projection)[-_NAME_LENGTH:], sha256(text.encode(errors="replace")).hexdigest()[:8]
        )

    @classmethod
    def in_owner(cls, owner: str | None) -> Doing | None:
        """What the owner of a lease does; None if its name does not say it."""
        found = _DOING.search(owner or "")
        return cls(*found.groups()) if found else None

    def is_of_another_class(self, other: Doing) -> bool:
        """Whether these are two classes. The module of a program is ``__main__`` where it runs, and has its name where
        another program imports it."""
        one, two = self.class_name, other.class_name
        main = "__main__."
        if one.startswith(main) != two.startswith(main):
            return not f".{one}".endswith(f".{two.removeprefix(main)}") and not f".{two}".endswith(
                f".{one.removeprefix(main)}"
            )
        return one != two

    def __str__(self) -> str:
        return f" runs {self.class_name} ({self.types})"


def _class_name(projection: Projection) -> str:
    return f"{type(projection).__module__}.{type(projection).__qualname__}"


@contextmanager
def only_one_class(database: Database, projection: Projection) -> Iterator[None]:
    """Refuse another class under a projection's name, for as long as the block runs. Several workers of one class may
    be at work.

    Raises:
        InvalidOptionError: another class is at work under the name.
    """
    classes = _at_work.setdefault(database, {}).setdefault(projection.checkpoint_name, [])
    own = _class_name(projection)
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

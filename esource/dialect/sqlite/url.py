"""What a SQLite URL may look like."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from esource.errors import InvalidOptionError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


def checked(url: URL) -> URL:
    """The URL, if it names a file or a database in memory.

    Raises:
        InvalidOptionError: it names a host, or a file that no operating system has.
    """
    if url.host and not (url.username or url.password or url.port):
        raise InvalidOptionError(
            f"a SQLite URL has three slashes before the path: sqlite:///{url.host}, not sqlite://{url.host}"
        )
    if url.host or url.username or url.password or url.port:
        raise InvalidOptionError(
            "a SQLite URL names a file, after three slashes: sqlite:///events.db, or sqlite:////srv/events.db. "
            "After two comes a host, which SQLite has not"
        )
    try:
        if b"\0" in os.fsencode(url.database or ""):
            raise InvalidOptionError("the name of the SQLite file holds a NUL character")
    except UnicodeEncodeError:
        raise InvalidOptionError("the name of the SQLite file holds half of a surrogate pair") from None
    return url

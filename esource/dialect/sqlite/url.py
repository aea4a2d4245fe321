"""What a SQLite URL may look like, and which file it names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from esource.checks import shown
from esource.errors import InvalidOptionError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


def checked(url: URL) -> URL:
    """The URL, if it names a file or a database in memory; ``~`` at the beginning of a path is the home folder.

    Raises:
        InvalidOptionError: it names a host, an option, a home folder that is not known, or a file that no operating
            system has.
    """
    if url.query:
        raise InvalidOptionError(f"{', '.join(url.query)}: {_NO_OPTIONS}")
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
    return url if not url.database or url.database[0] != "~" else url.set(database=_at_home(url.database))


def check_text(text: str) -> None:
    """Refuse what SQLAlchemy would leave out of a URL without a word, and open the file that it then names.

    Raises:
        InvalidOptionError: the URL has a question mark.
    """
    if "?" in text:
        raise InvalidOptionError(_NO_OPTIONS)


_NO_OPTIONS = (
    "a SQLite URL has no options; pass keywords. For a question mark in the name of the file give the path in place of "
    "a URL"
)


def _at_home(path: str) -> str:
    """The path in the home folder that ``~`` or ``~user`` stands for. A file may have such a name, a folder may not."""
    found = os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser raises for a file of such a name
    if found == path and "/" in path:
        raise InvalidOptionError(
            f"no home folder is known for {shown(path.partition('/')[0])}, with which the path of the SQLite file begins: "
            "write the folder out, or ./ before the name"
        )
    return found

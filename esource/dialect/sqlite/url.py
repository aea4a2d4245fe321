"""What a SQLite URL may look like, and which file it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esource.checks import check_path
from esource.errors import InvalidOptionError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


def checked(url: URL) -> URL:
    """The URL, if it names a file or a database in memory; ``~`` at the beginning of a path is the home folder.

    Raises:
        InvalidOptionError: it names a host, an option, a home folder that is not known, or a file that no operating
            system has.
    """
    if "schema" in url.query:
        raise InvalidOptionError(NO_SCHEMAS)
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
    return url.set(database=check_path("the SQLite file", url.database)) if url.database else url


def check_text(text: str) -> None:
    """Refuse what SQLAlchemy would leave out of a URL without a word, and open the file that it then names.

    Raises:
        InvalidOptionError: the URL has a question mark.
    """
    if "?" in text:
        raise InvalidOptionError(NO_SCHEMAS if "?schema=" in text else _NO_OPTIONS)


NO_SCHEMAS = "SQLite has no schemas: give each log a file of its own"
_NO_OPTIONS = (
    "a SQLite URL has no options; pass keywords. For a question mark in the name of the file give the path in place of "
    "a URL"
)

"""Where the logs of a directory lie, and the connections that they share there."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from functools import partial
from os import PathLike, fspath
from os.path import abspath
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from esource import schema
from esource.database.cancellation import uninterrupted
from esource.database.database import Database
from esource.database.shared import Server
from esource.dialect.urls import backend_for_url, in_schema, parse_url
from esource.domain.registry import EventRegistry
from esource.errors import InvalidOptionError
from esource.store.doors import open_store
from esource.store.store import EventStore

NAME = re.compile(
    r"(?!pg_|(public|information_schema|con|prn|aux|nul|(com|lpt)[0-9])$)[a-z0-9_][a-z0-9_-]{0,62}"
)
"""Names of logs: good for a schema, and for a file on any disk."""

MOST_FILES = 100
"""So many SQLite files are kept open, each with a few connections."""

IN_USE_SECONDS = 0.1
"""So long a file that is in use, and one too many, waits until it is looked at again."""

OF_FILES = {"wal_mode", "busy_timeout", "synchronous", "execution"}
OF_SERVERS = {
    *("append_lock", "notify", "retry_seconds", "connect_args"),
    *("pool_size", "max_overflow", "pool_timeout", "pool_recycle", "pool_pre_ping"),
}
"""Options of stores that only the one kind of database has, for a directory with logs of both."""


def check_log_name(name: str) -> str:
    """The name of a log.

    Raises:
        InvalidOptionError: no log can have it.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidOptionError(
            f"{name!r} cannot be the name of a log: it has 1 to 63 small letters, digits, '_' and '-', does not begin with '-' "
            "or 'pg_', and is no word such as 'public' or 'con', which means something else to a server or a disk"
        )
    return name


class Places:
    """Turns places into URLs, and URLs into stores that share the connections to their servers.

    Args:
        url: The directory's.
        registry: The event types of all stores.
        most_files: How many SQLite files are kept open at most, as long as no more are in use.
        options: Those of all stores.
    """

    def __init__(
        self,
        url: str | URL | PathLike[str],
        registry: EventRegistry | None,
        most_files: int,
        options: dict[str, Any],
    ) -> None:
        if isinstance(url, PathLike) or (isinstance(url, str) and "://" not in url):
            url = URL.create("sqlite", database=fspath(url))
        self.url = parse_url(url)
        self.in_files = backend_for_url(self.url).in_files
        if self.in_files and self.url.database in (None, "", ":memory:"):
            raise InvalidOptionError(
                "a directory lies in a file or on a server, not in memory: its logs would be lost"
            )
        if options.get("transaction_pooling"):
            raise InvalidOptionError(
                "the logs of a directory share connections, whose schema changes from use to use: connect to the server "
                "itself, not through a pooler that lends connections for a transaction"
            )
        self._registry = registry
        self._options = options
        self._most_files = most_files
        self._stores: dict[str, EventStore] = {}
        self._servers: dict[str, Server] = {}
        self._open_files: OrderedDict[str, None] = OrderedDict()
        """The files that may be open, the one that was used last at the end."""
        self._resting: asyncio.Task[None] | None = None

    def usual(self, name: str) -> str:
        """The place of a new log: beside the directory."""
        if not self.in_files:
            return f"?schema={name}"
        file = Path(str(self.url.database))
        folder = file.stem if file.suffix else f"{file.name}-logs"  # no folder can have the name of the file
        return str(Path(folder) / f"{name}.db")

    def place(self, given: str | URL | PathLike[str]) -> str:
        """A place as it is noted, from what names a database. It has no password.

        Raises:
            InvalidOptionError: the URL cannot be read, or has a password that is not the directory's.
        """
        if isinstance(given, str) and given.startswith("?"):
            if self.in_files or not (given == "?" or given.startswith("?schema=")):
                raise InvalidOptionError(
                    f"{given!r} is no place: it is ?schema=NAME, and only a directory on PostgreSQL has schemas beside it"
                )
            return self._noted(self.resolve(given))
        if isinstance(given, PathLike) or (isinstance(given, str) and "://" not in given):
            return self._noted(URL.create("sqlite", database=fspath(given)))
        return self._noted(parse_url(given))

    def _noted(self, url: URL) -> str:
        if backend_for_url(url).in_files:
            if url.database in (None, "", ":memory:"):
                raise InvalidOptionError("a log of a directory lies in a file or on a server, not in memory")
            # One spelling for each file. Links stay what they are: who sets them may change them.
            file = Path(abspath(Path(str(url.database)).expanduser()))  # noqa: PTH100
            if not self.in_files:
                return f"sqlite:///{file}"
            return str(file.relative_to(self._folder) if file.is_relative_to(self._folder) else file)
        own = self.url
        if url.password and (url.username, url.password) != (own.username, own.password):
            raise InvalidOptionError(
                "a directory notes no passwords. Leave it out of the URL: a log on another server is opened with the user and "
                "the password of the directory's own URL, or with what PGPASSFILE or PGPASSWORD says"
            )
        if (
            not self.in_files
            and _server_part(url) == _server_part(own)
            and url.username in (None, own.username)
        ):
            return f"?schema={url.query['schema']}" if "schema" in url.query else "?"
        if url.username == own.username:
            url = url.set(username=None)
        return url.set(drivername="postgresql", password=None).render_as_string()

    @property
    def _folder(self) -> Path:
        return Path(str(self.url.database)).expanduser().absolute().parent

    def resolve(self, place: str) -> URL:
        """The URL of a place."""
        if place.startswith("?"):
            schema = place.removeprefix("?schema=") if place != "?" else None
            return in_schema(self.url.difference_update_query(["schema"]), schema)
        if "://" not in place:
            return URL.create("sqlite", database=str(self._folder / place))
        url = parse_url(place)
        if not self.in_files and not backend_for_url(url).in_files:
            if url.username is None:
                url = url.set(username=self.url.username)
            if url.username == self.url.username:
                url = url.set(password=self.url.password)
        return url

    def database(self, url: URL) -> Database:
        """The database at a URL, on shared connections. No I/O."""
        return Database.of_server(self.server(url), url)

    def store(self, url: URL) -> EventStore:
        """A store at a URL, on shared connections. No I/O."""
        return self.template(url)._beside(self.database(url))  # noqa: SLF001 - this room makes stores that share

    def template(self, url: URL) -> EventStore:
        """The store whose options and connections those of a server's logs share."""
        key = _server_of(url)
        store = self._stores.get(key)
        if store is None:
            store = self._stores[key] = open_store(
                url.difference_update_query(["schema"]), self._registry, **self._options_for(url)
            )
            used = partial(self._used, key) if backend_for_url(url).in_files else _nothing
            database = store.reader.database
            self._servers[key] = Server(database.connections, database.backend, used)
        return store

    async def prepare(self, store: EventStore) -> None:
        """Make the tables of a log, if they are not there, as the options of its stores need them."""
        await store.initialize()
        if self._options.get("append_lock") == "row" and store.reader.database.backend.append_lock_scripts:
            await schema.create_append_lock(store)

    def _options_for(self, url: URL) -> dict[str, Any]:
        """The options without those that only another kind of database has."""
        others = OF_SERVERS if backend_for_url(url).in_files else OF_FILES
        return {name: value for name, value in self._options.items() if name not in others}

    def require_options(self, what: str, **options: Any) -> None:
        """Refuse what stores with other options could not use.

        Raises:
            InvalidOptionError: those of this directory have others.
        """
        if {name: self._options.get(name) for name in options} != options:
            wanted = ", ".join(f"{name}={value!r}" for name, value in options.items())
            raise InvalidOptionError(
                f"{what} needs stores with {wanted}: open the directory with these options"
            )

    def server(self, url: URL) -> Server:
        """The server of a URL, with its connections. No I/O."""
        self.template(url)
        return self._servers[_server_of(url)]

    def _used(self, key: str) -> None:
        self._open_files[key] = None
        self._open_files.move_to_end(key)
        if len(self._open_files) > self._most_files and self._resting is None:
            self._resting = asyncio.get_running_loop().create_task(self._let_rest())
            self._resting.add_done_callback(self._rested)

    def _rested(self, _: object) -> None:
        self._resting = None

    async def _let_rest(self) -> None:
        """Close the files that were not used for longest. Those that are in use, or come into use meanwhile, have their
        turn later, until no more are open than may be."""
        while len(self._open_files) > self._most_files:
            for key in list(self._open_files)[: -self._most_files]:
                await uninterrupted(self._close_unused(key))
            if len(self._open_files) > self._most_files:
                await asyncio.sleep(IN_USE_SECONDS)

    async def _close_unused(self, key: str) -> None:
        server = self._servers.get(key)
        if server is not None and server.connections.is_ready:
            await server.connections.rest()
        if server is None or not server.connections.is_ready:
            self._open_files.pop(key, None)

    async def let_go(self, url: URL) -> None:
        """Close the connections to a file that was dropped, at once: another one may come to its place."""
        key = _server_of(url)
        store = self._stores.pop(key, None)
        self._servers.pop(key, None)
        self._open_files.pop(key, None)
        if store is not None:
            store.reader.database.close_seconds = 0.0
            await store.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._resting is not None:
            self._resting.cancel()
            await asyncio.wait([self._resting])
        for store in self._stores.values():
            await store.close()


def _server_part(url: URL) -> tuple[object, ...]:
    """What of a PostgreSQL URL says which database it is; the socket's folder is among the options."""
    options = {name: value for name, value in url.query.items() if name != "schema"}
    return url.host, url.port or 5432, url.database, options


def _nothing() -> None:
    """A server's connections stay open."""


def _server_of(url: URL) -> str:
    return url.difference_update_query(["schema"]).render_as_string(hide_password=False)

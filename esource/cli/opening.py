"""Which database a command is about, and opening it for reading or for writing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from sqlalchemy.engine import URL

from esource import EventStore, open_store
from esource.cli.errors import Code, Refusal, keep_secret, wrong_usage
from esource.dialect.urls import backend_for_url, parse_url
from esource.schema.versions import require_head
from esource.store.doors import Execution

CONNECT_SECONDS = 10.0
"""How long a server is waited for, in seconds."""

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="ESOURCE_URL",
        metavar="URL",
        help="The database: sqlite:///events.db, a SQLite file's name, or postgresql://user@host/database.",
    ),
]
"""The option ``--url`` of every command."""


def database_url(url: str | None) -> URL:
    """The URL in its parts; its password is kept out of everything that is shown from here on.

    Raises:
        Refusal: there is none.
        InvalidOptionError: it cannot be read, or is another kind of database's.
    """
    if not url:
        raise wrong_usage("no database: pass --url sqlite:///events.db, or set ESOURCE_URL.")
    if "://" not in url:
        return parse_url(URL.create("sqlite", database=url))
    parsed = parse_url(url)
    secrets = [parsed.password, *(str(v) for k, v in parsed.query.items() if "password" in k)]
    for secret in filter(None, secrets):
        keep_secret(secret)
        keep_secret(quote(secret, safe=""))
    backend_for_url(parsed)
    return parsed


def sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite URL; None for a server."""
    if not backend_for_url(url).in_files:
        return None
    if url.database in (None, "", ":memory:"):
        raise wrong_usage("a database in memory is empty, and gone with the command: name a file.")
    return Path(str(url.database))


@asynccontextmanager
async def reading(
    url: str | None, *, any_schema: bool = False, execution: Execution = "caller"
) -> AsyncIterator[EventStore]:
    """An open store that only reads: it creates no file, and leaves none behind.

    On SQLite it works in the caller's thread: in most commands no other task waits meanwhile.

    Raises, besides what opening raises:
        SchemaError: the tables are not this library's, unless any schema will do.
    """
    async with _store(url, execution, read_only=True) as store:
        if not any_schema:
            await require_head(store)
        yield store


@asynccontextmanager
async def writing(
    url: str | None, *, any_schema: bool = False, create: bool = False, **options: Any
) -> AsyncIterator[EventStore]:
    """An open store that may write; a SQLite file that is not there is only made if it is to be created."""
    file = sqlite_file(database_url(url))
    if file is not None and not create and not file.exists():
        raise Refusal(
            f"SQLite database {file}: there is no such file. Check the path, or create it with "
            "`esource init`.",
            Code.DATABASE,
        )
    async with _store(url, **options) as store:
        if not any_schema:
            await require_head(store)
        yield store


@asynccontextmanager
async def _store(
    url: str | None, execution: Execution = "caller", **options: Any
) -> AsyncIterator[EventStore]:
    parsed = database_url(url)
    options = {"unknown_events": "untyped", "enable_tracing": False, **options}
    if sqlite_file(parsed) is None:
        options["connect_args"] = {"timeout": CONNECT_SECONDS}
    else:
        options["execution"] = execution
    async with open_store(parsed, **options) as store:
        yield store

"""A look inside a store, in the terminal: ``inspect``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer
from sqlalchemy.engine import URL

from esource.cli.errors import Code, Refusal, explain, masked, wrong_usage
from esource.cli.opening import CONNECT_SECONDS, DatabaseUrl, database_url, reading, sqlite_file
from esource.cli.running import asynchronous
from esource.directory import Directory
from esource.errors import MissingDriverError
from esource.schema.versions import require_head
from esource.store.store import EventStore

commands = typer.Typer()


@commands.command("inspect")
@asynchronous
async def inspect(
    url: DatabaseUrl = None,
    log: Annotated[
        str | None, typer.Option("--log", metavar="NAME", help="Open this log of a directory at once.")
    ] = None,
    own: Annotated[
        bool, typer.Option("--own", help="The log in the database itself, also if there is a directory.")
    ] = False,
) -> None:
    """Look inside a store: streams, the growing log, projections, dead letters and the outbox.

    If the database has a directory of logs, choose one of them. Escape leads back to them.
    """
    try:
        from esource.tui.app import Inspector
    except ModuleNotFoundError as error:
        raise MissingDriverError("textual", "tui") from error
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise wrong_usage("inspect needs a terminal. Elsewhere use `esource info` and `esource tail`.")
    check = still_there(database_url(url))
    if not own and await _inspect_directory(database_url(url), log):
        return
    # With threads the screen goes on while a query looks through a large store.
    async with reading(url, execution="thread") as store:
        await Inspector(store, explain=lambda error: masked(explain(error)[0]), check=check).run_async()


async def _inspect_directory(url: URL, log: str | None) -> bool:
    """Let logs of a directory be chosen and looked at; False if the database has none."""
    async with Directory(
        url,
        unknown_events="untyped",
        enable_tracing=False,
        execution="thread",
        read_only=True,
        connect_args={"timeout": CONNECT_SECONDS},
    ) as directory:
        if log is None and not await directory.records.logs_if_any():
            return False
        await choose(directory, log)
    return True


async def choose(directory: Directory, log: str | None = None) -> None:
    """Show the logs, then the one that is chosen, then the logs again, until the person ends it."""
    from esource.tui.app import Inspector
    from esource.tui.logs import Logs

    def explained(error: Exception) -> str:
        return masked(explain(error)[0])

    async def opened(name: str) -> EventStore:
        nonlocal log
        store = await directory.log(name)
        still_there(directory.places.resolve((await directory.entry(name)).place))()
        await require_head(store)
        log = name
        return store

    store = None if log is None else await opened(log)
    while store is not None or (
        store := await Logs(directory, opened, explain=explained, at=log).run_async()
    ):
        entry = await directory.entry(str(log))
        check = still_there(directory.places.resolve(entry.place))
        if not await Inspector(store, explain=explained, check=check, is_one_of_many=True).run_async():
            return
        store = None


def still_there(url: URL) -> Callable[[], None]:
    """Raises, when called, if the database's file is gone: an open one can be read on after it was deleted, and
    would look as if nothing had happened."""
    file = sqlite_file(url)

    def check() -> None:
        if file is not None and not file.exists():
            raise Refusal(f"SQLite database {file}: there is no such file any more.", Code.DATABASE)

    return check

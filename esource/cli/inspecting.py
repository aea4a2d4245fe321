"""A look inside a store, in the terminal: ``inspect``."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer
from sqlalchemy.engine import URL

from esource.cli.errors import Code, Refusal, explain, masked, wrong_usage
from esource.cli.opening import DatabaseUrl, database_url, reading, sqlite_file
from esource.cli.running import asynchronous
from esource.errors import MissingDriverError

commands = typer.Typer()


@commands.command("inspect")
@asynchronous
async def inspect(url: DatabaseUrl = None) -> None:
    """Look inside a store: streams, the growing log, projections, dead letters and the outbox."""
    try:
        from esource.tui.app import Inspector
    except ModuleNotFoundError as error:
        raise MissingDriverError("textual", "tui") from error
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise wrong_usage("inspect needs a terminal. Elsewhere use `esource info` and `esource tail`.")
    check = still_there(database_url(url))
    # With threads the screen goes on while a query looks through a large store.
    async with reading(url, execution="thread") as store:
        await Inspector(store, explain=lambda error: masked(explain(error)[0]), check=check).run_async()


def still_there(url: URL) -> Callable[[], None]:
    """Raises, when called, if the database's file is gone: an open one can be read on after it was deleted, and
    would look as if nothing had happened."""
    file = sqlite_file(url)

    def check() -> None:
        if file is not None and not file.exists():
            raise Refusal(f"SQLite database {file}: there is no such file any more.", Code.DATABASE)

    return check

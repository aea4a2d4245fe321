"""The app: its groups of commands, and the options of ``esource`` itself."""

from __future__ import annotations

from typing import Annotated

import typer

import esource
from esource.cli import followers, keeping, looking, moving, schema
from esource.cli.errors import Commands

app = typer.Typer(
    name="esource",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(schema.commands)
app.add_typer(looking.commands)
app.add_typer(moving.commands)
app.add_typer(keeping.commands)
app.add_typer(followers.projections, name="projections")
app.add_typer(followers.dlq, name="dlq")
app.add_typer(followers.outbox, name="outbox")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"esource {esource.__version__}")
        raise typer.Exit


@app.callback(
    epilog="Exit codes: 0 done. 1 a check found something, or a handler or publisher failed. 2 wrong usage. "
    "3 the database refused or cannot be reached. 4 a precondition is not met: another schema, no such stream, "
    "event or checkpoint. 70 a bug, here or in the application's code. 130 interrupted."
)
def _esource(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end."),
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the code an error came from.")
    ] = False,
) -> None:
    """Look at an event store and keep it in order: SQLite files and PostgreSQL databases.

    Say which database with --url, after the command, or with the environment variable ESOURCE_URL:
    sqlite:///events.db, a SQLite file's name, or postgresql://user@host/database.
    """

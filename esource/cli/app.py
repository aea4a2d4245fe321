"""The app: its groups of commands, and the options of ``esource`` itself."""

from __future__ import annotations

from typing import Annotated

import typer

import esource
from esource.cli import (
    dead_letters,
    inspecting,
    keeping,
    logs,
    looking,
    mending,
    moving,
    outbox,
    projections,
    schema,
    schemas,
    serving,
)
from esource.cli.errors import Commands

app = typer.Typer(
    name="esource",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PANELS = {
    "The schema": (
        "init",
        "upgrade",
        "downgrade",
        "current",
        "history",
        "check",
        "sql",
        "adopt",
        "append-lock",
    ),
    "Looking": ("info", "inspect", "streams", "show", "event", "tail", "doctor", "verify"),
    "Tags": ("tag",),
    "Moving": ("copy", "cut-over", "reopen", "verify-copy"),
    "Files": ("backup", "export", "import"),
    "Closing and archiving": ("close", "archive", "restore"),
    "Followers of the log": ("alive",),
}
"""The commands under the headings of docs/cli.md."""

app.add_typer(schema.commands)
app.add_typer(looking.commands)
app.add_typer(inspecting.commands)
app.add_typer(moving.commands)
app.add_typer(keeping.commands)
app.add_typer(mending.commands)
app.add_typer(serving.commands)
app.add_typer(schemas.commands, name="schemas", rich_help_panel="The schema")
app.add_typer(logs.commands, name="logs", rich_help_panel="Many logs")
app.add_typer(projections.commands, name="projections", rich_help_panel="Followers of the log")
app.add_typer(dead_letters.commands, name="dlq", rich_help_panel="Followers of the log")
app.add_typer(outbox.commands, name="outbox", rich_help_panel="Followers of the log")

for _commands in (schema, looking, inspecting, moving, keeping, mending, serving):
    for _command in _commands.commands.registered_commands:
        _command.rich_help_panel = next(panel for panel, names in PANELS.items() if _command.name in names)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"esource {esource.__version__}")
        raise typer.Exit


@app.callback(
    epilog="Exit codes: 0 done. 1 a check found something, or a handler or publisher failed. 2 wrong usage, or a "
    "file to be written that is there already. 3 the database refused or cannot be reached. 4 what is there does "
    "not allow it: another schema, a target or a file to be read that holds something else, a closed stream, a "
    "store that has moved, no such stream or event, an event that cannot be read. 70 a bug, here or in the "
    "application's code. 74 the output cannot be written. 130 interrupted."
)
def _esource(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the code an error came from.")
    ] = False,
) -> None:
    """Look at an event store and keep it in order: SQLite files and PostgreSQL databases.

    Say which database with --url, after the command, or with the environment variable ESOURCE_URL:
    sqlite:///events.db, a SQLite file's name, or postgresql://user@host/database. ?schema=NAME at the end of a
    PostgreSQL URL names the schema of a log, if the database has several.
    """

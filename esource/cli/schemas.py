"""Several logs in one PostgreSQL database: ``schemas list``, ``schemas create`` and ``schemas drop``."""

from __future__ import annotations

from typing import Annotated

import typer

from esource.cli.asking import Yes, confirm
from esource.cli.errors import Refusal
from esource.cli.opening import DatabaseUrl, database_url, reading, writing
from esource.cli.output import Output
from esource.cli.running import asynchronous, shows
from esource.cli.schema import make_tables
from esource.dialect.urls import in_schema
from esource.errors import InvalidOptionError
from esource.schema.schemas import LogSchema, drop_schema, log_schemas

commands = typer.Typer(
    help="Several logs in one PostgreSQL database, each in a schema of its own: list, create and drop them.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schema, as in ?schema=NAME of a URL.")]


def _say_schemas(found: list[LogSchema], output: Output) -> None:
    output.table(
        ["name", "schema", "global position", "bytes"],
        [(log.name, log.version, log.position, log.bytes) for log in found],
        empty="no logs",
    )


@commands.command("list")
@shows(_say_schemas)
async def list_schemas(url: DatabaseUrl = None) -> list[LogSchema]:
    """List the logs of a PostgreSQL database: their schemas, revisions, last positions and sizes."""
    async with reading(url, any_schema=True) as store:
        return await log_schemas(store)


@commands.command("create")
@asynchronous
async def create(name: Name, url: DatabaseUrl = None) -> None:
    """Create a schema with the tables of a log. Does the same as `esource init` with ?schema=NAME in the URL.

    You may repeat it: a log with this schema does not change.
    """
    there = in_schema(database_url(url), name).render_as_string(hide_password=False)
    await make_tables(there)


@commands.command("drop")
@asynchronous
async def drop(
    name: Name,
    url: DatabaseUrl = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="Also if it holds events, or objects of the application.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Drop a schema with its log, in one transaction. Refused while it holds events, or objects that are not esource's."""
    async with writing(url, any_schema=True) as store:
        what = "with everything in it" if everything else "with its empty log"
        confirm(f"drop the schema {name!r} {what} from {store.name}", yes=yes)
        try:
            await drop_schema(store, name, everything=everything)
        except InvalidOptionError as error:
            raise Refusal(str(error)) from error
        Output().say(f"The schema {name!r} was dropped.")

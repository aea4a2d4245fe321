"""Creating the tables, upgrading them, and looking at what they are."""

from __future__ import annotations

from typing import Annotated

import typer

from esource import schema
from esource.cli.asking import Yes, confirm
from esource.cli.errors import Code, Refusal
from esource.cli.opening import DatabaseUrl, asynchronous, database_url, reading, writing
from esource.cli.output import AsJson, Output
from esource.dialect.errors import without_password
from esource.errors import InvalidOptionError, SchemaMissingError, SchemaOutdatedError, SchemaTooNewError
from esource.schema.reports import BASE, differences, history, known_revision, offline_script

commands = typer.Typer(help="Create and upgrade the tables; see what they are.", no_args_is_help=True)


@commands.command("init")
@asynchronous
async def init(url: DatabaseUrl = None) -> None:
    """Create the tables in an empty database; a SQLite file and its folder are made.

    May be repeated: a database that is at this version stays as it is.
    """
    async with writing(url, any_schema=True, create=True) as store:
        database = store.__esource_database__
        found = await schema.current(database)
        if found is not None and found not in schema.REVISIONS:
            raise SchemaTooNewError(database.name, found, schema.HEAD)
        if found not in (None, schema.HEAD):
            raise SchemaOutdatedError(database.name, found, schema.HEAD)
        await store.initialize()
        done = f"is at schema {schema.HEAD} already" if found else f"was created, at schema {schema.HEAD}"
        Output().say(f"{database.name} {done}.")


@commands.command("upgrade")
@asynchronous
async def upgrade(
    revision: Annotated[str, typer.Argument(metavar="[REV]", help="Up to this revision.")] = "head",
    url: DatabaseUrl = None,
) -> None:
    """Bring an older database to the newest schema, in one transaction. Make a backup first."""
    wanted = known_revision(revision)
    async with writing(url, any_schema=True) as store:
        database = store.__esource_database__
        found = await schema.current(database)
        if found is None:
            raise SchemaMissingError(database.name)
        if found in schema.REVISIONS and wanted < found:
            raise Refusal(f"{database.name} is at schema {found}: use `esource downgrade {wanted}`.")
        await schema.upgrade(database, wanted)
        done = f"is at schema {found} already" if found == wanted else f"went from {found} to {wanted}"
        Output().say(f"{database.name} {done}.")


@commands.command("downgrade")
@asynchronous
async def downgrade(
    revision: Annotated[str, typer.Argument(metavar="REV", help="Back to this revision; base: drop all.")],
    url: DatabaseUrl = None,
    yes: Yes = False,
) -> None:
    """Take a database back to an older schema, in one transaction. "base" drops all tables with their events."""
    wanted = known_revision(revision)
    async with writing(url, any_schema=True) as store:
        database = store.__esource_database__
        found = await schema.current(database)
        if found is None:
            raise SchemaMissingError(database.name)
        if wanted != BASE and found in schema.REVISIONS and wanted >= found:
            raise Refusal(f"{database.name} is at schema {found}: there is no way down to {wanted}.")
        what = "drop all tables with their events in" if wanted == BASE else f"take back to schema {wanted}:"
        confirm(f"{what} {database.name}", yes=yes)
        await schema.downgrade(database, wanted)
        gone = "has no esource tables any more" if wanted == BASE else f"went from {found} to {wanted}"
        Output().say(f"{database.name} {gone}.")


@commands.command("current")
@asynchronous
async def current(url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Say which schema a database has."""
    async with reading(url, any_schema=True) as store:
        database = store.__esource_database__
        found = await schema.current(database)
        if found is None:
            raise SchemaMissingError(database.name)
    out = Output(as_json=as_json)
    if as_json:
        out.document({"database": database.name, "schema": found, "head": schema.HEAD})
    elif found == schema.HEAD:
        out.say(f"{found}, the newest")
    elif found in schema.REVISIONS:
        out.say(f"{found}; the newest is {schema.HEAD}: `esource upgrade`")
    else:
        out.say(f"{found}, which this esource (schema {schema.HEAD}) does not know")


@commands.command("history")
def show_history(as_json: AsJson = False) -> None:
    """List every schema that this esource knows. Needs no database."""
    out = Output(as_json=as_json)
    revisions = history()
    if as_json:
        out.document(revisions)
        return
    out.table(
        ["revision", "what it does"],
        [(f"{found.id} (newest)" if found.is_head else found.id, found.summary) for found in revisions],
    )


@commands.command("check")
@asynchronous
async def check(url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Compare the tables with what this esource expects of them. Exit code 1 if they differ."""
    async with reading(url) as store:
        found = await differences(store)
        name = store.__esource_database__.name
    out = Output(as_json=as_json)
    if as_json:
        out.document(found)
    elif found:
        for difference in found:
            out.say(str(difference))
            if difference.remedy:
                out.say(f"    mend it with: {difference.remedy};")
    else:
        out.say(f"{name}: the tables are as they should be.")
    if found:
        raise typer.Exit(Code.FOUND)


@commands.command("sql")
def sql(
    from_revision: Annotated[str, typer.Option("--from", metavar="REV", help="From this revision.")] = BASE,
    to_revision: Annotated[str, typer.Option("--to", metavar="REV", help="To this revision.")] = "head",
    url: DatabaseUrl = None,
) -> None:
    """Print the SQL that leads from one revision to another, for somebody else to run.

    Connects to nothing: the URL only says which kind of database, sqlite:// or postgresql://.
    """
    parsed = database_url(url)
    typer.echo(offline_script(without_password(parsed), from_revision, to_revision), nl=False)


@commands.command("adopt")
@asynchronous
async def adopt(url: DatabaseUrl = None) -> None:
    """Take over a database that eventsource-py 0.4 or 0.5 wrote, with its data, in one transaction.

    Make a backup first.
    """
    async with writing(url, any_schema=True) as store:
        database = store.__esource_database__
        try:
            await schema.adopt(database)
        except SchemaMissingError:
            raise Refusal(f"{database.name} is empty: nothing to adopt. Use `esource init`.") from None
        except InvalidOptionError as error:
            raise Refusal(str(error)) from error
        Output().say(f"{database.name} was taken over, and is at schema {schema.HEAD}.")

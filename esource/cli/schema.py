"""Creating the tables, upgrading them, and looking at what they are."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, NamedTuple

import typer

from esource import schema
from esource.cli.asking import Yes, confirm
from esource.cli.errors import Refusal
from esource.cli.opening import DatabaseUrl, database_url, reading, writing
from esource.cli.output import Output
from esource.cli.running import asynchronous, shows
from esource.dialect.errors import without_password
from esource.errors import InvalidOptionError, SchemaMissingError, SchemaOutdatedError, SchemaTooNewError
from esource.schema.reports import (
    BASE,
    Difference,
    Revision,
    differences,
    history,
    known_revision,
    offline_script,
)

commands = typer.Typer(help="Create, upgrade and compare the tables.", no_args_is_help=True)


@commands.command("init")
@asynchronous
async def init(url: DatabaseUrl = None) -> None:
    """Create the tables in an empty database. Makes a SQLite file and its folder.

    You may repeat it: a database with this schema does not change.
    """
    await make_tables(url)


async def make_tables(url: str | None) -> None:
    """Create the tables where a URL leads to, and say so."""
    async with writing(url, any_schema=True, create=True) as store:
        found = await schema.current(store)
        if found is not None and found not in schema.REVISIONS:
            raise SchemaTooNewError(store.name, found, schema.HEAD)
        if found not in (None, schema.HEAD):
            raise SchemaOutdatedError(store.name, found, schema.HEAD)
        async with schema.opened_database(store) as database:
            await schema.initialize(database)  # as a store of any option would have it
        done = f"is at schema {schema.HEAD} already" if found else f"was created, at schema {schema.HEAD}"
        Output().say(f"{store.name} {done}.")


@commands.command("upgrade")
@asynchronous
async def upgrade(
    revision: Annotated[str, typer.Argument(metavar="[REV]", help="Up to this revision.")] = "head",
    url: DatabaseUrl = None,
) -> None:
    """Bring a database to the newest schema, in one transaction. Make a backup first.

    Does the same as `alembic upgrade head`. An empty database gets the tables; makes a SQLite file and its folder.
    """
    wanted = known_revision(revision)
    async with writing(url, any_schema=True, create=True) as store:
        found = await schema.current(store)
        if found in schema.REVISIONS and wanted < found:
            raise Refusal(f"{store.name} is at schema {found}: use `esource downgrade {wanted}`.")
        await schema.upgrade(store, wanted)
        if found is None:
            done = f"was created, at schema {wanted}"
        else:
            done = f"is at schema {found} already" if found == wanted else f"went from {found} to {wanted}"
        Output().say(f"{store.name} {done}.")


@commands.command("downgrade")
@asynchronous
async def downgrade(
    revision: Annotated[
        str, typer.Argument(metavar="REV", help="Go back to this revision; base drops all tables.")
    ],
    url: DatabaseUrl = None,
    yes: Yes = False,
) -> None:
    """Take a database back to an older schema, in one transaction. "base" drops all tables with their events."""
    wanted = known_revision(revision)
    async with writing(url, any_schema=True) as store:
        found = await schema.current(store)
        if found is None:
            raise SchemaMissingError(store.name)
        if wanted != BASE and found in schema.REVISIONS and wanted >= found:
            raise Refusal(f"{store.name} is at schema {found}: there is no way down to {wanted}.")
        what = "drop all tables with their events in" if wanted == BASE else f"take back to schema {wanted}:"
        confirm(f"{what} {store.name}", yes=yes)
        await schema.downgrade(store, wanted)
        gone = "has no esource tables any more" if wanted == BASE else f"went from {found} to {wanted}"
        Output().say(f"{store.name} {gone}.")


class _AppendLock(str, Enum):
    ROW = "row"
    ADVISORY = "advisory"


@commands.command("append-lock")
@asynchronous
async def append_lock(
    lock: Annotated[
        _AppendLock,
        typer.Argument(
            help="row: positions come from a row that appends lock. advisory: from the sequence, as by default."
        ),
    ],
    url: DatabaseUrl = None,
) -> None:
    """Change how a PostgreSQL log draws its positions, in one transaction. They go on where they have come to.

    Stores must be opened with the same append_lock: those with the other one are refused from then on. You may repeat it: a
    row that is lost, or behind the log, is mended.
    """
    async with writing(url) as store:
        change = schema.create_append_lock if lock is _AppendLock.ROW else schema.drop_append_lock
        try:
            await change(store)
        except InvalidOptionError as error:
            raise Refusal(str(error)) from error
        Output().say(f"{store.name} has append_lock={lock.value!r}. Open its stores with it.")


class _Current(NamedTuple):
    database: str
    schema: str
    head: str


def _say_current(found: _Current, output: Output) -> None:
    if found.schema == found.head:
        output.say(f"{found.schema}, the newest")
    elif found.schema in schema.REVISIONS:
        output.say(f"{found.schema}; the newest is {found.head}: `esource upgrade`")
    else:
        output.say(f"{found.schema}, which this esource (schema {found.head}) does not know")


@commands.command("current")
@shows(_say_current)
async def current(url: DatabaseUrl = None) -> _Current:
    """Say which schema a database has."""
    async with reading(url, any_schema=True) as store:
        found = await schema.current(store)
        if found is None:
            raise SchemaMissingError(store.name)
        return _Current(store.name, found, schema.HEAD)


def _say_history(revisions: list[Revision], output: Output) -> None:
    output.table(
        ["revision", "what it does"],
        [(f"{found.id} (newest)" if found.is_head else found.id, found.summary) for found in revisions],
    )


@commands.command("history")
@shows(_say_history)
async def show_history() -> list[Revision]:
    """List every schema that this version knows. Needs no database."""
    return history()


class _Checked(NamedTuple):
    database: str
    differences: list[Difference]


def _say_differences(found: _Checked, output: Output) -> None:
    for difference in found.differences:
        output.say(str(difference))
        if difference.remedy:
            output.say(f"    mend it with: {difference.remedy};")
    if not found.differences:
        output.say(f"{found.database}: the tables are as they should be.")


@commands.command("check")
@shows(
    _say_differences,
    document=lambda found: found.differences,
    found=lambda found: bool(found.differences),
)
async def check(url: DatabaseUrl = None) -> _Checked:
    """Compare the tables with those that this version expects. Exit code 1 if they differ."""
    async with reading(url, any_schema=True) as store:
        await schema.require_head(store, tables=False)  # those that are gone are among the differences
        return _Checked(store.name, await differences(store))


@commands.command("sql")
def sql(
    from_revision: Annotated[str, typer.Option("--from", metavar="REV", help="From this revision.")] = BASE,
    to_revision: Annotated[str, typer.Option("--to", metavar="REV", help="To this revision.")] = "head",
    url: DatabaseUrl = None,
) -> None:
    """Print the SQL that leads from one revision to another, to be run by another person.

    Connects to no database: the URL only says which kind it is, sqlite:// or postgresql://.
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
        try:
            await schema.adopt(store)
        except SchemaMissingError:
            raise Refusal(f"{store.name} is empty: nothing to adopt. Use `esource init`.") from None
        except InvalidOptionError as error:
            raise Refusal(str(error)) from error
        Output().say(f"{store.name} was taken over, and is at schema {schema.HEAD}.")

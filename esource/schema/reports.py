"""What can be said of the schema without changing anything: its history, its drift, its SQL."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy.schema import CreateIndex, CreateTable, DropIndex

from esource.database.sources import Source, opened_database
from esource.dialect.urls import backend_for_url, parse_url
from esource.errors import InvalidOptionError
from esource.schema.alembic import first_of_script
from esource.schema.revisions import (
    HEAD,
    REVISIONS,
    alembic_config,
    comparison_options,
    script_id,
    steps,
    version_of,
)
from esource.tables.model import metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection, Dialect

BASE = "base"
"""Alembic's word for a database without any of our tables."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One schema that this library knows."""

    id: str
    summary: str
    is_head: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a database is not what the table model says."""

    kind: Literal["missing index", "extra index", "missing table", "missing column", "other"]
    table: str
    name: str
    """The name of what is missing, extra or different."""
    remedy: str | None = None
    """The SQL that mends it, where one statement does."""

    def __str__(self) -> str:
        return (
            f"{self.table}: {self.kind} {self.name}" if self.kind != "other" else f"{self.table}: {self.name}"
        )


def history() -> list[Revision]:
    """Every schema that this library knows, oldest first. No I/O but the scripts."""
    from alembic.script import ScriptDirectory

    found = ScriptDirectory.from_config(alembic_config())
    return [
        Revision(name, (found.get_revision(script_id(name)).doc or "").strip(), name == HEAD)
        for name in REVISIONS
    ]


async def differences(database: Source) -> list[Difference]:
    """Where the tables of a database (a store, an engine, a URL) are not those of the newest schema.

    Only our tables are looked at. An index that the application has added to them is a difference, too.
    """
    async with opened_database(database) as opened:
        return await opened.inspect_connection(_compare)


def _compare(connection: Connection) -> list[Difference]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(connection, opts=comparison_options())
    return [
        _difference(change, connection.dialect)
        for found in compare_metadata(context, metadata)
        for change in (found if isinstance(found, list) else [found])
    ]


def _difference(change: tuple[Any, ...], dialect: Dialect) -> Difference:
    what, *details = change
    if what in ("add_index", "remove_index"):
        [index] = details
        construct = CreateIndex(index) if what == "add_index" else DropIndex(index)
        kind: Any = "missing index" if what == "add_index" else "extra index"
        return Difference(kind, index.table.name, str(index.name), f"{construct.compile(dialect=dialect)}")
    if what == "add_table":
        [table] = details
        statement = str(CreateTable(metadata.tables[table.name]).compile(dialect=dialect)).strip()
        return Difference("missing table", table.name, table.name, statement)
    if what == "add_column":
        return Difference("missing column", str(details[1]), details[2].name)
    table = next((str(part) for part in details if isinstance(part, str)), "")
    if hasattr(details[0], "table") and details[0].table is not None:
        table = details[0].table.name
    named = [str(getattr(part, "name", part)) for part in details if not isinstance(part, dict)]
    words = " ".join([what.replace("_", " "), *(part for part in named if part not in (table, "None"))])
    return Difference("other", table, words)


def offline_script(url: str, from_revision: str = BASE, to_revision: str = "head") -> str:
    """The SQL between two revisions, for the kind of database, and the schema, that a URL names; nothing is opened.

    From an older to a newer one it upgrades, the other way round it downgrades.

    Raises:
        InvalidOptionError: no such revision, or twice the same.
    """
    parsed = parse_url(url)
    backend = backend_for_url(parsed)
    places = [BASE, *REVISIONS]
    first, last = known_revision(from_revision), known_revision(to_revision)
    if first == last:
        raise InvalidOptionError(f"from {from_revision} to {to_revision} there is nothing to do")
    from alembic.runtime.migration import MigrationContext

    from esource.schema.operations import running

    is_older = places.index(first) < places.index(last)
    printed = StringIO()
    migration = MigrationContext.configure(
        dialect_name=backend.name,
        opts={
            **comparison_options(),
            "as_sql": True,
            "literal_binds": True,
            "starting_rev": script_id(first),
            "output_buffer": printed,
            "fn": steps("upgrade" if is_older else "downgrade", last),
        },
    )
    with migration.begin_transaction(), running(migration):
        for statement in first_of_script(parsed, first):
            migration.impl.static_output(f"{statement};")  # as it is: a name may have a % or a colon
        migration.run_migrations()
    return printed.getvalue()


def known_revision(revision: str) -> str:
    """The revision that is meant: one of `REVISIONS`, or `BASE`.

    Raises:
        InvalidOptionError: there is no such revision.
    """
    if revision == "head":
        return HEAD
    known = (BASE, *REVISIONS)
    if version_of(revision) not in known:
        raise InvalidOptionError(f"there is no revision {revision!r}: use {', '.join(known)} or head")
    return version_of(revision)

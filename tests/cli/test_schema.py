"""The commands that create and upgrade the tables, and what they say of another schema than theirs."""

from __future__ import annotations

import json
import shutil

import pytest
from support.commands import esource
from support.schemas import execute

from esource import schema


def on(url):
    """Runs commands on a database; the exit code, and what was said on both channels."""

    async def run(command, *arguments):
        done = await esource(command, *arguments, "--url", url)
        return done.exit_code, " ".join((done.stdout + done.stderr).split())

    return run


@pytest.fixture
def file(sqlite_template, tmp_path):
    """The URL of a SQLite file at the newest schema: which sentence is said does not depend on the database."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'events.db')}"


@pytest.mark.slow
async def test_a_database_goes_up_and_down_and_says_where_it_is(empty_database_url):
    run = on(empty_database_url)
    for command, arguments, code, said in (
        ("init", (), 0, f"was created, at schema {schema.HEAD}"),
        ("init", (), 0, f"is at schema {schema.HEAD} already"),
        ("upgrade", (), 0, f"is at schema {schema.HEAD} already"),
        ("current", (), 0, f"{schema.HEAD}, the newest"),
        ("check", (), 0, "the tables are as they should be"),
        ("upgrade", ("0001",), 4, "use `esource downgrade 0001`"),
        ("downgrade", ("head", "--yes"), 4, "no way down"),
        ("downgrade", ("0001",), 2, "--yes"),
        ("downgrade", ("0001", "--yes"), 0, f"went from {schema.HEAD} to 0001"),
        ("current", (), 0, f"0001; the newest is {schema.HEAD}: `esource upgrade`"),
        ("init", (), 4, "is at schema 0001, this esource works with"),
        ("check", (), 4, "then run `esource upgrade`"),
        ("upgrade", (), 0, f"went from 0001 to {schema.HEAD}"),
        ("downgrade", ("base", "--yes"), 0, "has no esource tables any more"),
        ("upgrade", ("0002",), 0, "was created, at schema 0002"),
        ("downgrade", ("base", "--yes"), 0, "has no esource tables any more"),
        ("upgrade", (), 0, f"was created, at schema {schema.HEAD}"),
        ("upgrade", ("nowhere",), 2, "there is no revision 'nowhere'"),
    ):
        found = await run(command, *arguments)
        assert (found[0], said in found[1]) == (code, True), (command, arguments, found)


async def test_without_tables_there_is_nothing_to_look_at_or_to_change(file):
    run = on(file)
    await run("downgrade", "base", "--yes")
    for command, *arguments in (["current"], ["downgrade", "0001", "--yes"], ["check"]):
        code, said = await run(command, *arguments)
        assert (code, "Create them with `esource init`" in said) == (4, True), said
    code, said = await run("adopt")
    assert (code, "nothing to adopt. Use `esource init`" in said) == (4, True), said


async def test_a_schema_of_a_later_release_is_named_and_left_alone(file):
    run = on(file)
    await execute(file, f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
    code, said = await run("current")
    assert (code, said) == (0, f"9999, which this esource (schema {schema.HEAD}) does not know")
    code, said = await run("current", "--json")
    assert (code, json.loads(said)["schema"], json.loads(said)["head"]) == (0, "9999", schema.HEAD)
    for command, *arguments in (["init"], ["upgrade"], ["downgrade", "0001", "--yes"], ["check"]):
        code, said = await run(command, *arguments)
        assert (code, "schema 9999" in said) == (4, True), said


async def test_tables_without_a_version_are_taken_over_by_adopting_them(file):
    run = on(file)
    code, said = await run("adopt")
    assert (code, f"is at schema {schema.HEAD} already" in said) == (4, True)
    await run("downgrade", "0001", "--yes")
    await execute(file, f"DROP TABLE {schema.VERSION_TABLE}")
    code, said = await run("current")
    assert (code, "take it over with `esource adopt`" in said) == (4, True)
    code, said = await run("adopt")
    assert (code, f"was taken over, and is at schema {schema.HEAD}" in said) == (0, True)
    assert (await run("check"))[0] == 0


async def test_a_table_a_column_and_an_index_that_are_not_as_they_should_be_are_found(shared_database_url):
    run = on(shared_database_url)
    await execute(
        shared_database_url,
        "DROP TABLE snapshots",
        "ALTER TABLE event_outbox DROP COLUMN last_error",
        "DROP INDEX idx_events_type_tenant_timestamp",
        "CREATE INDEX somebodys ON events (actor_id)",
    )
    code, said = await run("check")
    assert code == 1
    for part in (
        "snapshots: missing table snapshots",
        "event_outbox: missing column last_error",
        "events: missing index idx_events_type_tenant_timestamp mend it with: CREATE INDEX",
        "events: extra index somebodys mend it with: DROP INDEX somebodys;",
    ):
        assert part in said
    code, said = await run("check", "--json")
    assert code == 1
    assert {row["kind"] for row in json.loads(said)} == {
        "missing table",
        "missing column",
        "missing index",
        "extra index",
    }


async def test_a_column_of_another_kind_is_found_on_postgresql(postgres_url):
    """PostgreSQL only: SQLite cannot change a column."""
    await execute(
        postgres_url,
        "ALTER TABLE events ALTER COLUMN actor_id SET NOT NULL",
        "ALTER TABLE events ADD CONSTRAINT theirs UNIQUE (created_at)",
    )
    done = await esource("check", "--url", postgres_url)
    assert done.exit_code == 1
    assert "events: modify nullable actor_id False True\n" in done.stdout
    assert "events: remove constraint theirs\n" in done.stdout


async def test_the_schemas_are_listed_and_their_sql_is_printed_without_a_database():
    listed = json.loads((await esource("history", "--json")).stdout)
    assert [row["schema"] for row in listed] == list(schema.REVISIONS)
    assert f"{schema.HEAD} (newest)" in (await esource("history")).stdout
    up = await esource("sql", "--url", "sqlite://")
    assert "CREATE TABLE events" in up.stdout
    down = await esource("sql", "--url", "postgresql://", "--from", "head", "--to", "base")
    assert "DROP TABLE events" in down.stdout
    done = await esource("sql", "--url", "sqlite://", "--from", "0002", "--to", "0002")
    assert (done.exit_code, "there is nothing to do" in done.stderr) == (2, True)

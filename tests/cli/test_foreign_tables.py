"""A database with a table of the same name as one of ours, which another program made."""

from __future__ import annotations

import shutil

import pytest
from support.commands import esource
from support.schemas import CHECKOUT, described, execute

from esource import open_store, schema
from esource.errors import SchemaUnmanagedError

COMMANDS = ("init", "upgrade", "downgrade 0001 --yes", "info", "check", "doctor", "verify", "current")


@pytest.fixture
async def foreign_url(empty_database_url):
    await execute(empty_database_url, "CREATE TABLE events (id INTEGER, version INTEGER)")
    return empty_database_url


async def test_every_command_says_that_the_table_is_another_programs(foreign_url, tmp_path):
    before = await described(foreign_url)
    typed = [[*command.split(), "--url", foreign_url] for command in COMMANDS]
    for command in [*typed, ["copy", foreign_url, tmp_path / "target.db"]]:
        done = await esource(*command)
        assert (done.exit_code, done.stdout) == (4, ""), command
        assert "a table `events` that is not esource's: it lacks the columns global_position," in done.stderr
        assert "Use another database" in done.stderr
        assert "esource upgrade" not in done.stderr
        assert "esource adopt" not in done.stderr
    assert await described(foreign_url) == before


async def test_a_program_is_told_which_columns_are_not_there(foreign_url):
    async with open_store(foreign_url, enable_tracing=False) as store:
        for refused in (store.initialize(), schema.upgrade(store), schema.current(store)):
            with pytest.raises(SchemaUnmanagedError, match="not esource's") as caught:
                await refused
            assert "event_id" in caught.value.lacking
            assert "version" not in caught.value.lacking


async def test_a_file_of_eventsource_py_is_still_to_be_adopted(tmp_path):
    """SQLite only: their PostgreSQL tables are looked at by tests/schema/test_adoption.py."""
    file = tmp_path / "theirs.db"
    shutil.copy(CHECKOUT / "tests" / "data" / "eventsource-py-0.5.0.db", file)
    for command in ("info", "upgrade", "current"):
        done = await esource(command, "--url", file)
        assert done.exit_code == 4
        assert "take it over with `esource adopt`" in done.stderr

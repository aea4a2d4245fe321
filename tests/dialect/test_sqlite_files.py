"""Only SQLite has files: opening one that others open or that may not be written, and what is wrong with one."""

from __future__ import annotations

import os
import sqlite3

import pytest
from support.orders import placed

from esource import SQLiteEventStore
from esource.browsing.overview import examine, overview
from esource.database.sources import database_of
from esource.dialect.sqlite.engine import _set_up
from esource.dialect.sqlite.files import reading_uri


class Contended:
    """A connection to a fresh file that others are just opening: so often it is told that the file is locked."""

    def __init__(self, times, message="database is locked"):
        self.left, self.message = times, message

    async def executescript(self, script):
        self.left -= 1
        if self.left >= 0:
            raise sqlite3.OperationalError(self.message)


async def test_a_new_connection_sets_itself_up_when_the_others_are_done():
    """Which SQLite's own busy timeout does not see to, where the journal mode changes."""
    contended = Contended(2)
    await _set_up("PRAGMA journal_mode = WAL", 60_000, contended)
    assert contended.left == -1
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        await _set_up("PRAGMA journal_mode = WAL", 0, Contended(1000))
    broken = Contended(1000, "disk I/O error")
    with pytest.raises(sqlite3.OperationalError, match="disk"):
        await _set_up("PRAGMA journal_mode = WAL", 60_000, broken)
    assert broken.left == 999


async def test_a_file_that_may_not_be_written_is_read_as_it_is(tmp_path, monkeypatch):
    """Nobody else can be at work on it then. Root may write everything: it is only said that it may not."""
    async with SQLiteEventStore(tmp_path / "events.db") as store:
        await store.initialize()
    assert reading_uri(str(tmp_path / "events.db")).endswith("?mode=rw")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert reading_uri(str(tmp_path / "events.db")).endswith("?mode=ro&immutable=1")


async def test_what_is_slow_about_a_file_is_named_with_its_remedy(tmp_path, open_stores):
    store = await open_stores(f"sqlite:///{tmp_path / 'slow.db'}", wal_mode=False)
    event = placed(metadata={"big": "x" * 6_000_000})
    await store.append_events(event.aggregate_id, "Order", [event])
    await database_of(store).run_script(["DELETE FROM events"])
    said = {symptom.problem: symptom.remedy for symptom in await examine(store)}
    [remedy] = [remedy for problem, remedy in said.items() if "pages are empty" in problem]
    assert remedy.endswith("slow.db VACUUM")
    [remedy] = [remedy for problem, remedy in said.items() if problem.startswith("journal_mode is delete")]
    assert "wal_mode=True" in remedy
    assert [size.name for size in (await overview(store)).sizes] == ["database"]


async def test_a_store_in_memory_has_no_file_to_complain_of(open_stores):
    store = await open_stores("sqlite://")
    assert await examine(store) == []
    assert [size.name for size in (await overview(store)).sizes] == ["database"]

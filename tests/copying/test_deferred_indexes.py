"""While a long log is copied the target is without the indexes that only make queries quick; afterwards it has them,
whatever happened in between."""

from __future__ import annotations

import sqlite3
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from support.orders import placed
from support.pairs import Pair, fill
from support.schemas import execute, rows

from esource.copying import Progress, copy, log
from esource.errors import CopyRefusedError
from esource.schema import partitioning
from esource.schema import reports as schema_reports
from esource.tables import events


async def missing(url: str) -> set[str]:
    found = await schema_reports.differences(url)
    assert {difference.kind for difference in found} <= {"missing index"}
    return {difference.name for difference in found}


ALL = {str(index.name) for index in events.indexes}


@pytest.fixture
async def filled(pair: Pair, open_stores, monkeypatch) -> Pair:
    monkeypatch.setattr(log, "CHUNK_EVENTS", 5)
    monkeypatch.setattr(log, "FIRST_PAGE", 5)
    monkeypatch.setattr(log, "DEFERRED_FROM", 18)
    await fill(await open_stores(pair.source))
    return pair


class Killed(BaseException):
    pass


def killed(_: Progress) -> None:
    raise Killed


async def test_they_are_made_at_the_end_and_told_of(filled: Pair):
    told: list[Progress] = []
    result = await copy(*filled, verify=True, on_progress=told.append)
    assert result.verification.is_identical
    assert [(said.done, said.total) for said in told if said.step == "index"] == [(n, 4) for n in range(5)]
    assert await missing(filled.target) == set()


@pytest.mark.slow
async def test_the_copy_that_goes_on_makes_them_even_if_it_has_nothing_else_to_do(filled: Pair):
    with pytest.raises(Killed):
        await copy(*filled, on_progress=killed)
    assert await missing(filled.target) == ALL
    with pytest.raises(Killed):
        await copy(*filled, on_progress=lambda said: killed(said) if said.step == "index" else None)
    assert await missing(filled.target) == ALL
    result = await copy(*filled, verify=True)
    assert result.events == 0
    assert result.verification.is_identical
    assert await missing(filled.target) == set()


async def test_a_short_log_is_copied_with_them(filled: Pair, monkeypatch):
    monkeypatch.setattr(log, "DEFERRED_FROM", 19)
    with pytest.raises(Killed):
        await copy(*filled, on_progress=killed)
    assert await missing(filled.target) == set()


AGAIN = """
    INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, version, timestamp, payload, created_at)
    SELECT {event_id}, aggregate_id, aggregate_type, event_type, {version}, timestamp, payload, created_at
    FROM events WHERE global_position = 2
"""


@pytest.mark.parametrize(
    ("event_id", "version"), [("event_id", 100), (f"'{uuid4()}'", "version")], ids=["event id", "version"]
)
async def test_what_is_unique_stays_so_meanwhile(filled: Pair, event_id, version):
    with pytest.raises(Killed):
        await copy(*filled, on_progress=killed)
    assert await missing(filled.target) == ALL
    if filled.target.startswith("postgresql"):
        event_id = f"({event_id})::uuid"
    with pytest.raises((sqlite3.IntegrityError, asyncpg.UniqueViolationError)):
        await execute(filled.target, AGAIN.format(event_id=event_id, version=version))


async def test_who_was_first_in_the_target_gets_them_back(filled: Pair, open_stores, monkeypatch):
    target = await open_stores(filled.target)
    chunk = log.LogCopy._chunk
    stranger = placed()

    async def after_another(self, *arguments):
        if self.position == 0:
            await target.append_events(stranger.aggregate_id, "Order", [stranger])
        return await chunk(self, *arguments)

    monkeypatch.setattr(log.LogCopy, "_chunk", after_another)
    with pytest.raises(CopyRefusedError):
        await copy(*filled)
    assert await missing(filled.target) == set()


async def test_postgresql_keeps_them_where_the_role_does_not_own_the_table(
    postgres_url, sqlite_url, open_stores, monkeypatch
):
    monkeypatch.setattr(log, "DEFERRED_FROM", 1)
    await fill(await open_stores(sqlite_url))
    role = f"mover_{uuid4().hex[:8]}"
    await execute(
        postgres_url,
        f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}",
    )
    try:
        as_role = (
            make_url(postgres_url).set(username=role, password="x").render_as_string(hide_password=False)
        )
        with pytest.raises(Killed):
            await copy(sqlite_url, as_role, on_progress=killed)
        assert await missing(postgres_url) == set()
        # Nor does it fail on one that somebody else has dropped.
        await execute(postgres_url, "DROP INDEX idx_events_timestamp")
        assert (await copy(sqlite_url, as_role, verify=True)).verification.is_identical
        assert await missing(postgres_url) == {"idx_events_timestamp"}
    finally:
        await execute(postgres_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_postgresql_keeps_them_in_a_log_in_parts(postgres_url, sqlite_url, open_stores, monkeypatch):
    monkeypatch.setattr(log, "DEFERRED_FROM", 1)
    await fill(await open_stores(sqlite_url))
    await partitioning.partition(postgres_url)
    with pytest.raises(Killed):
        await copy(sqlite_url, postgres_url, on_progress=killed)
    indexes = await rows(postgres_url, "SELECT indexname FROM pg_indexes WHERE tablename = 'events'")
    assert {name for (name,) in indexes} >= ALL
    assert (await copy(sqlite_url, postgres_url, verify=True)).verification.is_identical

"""A condition is judged by the index of the tags: never by a scan, however many items it has and however hot a tag is."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import literal_column
from sqlalchemy.dialects.sqlite.aiosqlite import dialect
from support.schemas import execute, sqlite_path

from esource import AppendCondition, AppendConditionError, DomainEvent, Query, QueryItem, register_event
from esource.dialect.plan import Condition, Matched
from esource.dialect.sqlite.conditions import Judge
from esource.domain.queries import ITEM_TAGS, QUERY_ITEMS
from esource.log.streams import ReadOptions
from esource.tables.selecting import first_places
from esource.tables.statement import Statement

EVENTS = 10_000
HEAD = EVENTS - 50
"""Where a decision was read; more have come since than are looked at one by one."""

COLUMNS = "event_id, aggregate_id, aggregate_type, event_type, version, timestamp, payload, tags"
VALUES = """
    INSERT INTO events ({columns}) SELECT {event_id}, {aggregate_id}, 'Desk', 'Type' || (n % 20), 1,
    '2025-01-01T01:00:00.000000+00:00', '{{}}',
    CAST('["all", "half:' || (n % 2) || '", "one:' || n || '"]' AS {json}) FROM {numbers}"""
SQLITE = {
    "event_id": "printf('%08x-0000-4000-8000-000000000000', n)",
    "aggregate_id": "printf('%08x-0000-4000-8000-000000000001', n)",
    "json": "text",
    "numbers": f"(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {EVENTS}) SELECT n FROM c)",
}
POSTGRESQL = {
    "event_id": "CAST(lpad(to_hex(n), 8, '0') || '-0000-4000-8000-000000000000' AS uuid)",
    "aggregate_id": "CAST(lpad(to_hex(n), 8, '0') || '-0000-4000-8000-000000000001' AS uuid)",
    "json": "jsonb",
    "numbers": f"generate_series(1, {EVENTS}) AS n",
}


READ = """
    SELECT sum(coalesce(seq_scan, 0)), sum(coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables
    WHERE relname IN ('events', 'event_tags')"""
"""What the connection has done so far: scans of a whole table, and rows that an index led to."""


@register_event
class Judged(DomainEvent):
    pass


def items_of(count: int, *, has_rare: bool) -> tuple[tuple[frozenset[str], frozenset[str]], ...]:
    """Items of hot tags that nothing fits, each with types; with a rare tag among them as well."""
    hot = {"all", "half:0", "half:1"}
    return tuple(
        (frozenset({f"Type{n % 20}", "Absent"}), frozenset(hot | {f"one:{n + 1}"} if has_rare else hot))
        for n in range(count)
    )


EXCLUDED = (frozenset({"Type19"}), frozenset({"all", "half:1"}))
OF_A_TYPE = (frozenset({"Type19"}), frozenset[str]())

CASES = [(count, after) for count in (1, 5, 20) for after in (0, HEAD)]


class Explaining:
    """A cursor of sqlite3 that keeps the plans of what it runs."""

    def __init__(self, cursor):
        self.cursor = cursor
        self.plans = []

    def execute(self, text, arguments=()):
        self.plans += [row[3] for row in self.cursor.execute(f"EXPLAIN QUERY PLAN {text}", arguments)]
        return self.cursor.execute(text, arguments)


async def test_on_sqlite_each_item_is_looked_up_in_the_index(sqlite_url):
    await execute(
        sqlite_url,
        VALUES.format(columns=COLUMNS, **SQLITE),
        "INSERT INTO event_tags (tag, global_position) SELECT value, global_position FROM events, json_each(tags)",
        "ANALYZE",
    )
    with closing(sqlite3.connect(sqlite_path(sqlite_url))) as connection:
        explaining = Explaining(connection.cursor())
        judge = Judge(explaining, dialect())
        for count, after in CASES:
            items = items_of(count, has_rare=after == 0)
            assert judge.refusal(Condition(after, items, (), None)) is None
            for excluded in (EXCLUDED, OF_A_TYPE):
                for near in (HEAD, EVENTS - 5):  # past the latter few have come
                    found = judge.refusal(Condition(near, (*items, excluded), (), None))
                    assert found == Matched(EVENTS - 41 if near == HEAD else EVENTS - 1, "Type19")
    scanned = {plan.split()[1] for plan in explaining.plans if plan.startswith("SCAN")}
    # What is scanned is small: what the condition brings, what was counted, and the tags that are being filled.
    assert [name for name in scanned if name.startswith(("event", "start_", "of_", "own_"))] == []
    assert any(plan.startswith("SEARCH start_0 USING PRIMARY KEY") for plan in explaining.plans)


async def test_on_postgresql_each_item_is_looked_up_in_the_index(postgres_url, open_stores):
    store = await open_stores(postgres_url)
    await execute(postgres_url, VALUES.format(columns=COLUMNS, **POSTGRESQL))
    # First of a young table, of which the planner knows nothing.
    for is_analysed, (count, after) in enumerate([CASES[-1], *CASES]):
        items = items_of(count, has_rare=after == 0)
        condition = AppendCondition(Query(*(QueryItem(types, tags) for types, tags in items)), after)
        async with store.transaction() as transaction:
            read = transaction.connection.exec_driver_sql
            before = (await read(READ)).one()  # also of transactions that are not reported yet
            for _ in range(8):  # after five times a plan may be kept that suits any values
                await transaction.append([Judged()], condition=condition)
            scans, rows = (now - then for now, then in zip((await read(READ)).one(), before, strict=True))
            assert scans == 0
            # What has come, and places up to a thousand: not all the places of a hot tag for each item.
            assert rows <= 8 * (70 + (5 if after == 0 else 200) * count)
        if not is_analysed:
            await execute(postgres_url, "VACUUM ANALYZE events, event_tags")


def largest(tags: int = ITEM_TAGS, items: int = QUERY_ITEMS, start: int = 0) -> Query:
    return Query(*(QueryItem([Judged], map(str, range(start + n, start + n + tags))) for n in range(items)))


async def test_the_statement_of_a_query_grows_with_its_items_and_not_with_their_tags(store):
    dialect = store.reader.database.backend.sqlalchemy_dialect

    def statement(tags: int, items: int) -> tuple[str, int]:
        wanted = store.reader.selection(ReadOptions(query=largest(tags, items)))
        text, parameters, *_ = Statement(first_places(wanted.shapes, literal_column("1"))).on(dialect)
        return text, len(parameters)

    # The time to plan one grows faster than its text: 100 items with 100 tags each took nine seconds.
    assert statement(2, 10) == statement(ITEM_TAGS, 10)
    (short, few), (long, many) = statement(ITEM_TAGS, 10), statement(ITEM_TAGS, 50)
    assert len(long) < 6 * len(short)
    assert many <= 5 * few


async def test_the_largest_query_is_answered_and_judged(store):
    query = largest()
    assert (await store.read_query(query)).events == []
    stored = await store.append([Judged()], tags=[str(n) for n in range(150)])
    assert len((await store.read_query(query)).events) == 1
    with pytest.raises(AppendConditionError, match=f"position {stored.global_position}"):
        await store.append([Judged()], condition=AppendCondition(query, 0))
    assert await store.append([Judged()], condition=AppendCondition(largest(start=100), 0))

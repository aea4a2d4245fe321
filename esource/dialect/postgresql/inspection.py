"""What PostgreSQL can tell of a database: its catalogue and its statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from esource.dialect.inspection import IndexUse, Inspection, Size, Symptom
from esource.dialect.postgresql.errors import set_counter
from esource.dialect.postgresql.positions import IS_FROM_ROW, REMEDY
from esource.errors import InvalidOptionError
from esource.tables.append_function import LOG_LOCK_CLASS
from esource.tables.names import LOCK_TABLE, OUR_TABLES, VERSION_TABLE, is_ours

_OURS = sorted(OUR_TABLES)

_SIZES = """
    SELECT current_database(), pg_database_size(current_database())
    UNION ALL
    SELECT relname::text, pg_total_relation_size(relid) FROM pg_stat_user_tables
    WHERE relname = ANY($1) AND schemaname = current_schema()
"""
_OTHER_TABLES = f"""
    SELECT c.relname::text, n.nspname::text, n.nspname = current_schema()
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
        -- What lies beside another log belongs to that one.
        AND (n.nspname = current_schema() OR NOT EXISTS (
            SELECT FROM pg_class v WHERE v.relnamespace = n.oid AND v.relname = '{VERSION_TABLE}'))
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    ORDER BY n.nspname <> current_schema(), n.nspname, c.relname
"""  # noqa: S608 - our own name
_INDEXES = """
    SELECT relname::text, indexrelname::text, pg_relation_size(indexrelid), idx_scan FROM pg_stat_user_indexes
    WHERE relname = ANY($1) AND schemaname = current_schema() ORDER BY relname, idx_scan DESC, indexrelname
"""
_INVALID = """
    SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_stat_user_tables t ON t.relid = i.indrelid
    WHERE NOT i.indisvalid AND t.relname = ANY($1) AND t.schemaname = current_schema()
"""
_TABLES = """
    SELECT relname::text, n_live_tup, n_dead_tup, last_vacuum IS NULL AND last_autovacuum IS NULL,
        last_analyze IS NULL AND last_autoanalyze IS NULL
    FROM pg_stat_user_tables WHERE relname = ANY($1) AND schemaname = current_schema()
"""
_IDLE = f"""
    SELECT a.pid, coalesce(a.usename::text, '?'), coalesce(nullif(a.application_name, ''), '?'),
        extract(epoch FROM now() - a.state_change)::int,
        EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.granted
            AND l.classid = {LOG_LOCK_CLASS} AND l.objid = to_regclass('events')
            OR l.pid = a.pid AND l.relation = to_regclass('{LOCK_TABLE}') AND l.mode = 'RowShareLock' AND l.granted)
    FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.state LIKE 'idle in transaction%'
        AND now() - a.state_change > $1 * interval '1 second'
"""  # noqa: S608 - our own number
_MAY_COUNT = """
    SELECT coalesce(has_sequence_privilege(to_regclass('events_global_position_seq')::oid, 'SELECT')
        AND has_table_privilege(to_regclass('events')::oid, 'SELECT'), false)
"""
_MAY_COUNT_ROW = f"SELECT coalesce(has_table_privilege(to_regclass('{LOCK_TABLE}')::oid, 'SELECT'), false)"
_COUNTER_ROW = f"""
    SELECT (SELECT last_position + 1 FROM {LOCK_TABLE}) AS next,
        (SELECT coalesce(max(global_position), 0) FROM events) AS last
"""  # noqa: S608 - our own name
# By itself: Citus refuses a statement in which a subquery reads the catalogue, and another one a distributed table.
_COUNTS_TWICE = """
    SELECT EXISTS (SELECT FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
        WHERE adrelid = to_regclass('events') AND attname = 'global_position')
"""
_COUNTER = """
    SELECT last_value + is_called::int AS next, (SELECT coalesce(max(global_position), 0) FROM events) AS last
    FROM events_global_position_seq
"""
_DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}

IDLE_SECONDS = 10
"""How long a connection may do nothing inside a transaction, in seconds."""

DEAD_ROWS, DEAD_SHARE = 10_000, 0.2
"""A table needs a vacuum from this number of dead rows, if they are also this share of it."""


class PostgreSQLInspection(Inspection):
    """By the catalogue and the statistics, which every role may read."""

    async def product(self, driver: Any) -> str:
        return f"PostgreSQL {await driver.fetchval('SHOW server_version')}"

    async def sizes(self, driver: Any) -> list[Size]:
        first, *tables = await driver.fetch(_SIZES, _OURS)
        return [Size("database", first[1]), *(Size(name, size) for name, size in sorted(tables))]

    async def other_tables(self, driver: Any) -> list[str]:
        return [
            name if is_here else f"{schema}.{name}"
            for name, schema, is_here in await driver.fetch(_OTHER_TABLES)
            if not is_here or not is_ours(name)
        ]

    async def index_use(self, driver: Any) -> list[IndexUse]:
        return [IndexUse(*row) for row in await driver.fetch(_INDEXES, _OURS)]

    async def symptoms(self, driver: Any) -> list[Symptom]:
        return [
            *await self._settings(driver),
            *await self._tables(driver),
            *await self._idle(driver),
            *filter(None, [await self.counter(driver)]),
        ]

    async def counter(self, driver: Any) -> Symptom | None:
        if await driver.fetchval(IS_FROM_ROW):
            return await self._row(driver)
        found = await driver.fetchrow(_COUNTER) if await driver.fetchval(_MAY_COUNT) else None
        if found is None or found["next"] > found["last"]:
            return None
        return Symptom(
            f"the sequence that counts the positions of events is behind the log: its next number is {found['next']}, and the "
            f"log ends at {found['last']}. What is appended before that is stored where readers have passed, or refused",
            f"While no program writes, as the owner of the table: {set_counter('events', 'global_position')}",
        )

    async def _row(self, driver: Any) -> Symptom | None:
        found = await driver.fetchrow(_COUNTER_ROW) if await driver.fetchval(_MAY_COUNT_ROW) else None
        if found is None:
            return None
        if found["next"] is None:
            problem = f"the table {LOCK_TABLE} has lost its row: no event can be appended"
        elif await driver.fetchval(_COUNTS_TWICE):
            problem = (
                "the log draws its positions from a row, and events.global_position has a default all the same: programs "
                "that use it do not wait for the others, and readers skip events"
            )
        elif found["next"] <= found["last"]:
            problem = (
                f"the row of {LOCK_TABLE} is behind the log: its next position is {found['next']}, and the log ends at "
                f"{found['last']}. What is appended before that is stored where readers have passed, or refused"
            )
        else:
            return None
        return Symptom(problem, f"While no program writes, {REMEDY}")

    async def _settings(self, driver: Any) -> list[Symptom]:
        found = []
        for name, wanted in _DURABLE.items():
            value = await driver.fetchval(f"SHOW {name}")
            if value in ("off", "false"):
                found.append(
                    Symptom(
                        f"{name} is {value}: a crash of the server may lose events that were reported as stored",
                        f"ALTER SYSTEM SET {name} = {wanted}; SELECT pg_reload_conf()",
                    )
                )
        return found

    async def _tables(self, driver: Any) -> list[Symptom]:
        found = [
            Symptom(f"index {name} is invalid and not used", f"REINDEX INDEX CONCURRENTLY {name}")
            for (name,) in await driver.fetch(_INVALID, _OURS)
        ]
        for name, live, dead, never_vacuumed, never_analyzed in await driver.fetch(_TABLES, _OURS):
            if dead > DEAD_ROWS and dead > DEAD_SHARE * (live + dead):
                why = "autovacuum has never come" if never_vacuumed else "autovacuum does not keep up"
                found.append(Symptom(f"{name} has {dead} dead rows: {why}", f"VACUUM (ANALYZE) {name}"))
            elif never_analyzed and live > DEAD_ROWS:
                found.append(
                    Symptom(f"{name} was never analyzed: the planner guesses", f"VACUUM (ANALYZE) {name}")
                )
        return found

    async def _idle(self, driver: Any) -> list[Symptom]:
        found = []
        for pid, user, program, seconds, locks in await driver.fetch(_IDLE, IDLE_SECONDS):
            harm = "every append waits for it" if locks else "VACUUM and migrations wait for it"
            found.append(
                Symptom(
                    f"connection {pid} ({user}, {program}) has done nothing for {seconds} s inside a "
                    f"transaction: {harm}",
                    f"SELECT pg_terminate_backend({pid}), and set idle_in_transaction_session_timeout",
                )
            )
        return found

    async def back_up(self, driver: Any, target: Path, tell: Callable[[int, int], None]) -> None:
        raise InvalidOptionError(
            "a PostgreSQL database is backed up by its own program: pg_dump --format=custom --file=FILE "
            "DATABASE, with --schema=NAME for one log of several; or use `esource export`"
        )

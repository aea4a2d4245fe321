"""Databases on the PostgreSQL server of the tests (`esource.testing.server`), used again by one after the other."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
from sqlalchemy.engine import URL

from esource import schema
from esource.testing.server import dsn

T = TypeVar("T")

TEMPLATE = f"esource_template_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"

# All that tells a database from a fresh one: tables, columns, constraints, indexes, triggers, functions,
# policies, rights, settings, and the recorded revision.
_FINGERPRINT = """
    SELECT md5(string_agg(line, chr(10) ORDER BY line)) FROM (
        SELECT format('%s %s %s %s %s %s', oid::regclass, relkind, reloptions, relacl, relrowsecurity, relowner)
          FROM pg_class WHERE relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
        UNION ALL SELECT nspname || coalesce(nspacl::text, '') FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
        UNION ALL SELECT extname FROM pg_extension
        UNION ALL SELECT format('%s %s %s', polname, polroles, pg_get_expr(polqual, polrelid)) FROM pg_policy
        UNION ALL SELECT pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger
        UNION ALL SELECT setconfig::text FROM pg_db_role_setting
        UNION ALL SELECT format('%s %s %s', pg_get_functiondef(oid), proacl, proowner) FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace AND prokind <> 'a'
        UNION ALL SELECT pg_sequence::text FROM pg_sequence WHERE seqrelid >= 16384
        UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indexrelid >= 16384
        UNION ALL SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
            WHERE conrelid >= 16384
        UNION ALL SELECT format('%s %s %s %s %s %s', attrelid::regclass, attname, atttypid, atttypmod, attnotnull,
                (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum))
            FROM pg_attribute WHERE attrelid >= 16384 AND attnum > 0
    ) AS all_lines (line)"""
_OTHERS_END = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


class Databases:
    """Databases on a server, lent to one test after another.

    Creating one takes 100 ms, and every second test wants one: it is emptied and used again, unless the
    test has changed more than its rows.
    """

    def __init__(self, server: URL) -> None:
        self.server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._admin = self._run(asyncpg.connect(**dsn(server)))
        self._as_new: tuple[str, str] | None = None
        self._free: list[str] = []
        self._made: set[str] = set()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Outside any test's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _url(self, name: str) -> str:
        return self.server.set(database=name).render_as_string(hide_password=False)

    @contextmanager
    def with_tables(self) -> Iterator[str]:
        """The URL of a database with our tables, all of them empty."""
        if self._as_new is None:
            self._run(self._make_template())
        name = self._free.pop() if self._free else self._run(self._create(TEMPLATE))
        yield self._url(name)
        if self._run(self._empty(name)):
            self._free.append(name)
        else:
            self._run(self._drop(name))

    @contextmanager
    def without_tables(self) -> Iterator[str]:
        """The URL of a database without any tables."""
        name = self._run(self._create("template0"))
        yield self._url(name)
        self._run(self._drop(name))

    def close(self) -> None:
        for name in [*self._made, *([TEMPLATE] if self._as_new else [])]:
            self._run(self._drop(name))
        self._run(self._admin.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _make_template(self) -> None:
        await self._admin.execute(f"DROP DATABASE IF EXISTS {TEMPLATE}")
        await self._admin.execute(f"CREATE DATABASE {TEMPLATE}")
        await schema.upgrade(self._url(TEMPLATE))
        connection = await self._connect(TEMPLATE)
        self._as_new = await self._state(connection)
        await connection.close()

    async def _state(self, connection: Any) -> tuple[str, str]:
        revision = await connection.fetchval("SELECT version_num FROM esource_alembic_version")
        return revision, await connection.fetchval(_FINGERPRINT)

    async def _create(self, template: str) -> str:
        name = f"test_{uuid4().hex}"
        await self._admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        self._made.add(name)
        return name

    async def _drop(self, name: str) -> None:
        await self._admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self._made.discard(name)

    async def _connect(self, name: str) -> Any:
        return await asyncpg.connect(**dsn(self.server.set(database=name)))

    async def _empty(self, name: str) -> bool:
        """Take a test's rows away; whether the database is then as good as new."""
        try:
            connection = await self._connect(name)
        except asyncpg.PostgresError:
            return False  # the test has dropped or closed it
        try:
            await connection.execute(_OTHERS_END)
            if await self._state(connection) != self._as_new:
                return False
            await connection.execute(f"TRUNCATE {', '.join(sorted(schema.TABLES))} RESTART IDENTITY")
        except asyncpg.PostgresError:
            return False
        finally:
            await connection.close()
        return True

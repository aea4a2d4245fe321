"""What a database's schema is, as plain values that two databases can be compared by; raw access for tests
about the schema; and programs in processes of their own."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from esource.testing.server import dsn

CHECKOUT = Path(__file__).resolve().parents[2]


def sqlite_path(url: str) -> str:
    return str(make_url(url).database)


async def execute(url: str, *statements: str) -> None:
    """Run statements, each by itself, without esource."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(sqlite_path(url))) as connection:
            for statement in statements:
                connection.executescript(statement)
    else:
        server = await asyncpg.connect(**dsn(make_url(url)))
        try:
            for statement in statements:
                await server.execute(statement)
        finally:
            await server.close()


async def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a query, without esource."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(sqlite_path(url))
        found = connection.execute(statement).fetchall()
        connection.close()
        return found
    server = await asyncpg.connect(**dsn(make_url(url)))
    try:
        return [tuple(row) for row in await server.fetch(statement)]
    finally:
        await server.close()


async def described(url: str) -> dict[str, Any]:
    """Everything that the database itself says about its tables."""
    if url.startswith("sqlite"):
        return described_sqlite(sqlite3.connect(sqlite_path(url)))
    return {
        "columns": await rows(
            url,
            "SELECT table_name::text, column_name::text, data_type::text, character_maximum_length, "
            "is_nullable::text, column_default::text FROM information_schema.columns "
            "WHERE table_schema = 'public' ORDER BY 1, 2",
        ),
        "constraints": await rows(
            url,
            "SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE connamespace = 'public'::regnamespace AND contype <> 'n' ORDER BY 1, 2",
        ),
        "indexes": await rows(
            url, "SELECT indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
        ),
        "triggers": await rows(
            url, "SELECT tgname::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"
        ),
        "comments": await rows(
            url,
            "SELECT relname::text, obj_description(oid) FROM pg_class "
            "WHERE relnamespace = 'public'::regnamespace AND obj_description(oid) IS NOT NULL",
        ),
        "sequences": await rows(
            url,
            "SELECT sequencename::text, data_type::text, start_value, increment_by FROM pg_sequences "
            "ORDER BY 1",
        ),
    }


def described_sqlite(connection: sqlite3.Connection) -> dict[str, Any]:
    """The same of SQLite; the connection is closed."""
    tables = [
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        )
    ]
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=NullPool)
    found: dict[str, Any] = {}
    with engine.connect() as opened:
        reflected = inspect(opened)
        for table in tables:
            sql = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
            found[table] = {
                "columns": {
                    row[1]: row[2:]
                    for row in sorted(connection.execute(f"PRAGMA table_info({table})"), key=lambda r: r[1])
                },
                "autoincrement": "AUTOINCREMENT" in sql.upper(),
                "primary key": reflected.get_pk_constraint(table)["name"],
                "unique": sorted(
                    (str(unique["name"]), tuple(unique["column_names"]))
                    for unique in reflected.get_unique_constraints(table)
                ),
                "check": sorted(
                    (str(check["name"]), " ".join(check["sqltext"].split()))
                    for check in reflected.get_check_constraints(table)
                ),
                "indexes": _sqlite_indexes(connection, table),
            }
        found["others"] = connection.execute(
            "SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index')"
        ).fetchall()
    return found


def _sqlite_indexes(connection: sqlite3.Connection, table: str) -> dict[str, Any]:
    indexes = {}
    for _, name, unique, origin, partial in connection.execute(f"PRAGMA index_list({table})"):
        if origin != "c":  # those of constraints are numbered in the order of writing
            continue
        columns = tuple(row[2] for row in connection.execute(f"PRAGMA index_info({name})"))
        sql = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
        condition = re.split(r"\bWHERE\b", sql, flags=re.IGNORECASE)[1].strip() if partial else None
        indexes[name] = (columns, bool(unique), condition)
    return indexes


def run(
    *command: str, cwd: Path, ok: bool = True, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; fails with what it said unless it ended as expected."""
    finished = subprocess.run(
        command,
        cwd=cwd,
        env={**{k: v for k, v in os.environ.items() if k != "ESOURCE_URL"}, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (finished.returncode == 0) == ok, finished.stdout + finished.stderr
    return finished


def alembic(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """The ``alembic`` command, with the interpreter of the tests."""
    return run(sys.executable, "-m", "alembic", *arguments, cwd=cwd, **options)


async def run_at_once(program: str, argument_lists: Sequence[Sequence[str]], cwd: Path) -> list[str]:
    """Run a Python program in many processes that start their work together; what each printed.

    The program waits for a line on its input after it has said ``ready``.
    """
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            *arguments,
            cwd=cwd,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        for arguments in argument_lists
    ]
    for process in processes:
        assert await process.stdout.readline() == b"ready\n", await process.stdout.read()
    for process in processes:
        process.stdin.write(b"go\n")
        await process.stdin.drain()
    outputs = []
    for process in processes:
        printed, _ = await process.communicate()
        outputs.append(printed.decode())
        assert process.returncode == 0, outputs[-1]
    return outputs

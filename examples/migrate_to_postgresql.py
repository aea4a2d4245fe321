"""Move the events of a SQLite file to PostgreSQL, one by one, with the store's own interface.

The target has its tables already: `await store.initialize()`, or `alembic upgrade head`.
"""

import asyncio
import os

import shop  # noqa: F401 - registers the event classes, so that the events can be read
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from esource import ExpectedVersion, PostgreSQLEventStore, SQLiteEventStore


async def migrate_sqlite_to_postgresql(
    sqlite_path: str,
    pg_connection_string: str,
):
    """
    Migrate all events from SQLite to PostgreSQL.

    Args:
        sqlite_path: Path to SQLite database file
        pg_connection_string: PostgreSQL connection string
    """
    print(f"Starting migration from {sqlite_path} to PostgreSQL...")

    # Open SQLite source
    async with SQLiteEventStore(sqlite_path) as sqlite_store:
        await sqlite_store.initialize()

        # Open PostgreSQL destination
        engine = create_async_engine(pg_connection_string)
        session_factory = async_sessionmaker(engine, expire_on_commit=False)
        pg_store = PostgreSQLEventStore(session_factory)

        # Migrate events
        count = 0
        batch_size = 1000

        async for stored_event in sqlite_store.read_all():
            event = stored_event.event

            # Append to PostgreSQL (skip version check for migration)
            await pg_store.append_events(
                aggregate_id=event.aggregate_id,
                aggregate_type=event.aggregate_type,
                events=[event],
                expected_version=ExpectedVersion.ANY,
            )

            count += 1
            if count % batch_size == 0:
                print(f"Migrated {count} events...")

        await engine.dispose()

    print(f"Migration complete: {count} events transferred")


if __name__ == "__main__":
    asyncio.run(
        migrate_sqlite_to_postgresql(
            sqlite_path="./to_migrate.db",
            pg_connection_string=os.environ.get(
                "DATABASE_URL", "postgresql+asyncpg://user:pass@localhost/mydb"
            ),
        )
    )

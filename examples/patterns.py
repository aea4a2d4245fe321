"""Choosing the database by environment, and a temporary file for one test."""

import asyncio
import os
import tempfile

from esource import PostgreSQLEventStore, SQLiteEventStore


def create_event_store():
    """Create event store based on environment."""
    env = os.environ.get("APP_ENV", "development")

    if env == "development":
        # File-based SQLite for development
        return SQLiteEventStore("./data/patterns.db", wal_mode=True)
    elif env == "test":
        # In-memory SQLite for tests
        return SQLiteEventStore(":memory:", wal_mode=False)
    else:
        # PostgreSQL for production. This engine is the application's own, to share and to dispose of;
        # PostgreSQLEventStore(os.environ["DATABASE_URL"]) makes one that the store disposes of.
        from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

        engine = create_async_engine(os.environ["DATABASE_URL"])
        session_factory = async_sessionmaker(engine, expire_on_commit=False)
        return PostgreSQLEventStore(session_factory)


async def test_with_temp_database():
    """Use temporary file for test database."""
    with tempfile.NamedTemporaryFile(suffix=".db", delete=False) as f:
        db_path = f.name

    try:
        async with SQLiteEventStore(db_path) as store:
            await store.initialize()
            # Test here
            print(f"Events in the temporary database: {await store.get_global_position()}")
    finally:
        # Cleanup
        for suffix in ["", "-wal", "-shm"]:
            path = f"{db_path}{suffix}"
            if os.path.exists(path):
                os.remove(path)


async def main():
    # Whatever it is, it is used in the same way.
    async with create_event_store() as store:
        await store.initialize()
        print(f"{type(store).__name__}: connected {store.is_connected}")

    await test_with_temp_database()


asyncio.run(main())

"""Write-ahead logging: readers go on while a write is in progress."""

import asyncio
import os

from esource import SQLiteEventStore


async def main():
    # Enable WAL mode (recommended for file-based databases)
    store = SQLiteEventStore("./wal_mode.db", wal_mode=True)
    async with store:
        await store.initialize()
        print(f"File database: {store.wal_mode}")
        print(f"While open: {sorted(name for name in os.listdir() if name.startswith('wal_mode.db'))}")
    print(f"Closed: {sorted(name for name in os.listdir() if name.startswith('wal_mode.db'))}")

    # Correct - WAL mode disabled for in-memory
    store = SQLiteEventStore(":memory:", wal_mode=False)
    print(f"In memory: {store.wal_mode}")

    # WAL mode not supported for in-memory
    store = SQLiteEventStore(":memory:", wal_mode=True)  # Will be ignored
    print(f"In memory, asked for: {store.wal_mode}")


asyncio.run(main())

"""What initialize() creates, as SQLite itself tells it."""

import asyncio
import sqlite3
from contextlib import closing

from esource import SQLiteEventStore


async def main():
    async with SQLiteEventStore("schema.db") as store:
        await store.initialize()  # Creates tables if they don't exist

    with closing(sqlite3.connect("schema.db")) as connection:
        for kind in ("table", "index"):
            print(f"{kind}:")
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = ? AND name NOT LIKE 'sqlite_%' ORDER BY name",
                (kind,),
            ):
                print(f"  {name}")


asyncio.run(main())

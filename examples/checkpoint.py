"""How far a projection has read, kept in the same database as the events."""

import asyncio
from uuid import uuid4

import aiosqlite
from shop import OrderPlaced

from esource import SQLiteEventStore
from esource.repositories.checkpoint import SQLiteCheckpointRepository


async def checkpoint_example(event):
    """Demonstrate SQLite checkpoint repository."""
    async with aiosqlite.connect("checkpoint.db") as db:
        checkpoint_repo = SQLiteCheckpointRepository(db)

        # Save checkpoint
        await checkpoint_repo.save_position(
            subscription_id="OrderProjection",
            position=1000,
            event_id=event.event_id,
            event_type=event.event_type,
        )

        # Resume from checkpoint
        last_position = await checkpoint_repo.get_position("OrderProjection")
        print(f"Resume from position: {last_position + 1}")

        # Get all checkpoints
        checkpoints = await checkpoint_repo.get_all_checkpoints()
        for ckpt in checkpoints:
            print(f"{ckpt.projection_name}: position {ckpt.global_position}")


async def main():
    # The tables must exist: a store creates them.
    async with SQLiteEventStore("checkpoint.db") as store:
        await store.initialize()
    await checkpoint_example(OrderPlaced(aggregate_id=uuid4(), customer_id="customer-123", total=99.99))


asyncio.run(main())

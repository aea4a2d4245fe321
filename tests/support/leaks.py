"""That a store at rest holds its connections as it should."""

from __future__ import annotations

import asyncio

from esource import EventStore
from esource.sync.driver import drive
from support.threads import InThreads


def check_connections(store: EventStore) -> None:
    """No connection is checked out but those that the store holds, and none of them is inside a transaction."""
    database = store._opened.database
    pool = database.connections.engine.pool
    connections = database.connections
    lanes = [*connections.readers.idle]
    if connections.writers is not connections.readers:
        lanes += connections.writers.idle
    for lane in lanes:
        in_transaction = getattr(lane.driver, "in_transaction", False)
        in_transaction = (
            lane.driver.is_in_transaction() if not isinstance(in_transaction, bool) else in_transaction
        )
        assert not in_transaction, "a held connection is inside a transaction"
    if hasattr(pool, "checkedout"):
        assert pool.checkedout() == len(lanes), "a connection was not given back"


async def close_without_leaks(store: EventStore) -> None:
    """Close a store; no connection may stay checked out, and none may be inside a transaction."""
    if not store.is_connected:
        return
    connections = store._opened.database.connections
    pool = connections.engine.pool
    settled = store._opened.database.wake_up.settle()  # the connection of a watch that has just ended
    if isinstance(store, InThreads):  # its tasks are in a loop of their own
        await asyncio.to_thread(drive, settled, at_once=False)
    else:
        await settled
    # That of an iterator which a cancelled task has dropped: Python closes it in a task of its own.
    for _ in range(1000):
        if connections.readers.is_idle and connections.writers.is_idle:
            break
        await asyncio.sleep(0.005)
    check_connections(store)
    await store.close()
    if hasattr(pool, "checkedout"):
        assert pool.checkedout() == 0, "a connection was not given back on close"

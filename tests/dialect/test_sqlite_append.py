"""How SQLite inserts a batch: triggers of the application notice no difference."""

from __future__ import annotations

from uuid import uuid4

import pytest
from support.orders import several


@pytest.mark.parametrize(("kind", "conflict"), [("", "IGNORE"), ("", "REPLACE"), ("TEMP", "IGNORE")])
@pytest.mark.parametrize("length", [1, 61])
async def test_what_an_applications_trigger_does_about_conflicts_holds_for_each_event_of_a_batch(
    open_stores, sqlite_url, length, kind, conflict
):
    store = await open_stores(sqlite_url)
    first, second = uuid4(), uuid4()
    trigger = (
        f"CREATE {kind} TRIGGER note AFTER INSERT ON events "
        f"BEGIN INSERT OR {conflict} INTO types_seen VALUES (NEW.event_type); END"
    )
    async with store.transaction() as tx:
        for statement in ("CREATE TABLE types_seen (type TEXT PRIMARY KEY)", trigger):
            await tx.connection.exec_driver_sql(statement)
        await tx.append_events(first, "Order", several(length, first), 0)
        await tx.append_events(second, "Order", several(length, second), 0)
        assert (await tx.connection.exec_driver_sql("SELECT * FROM types_seen")).all() == [("OrderPlaced",)]
    assert [stored.global_position async for stored in store.read_all()] == [*range(1, 2 * length + 1)]

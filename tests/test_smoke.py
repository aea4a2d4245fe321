from uuid import uuid4

from orders import placed


async def test_append_and_read(store):
    i = uuid4()
    r = await store.append_events(i, "Order", [placed(i)], 0)
    assert r.new_version == 1
    assert len((await store.get_events(i, "Order")).events) == 1

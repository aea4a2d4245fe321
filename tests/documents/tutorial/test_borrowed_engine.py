"""A store on the application's engine, as the tutorial's migration script uses it: never closed itself."""

from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from support.orders import placed

from esource import PostgreSQLEventStore


async def test_disposing_of_the_engine_lets_the_connections_of_an_unclosed_store_go(engine_url):
    engine = create_async_engine(engine_url)
    others = []
    store = PostgreSQLEventStore(async_sessionmaker(engine, expire_on_commit=False), enable_tracing=False)

    first, second = placed(), placed()
    await store.append_events(first.aggregate_id, "Order", [first])
    event.listen(engine.sync_engine, "engine_disposed", others.append)

    await engine.dispose()
    assert not store.is_connected
    assert others == [engine.sync_engine]

    # SQLAlchemy's engines work again after dispose(), and so does a store on one.
    await store.append_events(second.aggregate_id, "Order", [second])
    await engine.dispose()
    assert not store.is_connected

"""Orders over HTTP with Flask.

First `DATABASE_URL=... flask --app flask_app init-db`, then `DATABASE_URL=... gunicorn --workers 4 --threads 4 flask_app:app`.
"""

from __future__ import annotations

import atexit
import os
from typing import Any
from uuid import UUID, uuid4

from flask import Flask, g, request
from orders import Order, OrderList, listed
from sqlalchemy import Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from esource.errors import CheckpointNotReachedError
from esource.sync import (
    AggregateNotFoundError,
    AggregateRepository,
    AppendResult,
    EventStore,
    OptimisticLockError,
    correlated,
    open_store,
)


class Base(DeclarativeBase):
    pass


class Note(Base):
    """A row of the application's own, written by SQLAlchemy's ORM in the transaction of the append."""

    __tablename__ = "order_notes"
    order_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    text: Mapped[str]


store = open_store(os.environ["DATABASE_URL"])  # gunicorn imports this in each worker, after the fork
atexit.register(store.close)
app = Flask(__name__)


@app.cli.command("init-db")
def init_db() -> None:
    """Make the tables, once for each deployment: workers that begin together would make them at the same time."""
    store.initialize()
    with store.transaction() as transaction:
        transaction.connection.run_sync(Base.metadata.create_all)


@app.before_request
def bind() -> None:
    """The store of the request, bound to its tenant; and a correlation id for all its events."""
    tenant = request.headers.get("X-Tenant")
    g.store = store.for_tenant(UUID(tenant)) if tenant else store
    g.correlation = correlated(request.headers.get("X-Request-ID", type=UUID))
    g.correlation.__enter__()


@app.teardown_request
def unbind(error: BaseException | None) -> None:
    g.correlation.__exit__(None, None, None)


@app.post("/orders")
def place() -> Any:
    new: dict[str, Any] = request.get_json()
    with g.store.transaction() as transaction:
        repository = AggregateRepository(transaction, Order)
        order = repository.create_new(uuid4())
        order.place(new["customer"], new["cents"])
        result = repository.save(order)

        def add_note(connection: Any) -> None:
            with Session(bind=connection) as session:
                session.add(Note(order_id=order.aggregate_id, text=f"for {new['customer']}"))
                session.flush()

        transaction.connection.run_sync(add_note)
    return answer(g.store, order, result, 201)


@app.post("/orders/<uuid:order_id>/pay")
def pay(order_id: UUID) -> Any:
    repository = AggregateRepository(g.store, Order)
    try:
        order = repository.load(order_id)
        order.pay()
        result = repository.save(order)
    except AggregateNotFoundError:
        return {"error": "there is no such order"}, 404
    except (ValueError, OptimisticLockError) as error:
        return {"error": str(error)}, 409
    return answer(g.store, order, result, 200)


def answer(store: EventStore, order: Order, result: AppendResult, status: int) -> Any:
    """202 if the list does not show the order yet, though it is stored."""
    try:
        store.wait_for(result, projection=OrderList, timeout=2)
    except CheckpointNotReachedError:
        status = 202
    return {"id": str(order.aggregate_id), "position": result.global_position}, status


@app.get("/orders")
def orders_of() -> Any:
    with g.store.reading() as connection:
        rows = connection.execute(listed(g.store.tenant_id, request.args["customer"])).mappings()
    return [dict(row) for row in rows]


@app.get("/health")
def health() -> Any:
    return {"position": store.get_global_position()}

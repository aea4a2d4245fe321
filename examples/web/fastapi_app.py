"""Orders over HTTP with FastAPI: `DATABASE_URL=... uvicorn fastapi_app:app --workers 4`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from orders import Order, OrderList, listed
from pydantic import BaseModel

from esource import (
    AggregateNotFoundError,
    AggregateRepository,
    AppendResult,
    EventStore,
    OptimisticLockError,
    ProjectionRunner,
    correlated,
    open_store,
)
from esource.errors import CheckpointNotReachedError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Once for each worker process: open, keep the read model up to date in the background, close."""
    async with open_store(os.environ["DATABASE_URL"]) as store:
        await store.initialize()
        async with ProjectionRunner(store, OrderList()) as runner:
            yield {"store": store, "runner": runner}


app = FastAPI(lifespan=lifespan)


async def request_store(request: Request, x_tenant: Annotated[UUID | None, Header()] = None) -> EventStore:
    """The store of this process, bound to the tenant of the request if it names one."""
    store: EventStore = request.state.store
    return store if x_tenant is None else store.for_tenant(x_tenant)


async def request_id(x_request_id: Annotated[UUID | None, Header()] = None) -> AsyncIterator[UUID]:
    """Every event of the request gets this correlation id."""
    with correlated(x_request_id) as correlation_id:
        yield correlation_id


Store = Annotated[EventStore, Depends(request_store)]
RequestId = Annotated[UUID, Depends(request_id)]


class NewOrder(BaseModel):
    customer: str
    cents: int


@app.post("/orders", status_code=201)
async def place(new: NewOrder, store: Store, request_id: RequestId, response: Response) -> dict[str, Any]:
    repository = AggregateRepository(store, Order)
    order = repository.create_new(uuid4())
    order.place(new.customer, new.cents)
    result = await repository.save(order)
    return await answer(store, order, result, response)


@app.post("/orders/{order_id}/pay")
async def pay(order_id: UUID, store: Store, request_id: RequestId, response: Response) -> dict[str, Any]:
    repository = AggregateRepository(store, Order)
    try:
        order = await repository.load(order_id)
        order.pay()
        result = await repository.save(order)
    except AggregateNotFoundError:
        raise HTTPException(404, "there is no such order") from None
    except (ValueError, OptimisticLockError) as error:
        raise HTTPException(409, str(error)) from None
    return await answer(store, order, result, response)


async def answer(store: EventStore, order: Order, result: AppendResult, response: Response) -> dict[str, Any]:
    """201 or 200 once the list shows the order; 202 if it does not yet, though the order is stored."""
    try:
        await store.wait_for(result, projection=OrderList, timeout=2)
    except CheckpointNotReachedError:
        response.status_code = 202
    return {"id": order.aggregate_id, "position": result.global_position}


@app.get("/orders")
async def orders_of(customer: str, store: Store) -> list[dict[str, Any]]:
    async with store.reading() as connection:
        rows = (await connection.execute(listed(store.tenant_id, customer))).mappings()
    return [dict(row) for row in rows]


@app.get("/health")
async def health(request: Request) -> dict[str, Any]:
    found = await request.state.runner.health()
    return {"position": found.position, "lag_events": found.lag_events}

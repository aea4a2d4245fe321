"""Orders are paid by a Celery worker, some time after they were placed: the outbox tells Celery, and a task pays.

`DATABASE_URL=... celery --app celery_app worker`, and beside it the relay that fills the queue:
`esource outbox relay --url ... --follow --restart --publisher celery_app:ToCelery`.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from celery import Celery
from celery.signals import worker_process_shutdown
from orders import Order

from esource.errors import DatabaseError, OptimisticLockError
from esource.repositories.outbox import OutboxEntry
from esource.sync import AggregateRepository, EventStore, correlated, open_store

app = Celery("orders", broker=os.environ.get("BROKER_URL", "filesystem://"))
if str(app.conf.broker_url).startswith("filesystem:"):  # a broker for one machine: nothing to install
    folder = Path(os.environ.get("BROKER_FOLDER", "broker"))
    (folder / "control").mkdir(parents=True, exist_ok=True)
    app.conf.broker_transport_options = {
        "data_folder_in": str(folder),
        "data_folder_out": str(folder),
        "control_folder": str(folder / "control"),
    }


@cache
def event_log() -> EventStore:
    """Opened once for each process of the worker, by its first task, and so after the fork."""
    return open_store(os.environ["DATABASE_URL"], outbox_enabled=True)


@worker_process_shutdown.connect
def close(**_: Any) -> None:
    if event_log.cache_info().currsize:
        event_log().close()


@app.task(
    acks_late=True, autoretry_for=(OptimisticLockError, DatabaseError), retry_backoff=True, max_retries=10
)
def pay(order_id: str, correlation_id: str, tenant: str | None) -> None:
    """Pay an order. Celery may call this twice for one message: an order that is paid stays so."""
    store = event_log() if tenant is None else event_log().for_tenant(UUID(tenant))
    orders = AggregateRepository(store, Order)
    with correlated(UUID(correlation_id)):
        order = orders.load(UUID(order_id))
        if not order.current.is_paid:
            order.pay()
            orders.save(order)


class ToCelery:
    """The publisher of the outbox: what was placed is to be paid."""

    def publish(self, entry: OutboxEntry) -> None:
        if entry.event_type == "OrderPlaced":
            correlation = entry.event_data.get("correlation_id") or entry.event_id
            tenant = None if entry.tenant_id is None else str(entry.tenant_id)
            pay.delay(str(entry.aggregate_id), str(correlation), tenant)

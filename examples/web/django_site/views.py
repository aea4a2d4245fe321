"""The views: commands load, decide, save and wait; queries read the list by SQL."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST
from orders import Order, OrderList, listed

from django_site.models import Note
from esource.errors import CheckpointNotReachedError
from esource.sync import (
    AggregateNotFoundError,
    AggregateRepository,
    AppendResult,
    OptimisticLockError,
)


@csrf_exempt
@require_http_methods(["GET", "POST"])
def orders(request: HttpRequest) -> JsonResponse:
    if request.method == "POST":
        return place(request)
    with request.store.reading() as log:
        query = listed(request.store.tenant_id, request.GET["customer"])
        rows = log.execute(query).mappings()
    return JsonResponse([dict(row) for row in rows], safe=False)


def place(request: HttpRequest) -> JsonResponse:
    new = json.loads(request.body)
    order = AggregateRepository(request.store, Order).create_new(uuid4())
    order.place(new["customer"], new["cents"])
    with transaction.atomic():
        Note.objects.create(order_id=order.aggregate_id, text=f"for {new['customer']}")
        result = request.store.append_events(
            order.aggregate_id, "Order", order.uncommitted_events, 0, connection=connection.connection
        )
    return answer(request, order, result, 201)


@csrf_exempt
@require_POST
def pay(request: HttpRequest, order_id: UUID) -> JsonResponse:
    repository = AggregateRepository(request.store, Order)
    try:
        order = repository.load(order_id)
        order.pay()
        result = repository.save(order)
    except AggregateNotFoundError:
        return JsonResponse({"error": "there is no such order"}, status=404)
    except (ValueError, OptimisticLockError) as error:
        return JsonResponse({"error": str(error)}, status=409)
    return answer(request, order, result, 200)


def answer(request: HttpRequest, order: Order, result: AppendResult, status: int) -> JsonResponse:
    """202 if the list does not show the order yet, though it is stored."""
    try:
        request.store.wait_for(result, projection=OrderList, timeout=2)
    except CheckpointNotReachedError:
        status = 202
    return JsonResponse({"id": order.aggregate_id, "position": result.global_position}, status=status)


def health(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"position": request.store.get_global_position()})

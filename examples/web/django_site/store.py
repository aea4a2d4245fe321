"""The store of this process, and what each request gets of it."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from functools import cache
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from esource.sync import EventStore, correlated, open_store


@cache
def event_store() -> EventStore:
    """Opened once for each process, on first use, and closed at its end."""
    store = open_store(settings.EVENTS_URL)
    store.initialize()
    atexit.register(store.close)
    return store


class EventsMiddleware:
    """Binds the store to the tenant of the request, and gives its events a correlation id."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        store, tenant = event_store(), request.headers.get("X-Tenant")
        request.store = store.for_tenant(UUID(tenant)) if tenant else store
        sent = request.headers.get("X-Request-ID")
        with correlated(UUID(sent) if sent else None):
            return self.get_response(request)

"""Appends inside Django's `transaction.atomic`, on Django's own connection; run in a process of its own by
`tests/documents/web/test_django.py`, on a database with the tables of the example site."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import django

django.setup()

from django.db import connection, transaction  # noqa: E402
from django_site.models import Note  # noqa: E402
from django_site.store import event_store  # noqa: E402
from orders import OrderPlaced  # noqa: E402

from esource.errors import InvalidOptionError, OptimisticLockError  # noqa: E402

store = event_store()


def place(order: UUID, version: int = 0) -> None:
    """A row of Django's and an event, both or neither."""
    if version == 0:
        Note.objects.create(order_id=order, text="for ada")
    event = OrderPlaced(customer="ada", cents=1)
    store.append_events(order, "Order", [event], version, connection=connection.connection)


def stored(order: UUID) -> tuple[int, bool]:
    return store.get_stream_version(order, "Order"), Note.objects.filter(order_id=order).exists()


kept, lost, nested, late = uuid4(), uuid4(), uuid4(), uuid4()
on_server = {"poll_seconds": 3600.0} if connection.vendor == "postgresql" else {}
with ThreadPoolExecutor(1) as pool, store.subscribe(**on_server) as events:
    following = pool.submit(next, events)
    with transaction.atomic():
        place(kept)
        place(kept, 1)
        assert store.get_stream_version(kept, "Order") == 0, "it is seen before Django commits"
    assert following.result().aggregate_id == kept, "nobody is woken by Django's commit"
assert stored(kept) == (2, True)

try:
    with transaction.atomic():
        place(lost)
        raise ZeroDivisionError
except ZeroDivisionError:
    assert stored(lost) == (0, False)

with transaction.atomic():  # a savepoint that is rolled back takes its append with it
    place(nested)
    try:
        with transaction.atomic():
            place(lost)
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    try:
        place(kept, 1)
    except OptimisticLockError:
        assert Note.objects.count() == 2, "a conflict leaves Django's transaction usable"
assert (stored(nested), stored(lost)) == ((1, True), (0, False))

try:
    place(late)  # Django commits each statement by itself: nothing of ours may be in between
except InvalidOptionError as error:
    assert "AUTOCOMMIT" in str(error), error
assert stored(late) == (0, True)

opened = connection.connection
store.close()
assert Note.objects.count() == 3
assert connection.connection is opened, "Django's connection was given up"
print("done")

"""`DATABASE_URL=... django-admin run_projections --settings django_site.settings`: keeps the read models up to date."""

from __future__ import annotations

import signal
from typing import Any

from django.core.management.base import BaseCommand
from orders import OrderList

from django_site.store import event_store
from esource.sync import ProjectionRunner


class Command(BaseCommand):
    help = "Keeps the read models up to date, until SIGTERM or Ctrl-C."

    def handle(self, *args: Any, **options: Any) -> None:
        runner = ProjectionRunner(event_store(), OrderList())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: runner.stop())
        with runner:  # in the background: it begins again after a failure
            runner.wait()

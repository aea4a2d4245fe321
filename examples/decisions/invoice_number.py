"""Invoices are numbered from 1, without a gap and without a number that two have.

The view has no tag: every invoice concerns it. So each decision reads all invoices. Where there are many, number them by
year: a field `year` marked with a Tag, and a view with that tag.
"""

import asyncio
import sys
from typing import Annotated, Any

from esource import DomainEvent, EventStore, Tag, View, handles, open_store, register_event

INVOICE = Tag("invoice")


@register_event
class InvoiceCreated(DomainEvent):
    invoice_number: Annotated[int, INVOICE]
    invoice_data: dict[str, Any]


class Invoices(View):
    next_number = 1

    @handles
    def created(self, event: InvoiceCreated) -> None:
        self.next_number = event.invoice_number + 1


def create(invoices: Invoices, data: dict[str, Any]) -> InvoiceCreated:
    return InvoiceCreated(invoice_number=invoices.next_number, invoice_data=data)


async def main(store: EventStore) -> None:
    async def bill(customer: str) -> None:
        await store.decide(lambda invoices: create(invoices, {"customer": customer}), Invoices())

    await asyncio.gather(*(bill(f"customer {number}") for number in range(8)))
    numbers = [stored.event.invoice_number async for stored in store.read_all()]  # type: ignore[attr-defined]
    print(f"numbers: {numbers}")


async def run(url: str) -> None:
    async with open_store(url) as store:
        await store.initialize()
        await main(store)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1] if len(sys.argv) > 1 else "sqlite://"))

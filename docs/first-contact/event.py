"""The first stored event."""

import asyncio
from uuid import uuid4

from esource import DomainEvent, open_store, register_event


@register_event
class Deposited(DomainEvent):
    amount: int


async def main() -> None:
    async with open_store("sqlite:///events.db") as store:
        await store.initialize()
        result = await store.append_events(uuid4(), "Account", [Deposited(amount=100)])
        print(result.new_version)


asyncio.run(main())

"""The first aggregate: stored, loaded, and changed once more."""

import asyncio
from uuid import uuid4

from pydantic import BaseModel

from esource import (
    AggregateRepository,
    DeclarativeAggregate,
    DomainEvent,
    handles,
    open_store,
    register_event,
)


@register_event
class Deposited(DomainEvent):
    amount: int


class Balance(BaseModel):
    amount: int = 0


class Account(DeclarativeAggregate[Balance]):
    @handles
    def _deposited(self, event: Deposited) -> None:
        self.current.amount += event.amount

    def deposit(self, amount: int) -> None:
        self.apply_event(Deposited(amount=amount))


async def main() -> None:
    async with open_store("sqlite:///events.db") as store:
        await store.initialize()
        accounts = AggregateRepository(store, Account)
        account = accounts.create_new(uuid4())
        account.deposit(100)
        await accounts.save(account)
        account = await accounts.load(account.aggregate_id)
        account.deposit(20)
        await accounts.save(account)
        print(account.current.amount)


asyncio.run(main())

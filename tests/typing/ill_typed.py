"""What a type checker must refuse; each line that it refuses ends in the code of the refusal."""

from uuid import UUID

import esource
from esource import (
    AggregateRepository,
    AggregateRoot,
    DeclarativeAggregate,
    DomainEvent,
    EventStore,
    Projection,
    ProjectionContext,
    ProjectionRunner,
    ReadOptions,
    View,
    handles,
    register_event,
)
from esource.testing import an_event, given, given_events


@register_event
class Deposited(DomainEvent):
    cents: int


class Closed(DomainEvent):
    pass


class Account(DeclarativeAggregate[int]):
    @handles(Deposited)  # REFUSED: arg-type
    def _closed(self, event: Closed) -> None: ...

    def deposit(self) -> None:
        self._state = "much"  # REFUSED: assignment


class Unclear(DeclarativeAggregate[int]):
    @handles  # REFUSED: type-var
    def _returning(self, event: Deposited) -> int:
        return event.cents


class Balances(Projection):
    @handles(Deposited)  # REFUSED: arg-type
    async def closed(self, event: Closed, context: ProjectionContext) -> None: ...

    @handles(Deposited)  # REFUSED: arg-type
    async def told_wrongly(self, event: Deposited, context: EventStore) -> None: ...


class Seat(View):
    def __init__(self, seat: int) -> None:
        super().__init__(seat)  # REFUSED: arg-type


class Coach(View):
    @handles(Deposited)  # REFUSED: arg-type
    def closed(self, event: Closed) -> None: ...


def take(seat: Seat, coach: Coach) -> Deposited:
    return Deposited(cents=1)


def forget(seat: Seat) -> None: ...


async def decide(store: EventStore) -> None:
    await store.decide(take, Coach(), Seat(1))  # REFUSED: arg-type
    await store.decide(take, Seat(1))  # REFUSED: arg-type
    await store.decide(forget, Seat(1))  # REFUSED: arg-type
    await store.decide(take, Seat("1"), Coach())  # REFUSED: arg-type
    store.decide(take, Seat(1), Coach())  # REFUSED: unused-coroutine
    given_events().when(take, Coach(), Seat(1))  # REFUSED: arg-type


async def use(store: EventStore, account: Account, i: UUID) -> None:
    text: str = account.current  # REFUSED: assignment
    number: int = account.state  # REFUSED: assignment
    root: AggregateRoot[str] = account  # REFUSED: assignment
    closed: Closed = account.create_event(Deposited)  # REFUSED: assignment
    deposited = Deposited(aggregate_id=i, aggregate_type="A", cents=1)
    deposited.dollars  # REFUSED: attr-defined
    esource.open_stores  # REFUSED: attr-defined
    repository = AggregateRepository(store, Account)
    other: Closed = await repository.load(i)  # REFUSED: assignment
    AggregateRepository(store, Closed)  # REFUSED: type-var
    await store.append_events(i, "A", [account])  # REFUSED: list-item
    ProjectionRunner(store, Account)  # REFUSED: arg-type
    handles(int)  # REFUSED: type-var
    register_event(int)  # REFUSED: type-var
    store.for_tenant("red")  # REFUSED: arg-type
    given(Account).when(Account.deposit, "much")  # REFUSED: call-arg
    given(Closed)  # REFUSED: type-var
    given(Account).when(Account.deposit).then(Account)  # REFUSED: arg-type
    an_event(Account)  # REFUSED: type-var
    Deposited()  # REFUSED: call-arg
    store.append_events(i, "A", [deposited])  # REFUSED: unused-coroutine
    repository.save(account)  # REFUSED: unused-coroutine
    repository.load(i).state  # REFUSED: attr-defined
    await repository.execute(i, Account.deposit, "much")  # REFUSED: call-arg
    await repository.execute(i, Unclear._returning, deposited)  # REFUSED: arg-type
    ReadOptions(event_types="Deposited")  # REFUSED: arg-type
    ReadOptions(event_types={Account})  # REFUSED: arg-type
    ReadOptions(direction="back")  # REFUSED: arg-type
    with store:  # REFUSED: attr-defined
        pass
    for stored in store.read_all():  # REFUSED: attr-defined
        pass

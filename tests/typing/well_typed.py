"""What a type checker must see in our public names; read by mypy, never run."""

import sqlite3
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, Table, insert
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import assert_type

from esource import (
    AggregateRepository,
    AggregateRoot,
    AppendResult,
    DeclarativeAggregate,
    DomainEvent,
    EventStore,
    Health,
    InMemoryEventStore,
    Projection,
    ProjectionContext,
    ProjectionRunner,
    ReadOptions,
    SQLiteEventStore,
    StoredEvent,
    Tag,
    Transaction,
    View,
    handles,
    open_store,
    register_event,
    sync,
)
from esource.testing import an_event, given, given_events
from esource.testing.decisions import Decided
from esource.testing.scenarios import Given

balances = Table("balances", MetaData(), Column("cents", Integer))


class Balance(BaseModel):
    cents: int = 0


@register_event
class Deposited(DomainEvent):
    aggregate_type: str = "Account"
    cents: int


@register_event(event_type="account.closed")
class Closed(DomainEvent):
    aggregate_type: str = "Account"


class Account(DeclarativeAggregate[Balance]):
    def _get_initial_state(self) -> Balance:
        return Balance()

    @handles(Deposited)
    def _deposited(self, event: Deposited) -> None:
        self._state = Balance(cents=self.current.cents + event.cents)

    def deposit(self, cents: int) -> None:
        event = self.create_event(Deposited, cents=cents)
        assert_type(event, Deposited)
        self.apply_event(event)


@register_event
class Named(DomainEvent):
    name: str


class Short(DeclarativeAggregate[Balance]):
    """Says nothing that can be inferred."""

    @handles
    def _named(self, event: Named) -> None:
        assert_type(event.name, str)
        self.current.cents += 1

    def rename(self, name: str) -> None:
        self.apply_event(Named(name=name))


class Plain(AggregateRoot[dict[str, int]]):
    pass


class Balances(Projection):
    @handles(Deposited)
    async def deposited(self, event: Deposited, context: ProjectionContext) -> None:
        assert_type(event.cents, int)
        assert_type(context.tenant_id, UUID | None)
        assert_type(context.stored, StoredEvent)
        await context.connection.execute(insert(balances).values(cents=event.cents))

    @handles
    async def closed(self, event: Closed, context: ProjectionContext) -> None: ...


async def a_projection_keeps_its_methods(
    store: EventStore, event: Deposited, context: ProjectionContext
) -> None:
    await Balances().deposited(event, context)
    assert_type(await ProjectionRunner(store, Balances()).health(), Health)


def registering_keeps_the_class(i: UUID) -> None:
    assert_type(Deposited(aggregate_id=i, cents=1), Deposited)
    assert_type(Deposited(aggregate_id=i, cents=1).cents, int)
    assert_type(Closed(aggregate_id=i), Closed)
    assert_type(Closed(aggregate_id=i).with_metadata(a=1), Closed)


def an_aggregate_knows_its_state(account: Account, plain: Plain) -> None:
    assert_type(account.state, Balance | None)
    assert_type(account.current, Balance)
    assert_type(plain.state, dict[str, int] | None)
    assert_type(account.uncommitted_events, list[DomainEvent])


async def a_repository_knows_its_aggregate(store: EventStore, i: UUID) -> None:
    repository = AggregateRepository(store, Account)
    assert_type(repository, AggregateRepository[Account])
    assert_type(await repository.load(i), Account)
    assert_type(await repository.load_or_create(i), Account)
    assert_type(repository.create_new(i), Account)
    assert_type((await repository.load(i)).state, Balance | None)
    assert_type(await repository.execute(i, Account.deposit, 5), AppendResult)
    assert_type(await repository.execute_or_create(i, Account.deposit, cents=5), AppendResult)
    assert_type(
        await repository.execute(i, lambda account: account.deposit(account.current.cents)), AppendResult
    )
    by_function = AggregateRepository(store, lambda aggregate_id: Account(aggregate_id), "Account")
    assert_type(await by_function.load(i), Account)


async def stores_stay_what_they_are(i: UUID) -> None:
    assert_type(open_store("sqlite://"), EventStore)
    async with SQLiteEventStore("events.db") as store:
        assert_type(store, SQLiteEventStore)
        assert_type(store.for_tenant(i), SQLiteEventStore)
        assert_type(store.for_tenant(i).tenant_id, UUID | None)
        async with store.for_tenant(i).transaction() as transaction:
            assert_type(transaction, Transaction)
    async with open_store("sqlite://") as opened:
        assert_type(opened, EventStore)
        async for stored in opened.read_all():
            assert_type(stored.event, DomainEvent)
            assert_type(stored.global_position, int)
    async with InMemoryEventStore() as memory:
        assert_type(await memory.get_stream_version(i, "Account"), int)
    options: dict[str, Any] = {}
    assert_type(open_store("sqlite://", **options), EventStore)


async def appends_and_reads_say_what_they_return(store: EventStore, short: Short, i: UUID) -> None:
    result = await store.append_events(i, "Short", [Named(name="a")])
    assert_type(result, AppendResult)
    assert_type(result.new_version, int)
    stream = await store.get_events(i, "Short")
    assert_type(stream.events, list[DomainEvent])
    assert_type(stream.latest_event, DomainEvent | None)
    assert_type([stored.event async for stored in store.read_all()], list[DomainEvent])
    wanted = [Deposited]
    options = ReadOptions(event_types=wanted, direction="backward")
    assert_type(ReadOptions(event_types={"Deposited", Closed}, aggregate_types=["Account"]), ReadOptions)
    assert_type([stored.event async for stored in store.read_all(options)], list[DomainEvent])
    store.subscribe(event_types={Deposited})
    assert_type(await AggregateRepository(store, Short).save(short), AppendResult)
    async with store.reading() as connection:
        assert_type(connection, AsyncConnection)
    short._named(Named(name="b"))  # the decorator leaves the method as it is
    async with store.transaction() as transaction:
        assert_type(await transaction.append_events(i, "Short", stream.events), AppendResult)


SEAT = Tag("seat")


@register_event
class SeatTaken(DomainEvent):
    seat: Annotated[int, SEAT]


class Seat(View):
    is_taken = False

    def __init__(self, seat: int) -> None:
        super().__init__(SEAT.of(seat))
        self.seat = seat

    @handles
    def taken(self, event: SeatTaken) -> None:
        assert_type(event.seat, int)
        self.is_taken = True


class Coach(View):
    def __init__(self, coach: str) -> None:
        super().__init__(coach)


def take(seat: Seat, coach: Coach) -> SeatTaken:
    return SeatTaken(seat=seat.seat)


async def take_later(seat: Seat) -> list[SeatTaken]:
    return [] if seat.is_taken else [SeatTaken(seat=seat.seat)]


def take_for(seat: Seat, coach: Coach, *, name: str) -> SeatTaken:
    return take(seat, coach)


def take_all(*seats: Seat) -> list[SeatTaken]:
    return [SeatTaken(seat=seat.seat) for seat in seats]


async def decisions_know_their_views(store: EventStore, seats: list[Seat]) -> None:
    assert_type(await store.decide(take, Seat(1), Coach("a")), AppendResult)
    assert_type(await store.decide(take_later, Seat(1)), AppendResult)
    assert_type(await store.decide(partial(take_for, name="Ada"), Seat(1), Coach("a")), AppendResult)
    assert_type(await store.decide(take_all, Seat(1), Seat(2)), AppendResult)
    assert_type(await store.decide(take_all, *seats), AppendResult)
    assert_type(await store.decide(lambda seat: SeatTaken(seat=seat.seat), Seat(1)), AppendResult)
    assert_type(given_events(SeatTaken(seat=1)).when(take, Seat(1), Coach("a")).then(SeatTaken), Decided)


def scenarios_know_their_aggregate() -> None:
    event = an_event(Deposited, cents=1)
    assert_type(event, Deposited)
    assert_type(given(Account, event), Given[Account])
    assert_type(given(Account, event).when(Account.deposit, 5).then(event, Deposited).aggregate, Account)


def the_synchronous_side_says_the_same(store: sync.EventStore, i: UUID) -> None:
    assert_type(store.append_events(i, "Short", [Named(name="a")]), AppendResult)
    assert_type(store.get_events(i, "Short").events, list[DomainEvent])
    assert_type([stored.event for stored in store.read_all()], list[DomainEvent])
    assert_type([stored.global_position for stored in store.subscribe(live=False)], list[int])
    assert_type(store.for_tenant(i), sync.EventStore)
    with store.transaction() as transaction:
        assert_type(transaction, sync.Transaction)
        assert_type(transaction.append_events(i, "Short", []), AppendResult)
        assert_type(transaction.checkpoints.get_position("p"), int | None)
        assert_type(transaction.connection, sync.Connection)
    store.append_events(i, "Short", [], connection=sqlite3.connect("events.db"))
    with sync.open_store("sqlite://") as opened:
        assert_type(opened, sync.EventStore)
    accounts = sync.AggregateRepository(store, Account)
    assert_type(accounts.load(i), Account)
    assert_type(accounts.execute(i, Account.deposit, 5), AppendResult)
    assert_type(store.decide(take, Seat(1), Coach("a")), AppendResult)

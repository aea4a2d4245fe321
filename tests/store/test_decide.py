import asyncio
from functools import partial
from typing import Annotated
from uuid import uuid4

import pytest

from esource import (
    AppendConditionError,
    DomainEvent,
    Query,
    QueryItem,
    Retry,
    Tag,
    View,
    default_registry,
    handles,
    register_event,
    sync,
)
from esource.errors import InvalidEventError, InvalidOptionError

ROOM, GUEST = Tag("room"), Tag("guest")
SHORT = Retry(attempts=3, first_seconds=0.001, longest_seconds=0.001)


@register_event
class RoomOpened(DomainEvent):
    room: Annotated[str, ROOM]
    beds: float


@register_event
class GuestCame(DomainEvent):
    room: Annotated[str, ROOM]
    guest: Annotated[str, GUEST]


class Room(View):
    def __init__(self, room: str) -> None:
        super().__init__(ROOM.of(room))
        self.room = room
        self.beds = 0.0
        self.guests: list[str] = []

    @handles
    def opened(self, event: RoomOpened) -> None:
        self.beds = event.beds

    @handles
    def came(self, event: GuestCame) -> None:
        self.guests.append(event.guest)


class Guest(View):
    stays = 0

    def __init__(self, guest: str) -> None:
        super().__init__(GUEST.of(guest))
        self.guest = guest

    @handles
    def came(self, event: GuestCame) -> None:
        self.stays += 1


class FullError(Exception):
    """No bed is left."""


def come(room: Room, guest: Guest) -> GuestCame:
    if len(room.guests) >= room.beds:
        raise FullError
    return GuestCame(room=room.room, guest=guest.guest)


async def opened(store, room="r1", beds=2):
    await store.append([RoomOpened(room=room, beds=beds)])


async def guests_of(store, room):
    found = await store.read_query(Query(QueryItem([GuestCame], [ROOM.of(room)])))
    return [stored.event.guest for stored in found.events]


async def test_what_was_decided_is_stored(store):
    await opened(store)
    result = await store.decide(come, Room("r1"), Guest("ada"))
    assert result.success
    assert result.global_position == await store.get_global_position() == 2
    assert await guests_of(store, "r1") == ["ada"]


async def test_what_a_decision_refuses_is_not(store):
    await opened(store, beds=1)
    await store.decide(come, Room("r1"), Guest("ada"))
    with pytest.raises(FullError):
        await store.decide(come, Room("r1"), Guest("bob"))
    assert await guests_of(store, "r1") == ["ada"]


async def test_each_view_takes_in_its_own_events_and_stays_as_it_was_given(store):
    for room in ("r1", "r2"):
        await opened(store, room)
        await store.decide(come, Room(room), Guest("ada"))
    await store.append_events(uuid4(), "Room", [GuestCame(room="r3", guest="eve")], tags=["room:r1"])
    seen = []
    given = Room("r1"), Guest("ada"), Guest("bob")

    async def look(room, ada, bob):
        await asyncio.sleep(0)
        seen.append((room.guests, ada.stays, bob.stays))
        return []

    for _ in range(2):
        result = await store.decide(look, *given)
    assert seen == [(["ada", "eve"], 2, 0)] * 2
    assert (result.success, result.new_version, result.global_position) == (True, 0, 0)
    assert (given[0].guests, given[1].stays) == ([], 0)


async def test_several_events_are_stored_together(store):
    events = [RoomOpened(room="r1", beds=1), GuestCame(room="r1", guest="ada")]
    result = await store.decide(lambda room: events, Room("r1"))
    assert (result.new_version, result.global_position) == (2, 2)


async def test_an_event_may_belong_to_a_stream(store):
    i = uuid4()
    for version in (1, 2):
        event = RoomOpened(aggregate_id=i, aggregate_type="House", room=f"r{version}", beds=1)
        result = await store.decide(lambda room: event, Room(f"r{version}"))
        assert result.new_version == version
    assert len((await store.get_events(i, "House")).events) == 2


async def test_decisions_of_one_process_wait_for_each_other_instead_of_conflicting(store):
    await opened(store, beds=5)
    once = Retry(attempts=1)
    tries = [store.decide(come, Room("r1"), Guest(f"g{n}"), retry=once) for n in range(20)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert [type(error) for error in refused] == [FullError] * 15
    assert len(await guests_of(store, "r1")) == 5


async def test_decisions_that_have_nothing_in_common_do_not_wait(store):
    await opened(store, "r1")
    await opened(store, "r2")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(room, guest):
        begun.set()
        await go_on.wait()
        return come(room, guest)

    waiting = asyncio.create_task(store.decide(slow, Room("r1"), Guest("ada")))
    await begun.wait()
    await store.decide(come, Room("r2"), Guest("bob"))
    go_on.set()
    assert (await waiting).success


async def test_a_decision_is_made_again_on_what_has_come_and_not_for_ever(
    shared_store, shared_database_url, open_stores
):
    other = await open_stores(shared_database_url)
    await opened(shared_store, beds=9)
    seen = []

    async def late(room, guest, conflicts):
        seen.append(list(room.guests))
        if len(seen) <= conflicts:
            await other.append([GuestCame(room="r1", guest=f"other {len(seen)}")])
        return come(room, guest)

    await shared_store.decide(partial(late, conflicts=2), Room("r1"), Guest("ada"), retry=SHORT)
    assert seen == [[], ["other 1"], ["other 1", "other 2"]]
    seen.clear()
    with pytest.raises(AppendConditionError) as conflict:
        await shared_store.decide(partial(late, conflicts=99), Room("r1"), Guest("bob"), retry=SHORT)
    assert conflict.value.event_type == "GuestCame"
    assert len(seen) == 3


async def test_processes_never_store_more_than_the_rule_allows(
    shared_store, shared_database_url, open_stores
):
    """Two stores have nothing in common but the database."""
    await opened(shared_store, beds=5)
    stores = [shared_store, await open_stores(shared_database_url)]
    patient = Retry(attempts=100, first_seconds=0.001, longest_seconds=0.05)
    tries = [
        stores[number % 2].decide(come, Room("r1"), Guest(f"g{number}"), retry=patient)
        for number in range(16)
    ]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(outcome, FullError) for outcome in outcomes) == 11
    assert len(await guests_of(shared_store, "r1")) == 5


async def test_a_conflict_that_the_decision_itself_meets_is_its_own(store):
    calls = []

    async def conflicts(room):
        calls.append(room)
        await store.append(
            [RoomOpened(room="r1", beds=1)], condition=(await store.read_query(room.boundary())).condition
        )
        raise AppendConditionError("T", uuid4(), 0, after=1, global_position=2, event_type="E")

    with pytest.raises(AppendConditionError):
        await store.decide(conflicts, Room("r1"))
    assert len(calls) == 1


async def test_inside_a_transaction_a_decision_belongs_to_it(store):
    with pytest.raises(FullError):
        async with store.transaction():
            await store.decide(lambda room: RoomOpened(room="r1", beds=1), Room("r1"))
            await store.decide(come, Room("r1"), Guest("ada"))
            await store.decide(come, Room("r1"), Guest("bob"))
    assert await store.get_global_position() == 0


async def test_a_transaction_does_not_wait_for_a_decision_that_waits_for_it(shared_store):
    await opened(shared_store, beds=1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(room, guest):
        begun.set()
        await go_on.wait()
        return come(room, guest)

    outside = asyncio.create_task(shared_store.decide(slow, Room("r1"), Guest("ada")))
    await begun.wait()
    async with shared_store.transaction():
        await shared_store.decide(come, Room("r1"), Guest("bob"))
        go_on.set()
    with pytest.raises(FullError):
        await outside


async def test_a_decision_about_the_same_inside_a_decision_is_refused(store):
    async def nested(room):
        return await store.decide(nested, room)

    with pytest.raises(InvalidOptionError, match="would wait for that one"):
        await store.decide(nested, Room("r1"))


async def test_a_decision_that_is_cancelled_stores_nothing_and_holds_nobody_up(store):
    await opened(store)
    begun = asyncio.Event()

    async def hang(room, guest):
        begun.set()
        await asyncio.Event().wait()

    hanging = asyncio.create_task(store.decide(hang, Room("r1"), Guest("ada")))
    await begun.wait()
    waiting = asyncio.create_task(store.decide(come, Room("r1"), Guest("bob")))
    hanging.cancel()
    assert (await waiting).global_position == 2
    assert await guests_of(store, "r1") == ["bob"]


async def test_each_tenant_decides_over_its_own_events(store):
    red, blue = store.for_tenant(uuid4()), store.for_tenant(uuid4())
    for tenant in (red, blue):
        await opened(tenant, beds=1)
        await tenant.decide(come, Room("r1"), Guest("ada"))
    assert len(await guests_of(red, "r1")) == 1


def forgets(room):
    pass


@pytest.mark.parametrize(
    ("outcome", "what"),
    [
        (None, "forgets returned nothing: return the event"),
        ("GuestCame", "must return an event, or a list of events, not"),
        ([GuestCame(room="r", guest="g"), None], "must return an event, or a list of events, not"),
        (GuestCame, "must return an event"),
    ],
)
async def test_a_decision_that_returns_no_event_is_refused(store, outcome, what):
    decision = forgets if outcome is None else lambda room: outcome
    with pytest.raises(InvalidOptionError, match=what):
        await store.decide(decision, Room("r1"))
    assert await store.get_global_position() == 0


async def test_an_event_that_cannot_be_stored_is_refused(store):
    with pytest.raises(InvalidEventError):
        await store.decide(lambda room: RoomOpened(room="r1", beds=float("nan")), Room("r1"))


class Silent(View):
    def __init__(self, room: str) -> None:
        self.room = room

    @handles
    def opened(self, event: RoomOpened) -> None: ...


class Idle(View):
    """Has no method."""


class Answering(View):
    @handles
    def opened(self, event: RoomOpened) -> None:
        return event.beds  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("views", "what"),
    [
        ((), "a decision without a view depends on nothing"),
        ((Room,), "views, not with .*Room.*: make one of it"),
        (("r1",), "views, not with 'r1'"),
        ((Silent("r1"),), r"Silent does not say which events concern it: call super\(\).__init__"),
        ((Idle(),), "Idle has no method for any event"),
        ((Answering(),), r"Answering\.opened returned something"),
    ],
)
async def test_what_is_no_view_is_refused(store, views, what):
    await opened(store)
    with pytest.raises(InvalidOptionError, match=what):
        await store.decide(lambda *given: [], *views)


async def test_what_is_no_decision_is_refused(store):
    with pytest.raises(InvalidOptionError, match="decide takes a function of the views first"):
        await store.decide(Room("r1"), Room("r1"))


def test_a_method_of_a_view_is_a_plain_one():
    with pytest.raises(InvalidOptionError, match=r"Later\.opened must be a plain `def`"):

        class Later(View):
            @handles
            async def opened(self, event: RoomOpened) -> None: ...


async def test_a_class_that_is_registered_while_a_decision_waits_belongs_to_it(store):
    await opened(store)
    seen = []

    async def come_after_a_member(room, guest):
        seen.append(room.guests)
        if len(seen) == 1:

            class MemberCame(GuestCame):
                event_type: str = "MemberCame"

            register_event(MemberCame)
            await store.append([MemberCame(room="r1", guest="eve")])
        return come(room, guest)

    try:
        await store.decide(come_after_a_member, Room("r1"), Guest("ada"), retry=SHORT)
    finally:
        default_registry.unregister("MemberCame")
    assert seen == [[], ["eve"]]


async def test_a_boundary_that_is_no_query_is_refused(store):
    class Beds(Room):
        def boundary(self):
            return None

    with pytest.raises(InvalidOptionError, match=r"Beds.boundary\(\) must return a Query"):
        await store.decide(lambda beds: [], Beds("r1"))


def test_a_view_inherits_methods_and_may_say_its_boundary_itself():
    class Beds(Room):
        def boundary(self):
            return Query(QueryItem([RoomOpened], [ROOM.of(self.room)]), QueryItem(tags=["all"]))

    assert Beds("r1").boundary() == Query(QueryItem([RoomOpened], ["room:r1"]), QueryItem(tags=["all"]))
    assert repr(Beds("r1")) == "Beds('r1')"
    assert Room("r1").boundary() == Query(QueryItem([RoomOpened, GuestCame], ["room:r1"]))


def test_programs_without_an_event_loop_decide_in_their_own_thread(shared_database_url):
    with sync.open_store(shared_database_url) as store:
        store.append([RoomOpened(room="r1", beds=1)])

        def decide(room, guest):
            assert store.get_global_position() == 1  # the decision may use the synchronous side
            return come(room, guest)

        assert store.decide(decide, Room("r1"), Guest("ada")).global_position == 2
        with pytest.raises(FullError):
            store.decide(come, Room("r1"), Guest("bob"))

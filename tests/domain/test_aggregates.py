from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr
from support.orders import Order, OrderPlaced, OrderShipped, OrderState, placed

from esource import (
    AggregateRepository,
    AggregateRoot,
    DeclarativeAggregate,
    DomainEvent,
    InMemoryEventStore,
    InMemorySnapshotStore,
    InvalidEventError,
    handles,
)
from esource.errors import InvalidOptionError


class Counted(DomainEvent):
    aggregate_type: str = "Counter"
    by: int = 1


class Doubled(DomainEvent):
    aggregate_type: str = "Counter"


class Counter(DeclarativeAggregate[int]):
    def _get_initial_state(self) -> int:
        return 0

    @handles(Counted)
    def _counted(self, event: Counted) -> None:
        self._state = self.current + event.by


def test_a_new_aggregate_has_no_version_and_no_state():
    order = Order(i := uuid4())
    assert (order.aggregate_id, order.version, order.state, order.get_next_version()) == (i, 0, None, 1)
    assert not order.has_uncommitted_events
    assert order.current == OrderState(order_id=i)
    assert repr(order) == f"Order({i}, version=0)"


def test_a_command_changes_the_state_and_records_an_event():
    order = Order(uuid4())
    order.place("c", 5.0)
    order.ship("t")
    assert (order.version, order.state.status, order.state.tracking_number) == (2, "shipped", "t")
    assert [type(event) for event in order.uncommitted_events] == [OrderPlaced, OrderShipped]
    assert [event.aggregate_version for event in order.uncommitted_events] == [1, 2]
    with pytest.raises(ValueError, match="Order already placed"):
        order.place("c", 5.0)
    assert order.version == 2


def test_the_uncommitted_events_are_a_copy():
    order = Order(uuid4())
    order.place("c", 5.0)
    order.uncommitted_events.clear()
    assert order.has_uncommitted_events
    order.mark_events_as_committed()
    assert not order.has_uncommitted_events
    order.ship("t")
    (event,) = order.clear_uncommitted_events()
    assert isinstance(event, OrderShipped)
    assert (order.has_uncommitted_events, order.version) == (False, 2)


def test_create_event_fills_in_what_the_aggregate_knows():
    order = Order(i := uuid4())
    event = order.create_event(OrderPlaced, customer_id="c", total=1)
    assert (event.aggregate_id, event.aggregate_type, event.aggregate_version) == (i, "Order", 1)
    again = order.create_event(OrderPlaced, customer_id="c", total=1, aggregate_version=7)
    assert (again.aggregate_version, order.version) == (7, 0)


def test_an_event_of_another_aggregate_is_refused():
    order = Order(uuid4())
    for is_new in (True, False):
        with pytest.raises(InvalidEventError, match="not to Order") as refused:
            order.apply_event(placed(), is_new=is_new)
        assert refused.value.field == "aggregate_id"
    assert (order.version, order.state) == (0, None)


def test_an_event_of_another_version_is_refused_unless_versions_are_unchecked():
    class Lenient(Order):
        validate_versions = False

    order, lenient = Order(i := uuid4()), Lenient(i)
    with pytest.raises(InvalidEventError, match="is 2, the next one is 1") as refused:
        order.apply_event(placed(i, aggregate_version=2))
    assert refused.value.field == "aggregate_version"
    assert (order.version, order.state) == (0, None)
    lenient.apply_event(placed(i, aggregate_version=5))
    assert lenient.version == 1


def test_history_makes_state_and_nothing_to_save():
    order = Order(i := uuid4())
    shipped = OrderShipped(aggregate_id=i, tracking_number="t", aggregate_version=2)
    order.load_from_history([placed(i), shipped])
    assert (order.version, order.state.status) == (2, "shipped")
    assert not order.has_uncommitted_events


def test_the_aggregate_type_is_the_class_name_unless_set():
    class Plain(AggregateRoot[int]):
        pass

    class Named(AggregateRoot[int]):
        aggregate_type = "named"

    class Inheriting(Named):
        pass

    class Declarative(DeclarativeAggregate[int]):
        pass

    class OfPlain(Plain):
        pass

    classes = (Plain, Named, Inheriting, Declarative, OfPlain)
    assert [c.aggregate_type for c in classes] == ["Plain", "named", "named", "Declarative", "OfPlain"]


def test_a_class_that_lacks_its_methods_says_which():
    class Empty(AggregateRoot[int]):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty needs _apply\(event\)"):
        Empty(i := uuid4()).apply_event(placed(i))

    class Handling(AggregateRoot[int]):
        @handles
        def _placed(self, event: OrderPlaced) -> None: ...

    with pytest.raises(NotImplementedError, match="Handling needs .* or DeclarativeAggregate as its base"):
        Handling(i).apply_event(placed(i))


def test_a_declarative_aggregate_has_a_method_per_event():
    counter = Counter(uuid4())
    counter.apply_event(counter.create_event(Counted, by=3))
    counter.apply_event(counter.create_event(Counted))
    assert (counter.state, counter.version) == (4, 2)


def test_an_event_without_a_method_changes_nothing_unless_it_is_to_be_an_error():
    counter = Counter(uuid4())
    counter.apply_event(counter.create_event(Doubled))
    assert (counter.state, counter.version) == (0, 1)

    class Strict(Counter):
        unregistered_event_handling = "error"

    strict = Strict(uuid4())
    with pytest.raises(InvalidOptionError, match=r"Strict has no method for Doubled: add one under @handles"):
        strict.apply_event(strict.create_event(Doubled))
    assert strict.version == 0


def test_a_subclass_inherits_and_overrides_methods():
    class Twice(Counter):
        @handles(Counted)
        def _counted_twice(self, event: Counted) -> None:
            self._state = self.current + 2 * event.by

        @handles(Doubled)
        def _doubled(self, event: Doubled) -> None:
            self._state = self.current * 2

    twice, counter = Twice(uuid4()), Counter(uuid4())
    twice.apply_event(twice.create_event(Counted))
    twice.apply_event(twice.create_event(Doubled))
    counter.apply_event(counter.create_event(Counted))
    assert (twice.state, counter.state) == (4, 1)


def test_two_methods_for_one_event_are_refused():
    with pytest.raises(InvalidOptionError, match="one and two both handle Counted"):

        class Torn(DeclarativeAggregate[int]):
            @handles(Counted)
            def one(self, event: Counted) -> None: ...

            @handles(Counted)
            def two(self, event: Counted) -> None: ...


@dataclass
class Tally:
    total: int
    by: dict[UUID, int]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    owner: UUID = Field(alias="ownerId")
    tags: tuple[str, ...] = ()
    counts: dict[int, str] = {}


T = TypeVar("T")


class Middle(AggregateRoot[T], Generic[T]):
    pass


STATES = [
    (int, 5),
    (dict[UUID, int], {uuid4(): 1}),
    (list[str], ["a"]),
    (Tally, Tally(2, {uuid4(): 3})),
    (Strict, Strict(ownerId=uuid4(), tags=("a",), counts={1: "one"})),
]


@pytest.mark.parametrize(("kind", "state"), STATES, ids=["int", "dict", "list", "dataclass", "model"])
@pytest.mark.parametrize("base", [AggregateRoot, DeclarativeAggregate, Middle])
def test_a_state_of_any_type_survives_a_snapshot(kind, state, base):
    class Kept(base[kind]):
        pass

    class Child(Kept):
        pass

    aggregate, restored = Child(i := uuid4()), Child(i)
    aggregate._state = state
    restored._restore_from_snapshot(aggregate._serialize_state(), 4)
    assert restored.state == state
    assert type(restored.state) is type(state)
    assert restored.version == 4


class Hiding(BaseModel):
    a: int = 0
    _rule: str = PrivateAttr("")


class Excluding(BaseModel):
    note: str = Field("x", exclude=True)


class Anything(BaseModel):
    value: dict[str, Any] = {}


class Crossed(BaseModel):
    first: int = Field(alias="second")
    second: int = Field(alias="first")


class Part(BaseModel):
    a: int = 0


class Special(Part):
    b: int = 0


class Parts(BaseModel):
    parts: list[Part] = []


def hiding(rule):
    state = Hiding()
    state._rule = rule
    return state


@pytest.mark.parametrize(
    ("kind", "state", "field", "problem"),
    [
        (Hiding, hiding("no more than three"), "state._rule", "private attribute"),
        (Excluding, Excluding(note="y"), "state.note", "comes back as another str"),
        (Parts, Parts(parts=[Special(b=1)]), "state.parts[0]", "comes back as Part, not as Special"),
        (Parts, Parts().model_copy(update={"parts": [5]}), "state", "could not be read again"),
        (dict, {"ids": uuid4()}, "state.ids", "comes back as str, not as UUID"),
        (Any, (1, 2), "state", "comes back as list, not as tuple"),
        (Anything, Anything(value={"id": UUID(int=1)}), "state.value.id", "comes back as str, not as UUID"),
        (float | str, "1.5", "state", ""),
    ],
)
def test_a_state_that_would_come_back_otherwise_is_refused(kind, state, field, problem):
    class Kept(AggregateRoot[kind]):
        pass

    aggregate = Kept(uuid4())
    aggregate._state = state
    if not problem:
        assert aggregate._serialize_state() == {"value": state}
        return
    with pytest.raises(InvalidEventError, match="without snapshot_store") as refused:
        aggregate._serialize_state()
    assert refused.value.field == field
    assert problem in str(refused.value)


def test_a_state_whose_aliases_are_each_other_s_names_is_not_swapped():
    class Kept(AggregateRoot[Crossed]):
        pass

    aggregate, restored = Kept(i := uuid4()), Kept(i)
    aggregate._state = Crossed(first=1, second=2)
    restored._restore_from_snapshot(aggregate._serialize_state(), 1)
    assert restored.state == aggregate.state


def test_a_class_of_states_that_can_never_come_back_is_told_with_its_repository():
    class Secretive(BaseModel):
        password: SecretStr

    class Kept(AggregateRoot[Secretive]):
        pass

    store = InMemoryEventStore()
    AggregateRepository(store, Kept)
    with pytest.raises(InvalidOptionError, match=r"Secretive\.password is a secret"):
        AggregateRepository(store, Kept, snapshot_store=InMemorySnapshotStore(store))


def test_a_state_that_is_no_json_is_named():
    class Odd(AggregateRoot):
        pass

    odd = Odd(uuid4())
    odd._state = object()
    with pytest.raises(InvalidEventError, match="state: cannot be written as JSON"):
        odd._serialize_state()

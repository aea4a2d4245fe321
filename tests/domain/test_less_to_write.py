"""What can be inferred need not be said; whoever says it all the same is held to it."""

from typing import Generic, TypedDict, TypeVar
from uuid import uuid4

import pytest
from pydantic import BaseModel, Field
from support import orders

from esource import (
    AggregateRepository,
    AggregateRoot,
    DeclarativeAggregate,
    DomainEvent,
    InvalidEventError,
    InvalidOptionError,
    handles,
    register_event,
)


@register_event
class LampBought(DomainEvent):
    watts: int


@register_event
class LampDimmed(DomainEvent):
    by: int = 1


class LampState(BaseModel):
    watts: int = 0
    dimmed: int = 0


class Lamp(DeclarativeAggregate[LampState]):
    @handles
    def _bought(self, event: LampBought) -> None:
        self.current.watts = event.watts

    @handles
    def _dimmed(self, event: "LampDimmed") -> None:
        self.current.dimmed += event.by

    def buy(self, watts: int) -> None:
        self.apply_event(LampBought(watts=watts))

    def dim(self) -> None:
        self.apply_event(LampDimmed())


class Recorder:
    def __init__(self):
        self.events = []

    async def publish(self, events):
        self.events += events


async def test_the_short_form_is_stored_and_loaded_whole(store):
    told = Recorder()
    lamps = AggregateRepository(store, Lamp, event_publisher=told)
    lamp = lamps.create_new(uuid4())
    lamp.buy(40)
    lamp.dim()
    lamp.dim()
    await lamps.save(lamp)

    loaded = await lamps.load(lamp.aggregate_id)
    assert (loaded.state, loaded.version) == (LampState(watts=40, dimmed=2), 3)
    stored = (await store.get_events(lamp.aggregate_id, "Lamp")).events
    assert stored == told.events
    assert [(event.aggregate_id, event.aggregate_type, event.aggregate_version) for event in stored] == [
        (lamp.aggregate_id, "Lamp", version) for version in (1, 2, 3)
    ]


async def test_an_event_that_names_no_stream_belongs_to_the_one_it_is_appended_to(store):
    lamp_id = uuid4()
    await store.append_events(lamp_id, "Lamp", [LampBought(watts=5), LampDimmed()])
    stream = await store.get_events(lamp_id)
    assert [
        (event.aggregate_id, event.aggregate_type, event.aggregate_version) for event in stream.events
    ] == [
        (lamp_id, "Lamp", 1),
        (lamp_id, "Lamp", 2),
    ]


async def test_the_same_event_without_a_stream_appended_again_is_found_to_be_stored(store):
    lamp_id, event = uuid4(), LampDimmed()
    first = await store.append_events(lamp_id, "Lamp", [event])
    again = await store.append_events(lamp_id, "Lamp", [event])
    assert again.idempotent
    assert again.global_position == first.global_position


def test_what_an_event_says_itself_is_kept_and_checked():
    lamp = Lamp(uuid4())
    said = LampDimmed(aggregate_id=lamp.aggregate_id, aggregate_type="Lamp", aggregate_version=1)
    lamp.apply_event(said)
    assert lamp.uncommitted_events[0] is said
    with pytest.raises(InvalidEventError, match="aggregate_version: is 1, the next one is 2"):
        lamp.apply_event(said)
    with pytest.raises(InvalidEventError, match="aggregate_id: the event belongs to"):
        lamp.apply_event(LampDimmed(aggregate_id=uuid4()))


def test_what_is_filled_in_changes_no_more_than_that():
    lamp, event = Lamp(uuid4()), LampDimmed(by=3, actor_id="me")
    lamp.apply_event(event)
    (recorded,) = lamp.uncommitted_events
    own = {"aggregate_id", "aggregate_type", "aggregate_version"}
    assert recorded.model_dump(exclude=own) == event.model_dump(exclude=own)
    assert recorded == lamp.create_event(LampDimmed, by=3, actor_id="me", aggregate_version=1).model_copy(
        update={name: getattr(event, name) for name in ("event_id", "occurred_at", "correlation_id")}
    )


def test_the_event_of_a_method_is_found_in_its_signature_or_given():
    assert Lamp._handlers == {LampBought: "_bought", LampDimmed: "_dimmed"}

    class Local(LampDimmed):
        pass

    class Elsewhere(DeclarativeAggregate[LampState]):
        @handles
        def _placed(self, event: "orders.OrderPlaced") -> None: ...

    assert Elsewhere._handlers == {orders.OrderPlaced: "_placed"}

    with pytest.raises(InvalidOptionError, match=r"@handles\(ItsClass\)"):

        class Wrong(DeclarativeAggregate[LampState]):
            @handles
            def _local(self, event: "Local") -> None: ...  # nobody can look it up in here


class Bounds(TypedDict, total=False):
    low: int


@pytest.mark.parametrize(
    ("state_type", "made"), [(LampState, LampState()), (int, 0), (list[int], []), (Bounds, {}), (str, "")]
)
def test_the_first_state_is_what_its_class_makes_of_nothing(state_type, made):
    class Thing(AggregateRoot[state_type]):
        pass

    class Inheriting(Thing):
        pass

    for thing in (Thing(uuid4()), Inheriting(uuid4())):
        assert thing.current == made
        assert thing.state is None


State = TypeVar("State")


class Kept(AggregateRoot[State], Generic[State]):
    """Leaves it to the classes below it what its state is."""


def test_a_state_that_a_base_class_leaves_open_is_found_below_it_or_is_to_be_said():
    class Known(Kept[LampState]):
        pass

    class Unknown(Kept):
        pass

    assert Known(uuid4()).current == LampState()
    with pytest.raises(InvalidOptionError, match=r"Unknown has no state to begin with.*_get_initial_state"):
        Unknown(uuid4()).current


def test_a_field_is_given_by_its_alias_and_another_name_is_refused():
    class Painted(DomainEvent):
        colour: str = Field(alias="color")

    class Wall(AggregateRoot[LampState]):
        pass

    assert Wall(uuid4()).create_event(Painted, color="red").colour == "red"
    with pytest.raises(InvalidEventError, match="couleur.*is no field of Painted"):
        Wall(uuid4()).create_event(Painted, color="red", couleur="rouge")


def test_what_a_method_changes_in_the_first_state_is_kept():
    lamp = Lamp(uuid4())
    lamp.current  # as a command does that looks first
    lamp.buy(60)
    assert lamp.state == LampState(watts=60)


def test_looking_at_the_first_state_shares_it_with_no_other_aggregate():
    one, other = Lamp(uuid4()), Lamp(uuid4())
    one.buy(60)
    assert other.current == LampState()

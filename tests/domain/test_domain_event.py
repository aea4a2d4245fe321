import asyncio
import copy
import pickle
from datetime import datetime, timedelta, timezone
from typing import Annotated, ClassVar
from uuid import UUID, uuid4

import pytest
from pydantic import Field, PrivateAttr, ValidationError
from support.orders import OrderPlaced, placed

from esource import DomainEvent, InvalidEventError, InvalidOptionError, correlated
from esource.domain.events import uuid7


class Parcel(DomainEvent):
    aggregate_type: str = "Parcel"


class ParcelSent(Parcel):
    weight: int = 1


class Renamed(Parcel):
    event_type: str = "parcel.renamed"


class StillRenamed(Renamed):
    event_type: str = "parcel.still-renamed"


class NotRenamed(Renamed):
    pass


def test_the_event_type_is_the_class_name_unless_declared():
    assert Parcel(aggregate_id=uuid4()).event_type == "Parcel"
    assert Renamed(aggregate_id=uuid4()).event_type == "parcel.renamed"


def test_a_subclass_has_an_event_type_of_its_own():
    assert ParcelSent(aggregate_id=uuid4()).event_type == "ParcelSent"
    assert StillRenamed(aggregate_id=uuid4()).event_type == "parcel.still-renamed"
    assert NotRenamed(aggregate_id=uuid4()).event_type == "NotRenamed"


def test_a_subclass_inherits_fields_and_defaults():
    event = ParcelSent(aggregate_id=uuid4(), weight=3)
    assert (event.aggregate_type, event.weight) == ("Parcel", 3)


def test_an_event_is_filled_in_and_frozen():
    event = placed()
    assert event.event_id.version == 7
    assert event.correlation_id == event.event_id  # it is its own first cause
    assert (event.aggregate_version, event.event_version) == (1, 1)
    assert event.metadata == {}
    assert event.tenant_id is event.actor_id is event.causation_id is None
    assert event.occurred_at.utcoffset() == timedelta(0)
    with pytest.raises(ValidationError):
        event.total = 2.0


def test_two_events_share_no_metadata():
    assert placed().metadata is not placed().metadata


def test_ids_sort_by_their_time_of_creation(monkeypatch):
    moments = iter([1_700_000_000_000_000_000 + step * 500 for step in range(2000)])
    monkeypatch.setattr("esource.domain.events.time.time_ns", lambda: next(moments))
    ids = [uuid7() for _ in range(2000)]
    assert ids == sorted(ids)
    assert [str(i) for i in ids] == sorted(str(i) for i in ids)
    assert len(set(ids)) == 2000
    assert {(i.version, i.variant) for i in ids} == {(7, "specified in RFC 4122")}


def test_an_id_carries_its_milliseconds(monkeypatch):
    monkeypatch.setattr("esource.domain.events.time.time_ns", lambda: 1_700_000_000_123_999_999)
    assert uuid7().int >> 80 == 1_700_000_000_123


def test_an_id_is_a_uuid_like_any_other():
    made = uuid7()
    other = UUID(int=made.int)
    assert type(made) is UUID
    assert (made, hash(made), str(made), made.is_safe) == (other, hash(other), str(other), other.is_safe)
    assert made == pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == UUID(str(made))
    with pytest.raises(TypeError, match="immutable"):
        made.int = 1


def test_a_moment_without_a_time_zone_is_refused():
    with pytest.raises(InvalidEventError, match="occurred_at: has no time zone") as refused:
        placed(occurred_at=datetime(2024, 1, 1))
    assert refused.value.field == "occurred_at"


def test_a_moment_in_another_time_zone_is_kept():
    moment = datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert placed(occurred_at=moment).occurred_at == moment


def test_a_wrong_field_is_a_validation_error():
    with pytest.raises(ValidationError):
        placed(total="much")


def test_copies_leave_the_original_as_it_was():
    cause, event = placed(), placed(metadata={"a": 1})
    caused = event.with_causation(cause)
    assert (caused.causation_id, caused.correlation_id) == (cause.event_id, cause.correlation_id)
    assert caused.is_caused_by(cause)
    assert caused.is_correlated_with(cause)
    assert not event.is_caused_by(cause)
    assert not event.is_correlated_with(cause)

    assert event.with_metadata(b=2).metadata == {"a": 1, "b": 2}
    assert event.with_metadata(a=2).metadata == {"a": 2}
    assert event.metadata == {"a": 1}

    assert event.with_aggregate_version(7).aggregate_version == 7
    assert event.aggregate_version == 1
    assert isinstance(event.with_aggregate_version(7), OrderPlaced)


def test_a_dict_of_json_values_and_back():
    event = placed(tenant_id=uuid4(), metadata={"tags": ["a", "b"]}).with_causation(placed())
    data = event.to_dict()
    assert data["aggregate_id"] == str(event.aggregate_id)
    assert data["event_type"] == "OrderPlaced"
    assert OrderPlaced.from_dict(data) == event
    assert isinstance(OrderPlaced.from_dict(data).tenant_id, UUID)


def test_a_class_may_have_what_is_no_field_and_narrow_what_is_one():
    class Noted(DomainEvent):
        KIND: ClassVar[str] = "note"
        _seen: int = PrivateAttr(default=0)
        actor_id: Annotated[str, Field(max_length=5)] | None = None

    assert (Noted.KIND, Noted(actor_id="me")._seen) == ("note", 0)
    with pytest.raises(ValidationError):
        Noted(actor_id="somebody")


async def test_events_made_in_a_block_are_correlated_unless_told_otherwise():
    request, other = uuid4(), uuid4()

    async def make():
        return placed()

    with correlated(request):
        assert placed().correlation_id == request
        assert placed(correlation_id=other).correlation_id == other
        assert (await asyncio.create_task(make())).correlation_id == request
        with correlated(other):
            assert placed().correlation_id == other
        assert placed().correlation_id == request
    event = placed()
    assert event.correlation_id == event.event_id
    with correlated() as new:
        assert isinstance(new, UUID)
        assert placed().correlation_id == placed().correlation_id == new
    with pytest.raises(InvalidOptionError), correlated("abc"):
        pass

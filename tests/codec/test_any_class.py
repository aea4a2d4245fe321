"""Whatever class of events somebody writes, an event of it comes back equal or is refused before it is written."""

import json
import os
import warnings
from collections import Counter
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from support.any_class import canonical, classes_with_values, made
from support.effort import examples

from esource import DomainEvent, EventRegistry
from esource.checks import json_text
from esource.codec.codec import Codec
from esource.domain.states import StateForm
from esource.errors import EventSourceError
from esource.moments import to_iso

STREAM = uuid4()
counts = Counter()


def row_of(encoded, event):
    return (
        *(1, str(encoded.event_id), str(event.aggregate_id), event.aggregate_type, encoded.event_type),
        *(
            None if encoded.tenant_id is None else str(encoded.tenant_id),
            encoded.actor_id,
            event.aggregate_version,
        ),
        *(to_iso(encoded.timestamp), encoded.payload, to_iso(encoded.timestamp)),
    )


@settings(max_examples=examples(100), deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(classes_with_values())
def test_an_event_of_any_class_comes_back_equal_or_is_refused(drawn):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        event = made(*drawn)
    if event is None:
        counts["no event"] += 1
        return
    event = (
        event.model_copy(update={"aggregate_id": STREAM}) if drawn[2] else event.__class__.model_copy(event)
    )
    event.__dict__["aggregate_id"] = STREAM
    registry = EventRegistry()
    try:
        registry.register(type(event))
        codec = Codec(registry, auto_detect_uuid=False)
        encoded = codec.encode(event, "Thing", STREAM)
    except EventSourceError as error:
        counts["refused"] += 1
        counts[str(error)[:90]] += bool(os.environ.get("ESOURCE_SHOW_REFUSED"))
        return
    counts["stored"] += 1
    found = codec.decode(row_of(encoded, event))
    for name, field in type(event).model_fields.items():
        assert canonical(getattr(found, name)) == canonical(getattr(event, name)), (field, encoded.payload)
    assert canonical(found) == canonical(event)


@settings(max_examples=examples(50), deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(classes_with_values(BaseModel) | classes_with_values(DomainEvent))
def test_a_state_of_any_class_comes_back_equal_or_is_refused(drawn):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = made(*drawn)
    if state is None:
        return
    form = StateForm(type(state))
    try:
        form.require_possible()
        written = json_text("state", form.written(state))
    except EventSourceError:
        return
    found = form.read(json.loads(written))
    for name, field in type(state).model_fields.items():
        assert canonical(getattr(found, name)) == canonical(getattr(state, name)), (field, written)
    assert canonical(found) == canonical(state)


@settings(
    max_examples=examples(1), deadline=None, database=None, suppress_health_check=list(HealthCheck)
)  # on each database
@given(st.lists(classes_with_values(), min_size=10, max_size=30))
async def test_events_of_any_classes_come_back_equal_from_the_database(store, several):
    store.codec.registry = EventRegistry()
    kept = []
    for number, drawn in enumerate(several):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            event = made(*drawn)
        if event is None:
            continue
        name = f"Drawn{number}"
        event = event.model_copy(update={"aggregate_id": uuid4(), "event_type": name})
        try:
            store.codec.registry.register(type(event), name)
            await store.append_events(event.aggregate_id, "Thing", [event])
        except EventSourceError:
            continue
        kept.append(event)
    for event in kept:
        (found,) = (await store.get_events(event.aggregate_id, "Thing")).events
        assert canonical(found) == canonical(event)

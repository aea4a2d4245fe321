"""Whatever class of events somebody writes, an event of it comes back equal or is refused before it is written."""

import os
import warnings
from collections import Counter
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from support.any_class import canonical, classes_with_values, made
from support.effort import examples

from esource import EventRegistry
from esource.codec.codec import Codec
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

"""What a class of events may declare: nothing that takes the place of what every event has."""

from __future__ import annotations

from inspect import get_annotations
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from typing_inspection.introspection import get_literal_values, is_union_origin
from typing_inspection.typing_objects import is_annotated, is_literal, is_newtype

from esource.errors import InvalidOptionError


def check_declaration(event_class: type[BaseModel], every_event: type[BaseModel]) -> None:
    """Look at the fields that a new class of events declares itself. No I/O; once for each class.

    Raises:
        InvalidOptionError: one has the name of a field of every event and a type that does not fit it. Of one
            that has the name of a method, pydantic warns.
    """
    for name in get_annotations(event_class):
        if name in event_class.__private_attributes__ or name in event_class.__class_vars__:
            continue
        if name in every_event.model_fields:
            wanted, found = (
                every_event.model_fields[name].annotation,
                event_class.model_fields[name].annotation,
            )
            if not _fits(found, wanted):
                raise InvalidOptionError(
                    f"{event_class.__name__}.{name}: every event has a field of this name, of another type "
                    f"({_shown(wanted)}, not {_shown(found)}). Call yours something else"
                )


def _fits(found: Any, wanted: Any) -> bool:
    """Whether values of one type can be values of the other, as far as plain types can tell."""
    allowed = tuple(_plain(wanted))
    return all(issubclass(kind, allowed) for kind in _plain(found))


def _plain(annotation: Any) -> list[type]:
    """The classes that an annotation consists of; what is no class is left out."""
    origin = get_origin(annotation)
    if is_union_origin(origin):
        return [kind for part in get_args(annotation) for kind in _plain(part)]
    if is_annotated(origin):
        return _plain(get_args(annotation)[0])
    if is_literal(origin):
        return [type(value) for value in get_literal_values(annotation)]
    kind = annotation.__supertype__ if is_newtype(annotation) else origin or annotation
    return [kind] if isinstance(kind, type) else []


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)

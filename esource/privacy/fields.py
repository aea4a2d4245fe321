"""Fields of events that say something about a person: how they are marked, sealed and opened.

A payload keeps its personal fields in one member beside the others, one entry for each subject::

    {"amount": 5, "esource:sealed": [{"form": 1, "subject": "…", "data": "…", "erased": {"email": "[erased]"}}]}

``data`` is a JSON object of the fields, sealed with the subject's key and bound to the event's id, the subject
and the form; ``erased`` is what stands in for them when that key is destroyed, as JSON, chosen when the event
was written. A payload can therefore be opened without the event's class, and before its upcasters run: they
see the fields in the form they were written in, or placeholders of that form.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol, get_args, get_origin
from uuid import UUID

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, to_jsonable_python
from typing_inspection.introspection import is_union_origin

from esource.checks import check_text
from esource.domain.core_schemas import PERSONAL, personal_members
from esource.domain.events import DomainEvent
from esource.errors import InvalidEventError, InvalidOptionError
from esource.tables.rows import EncodedEvent

SEALED = "esource:sealed"
"""The member of a payload that holds the personal fields. No field's name has a colon."""

MARK = f'"{SEALED}":'
"""What the text of such a payload has in it."""

FORM = 1
"""Of what is sealed; raised if it ever looks otherwise."""

ERASED_TEXT = "[erased]"

COLUMN_FIELDS = {
    "aggregate_id",
    "aggregate_type",
    "aggregate_version",
    "occurred_at",
    *EncodedEvent._fields,
} - {"timestamp", "payload", "tags"}
"""Fields of an event that have columns of their own; the payload holds the rest. A field called ``tags`` is the
application's."""


class _Automatic:
    def __repr__(self) -> str:
        return "automatic"


_AUTOMATIC: Final = _Automatic()


@dataclass(frozen=True, slots=True)
class Personal:
    """Marks a field of an event as personal: it is stored encrypted, under the key of one subject.

    Example:
        >>> class CustomerRegistered(DomainEvent):
        ...     aggregate_type: str = "Customer"
        ...     email: Annotated[str, Personal()]
        ...     born: Annotated[date | None, Personal()] = None
        ...
        >>> class OrderPlaced(DomainEvent):
        ...     aggregate_type: str = "Order"
        ...     customer_id: UUID
        ...     address: Annotated[Address, Personal(subject="customer_id", placeholder=NOWHERE)]

    Args:
        subject: The field with the person's id, which is stored as it is: use one that says nothing by
            itself. A UUID and its text are the same subject, whichever field they stand in.
        placeholder: What is read once the key is destroyed. If left out: None where the field may be None,
            else ``"[erased]"`` where it may be text. A field of another type has to have one.
    """

    subject: str = "aggregate_id"
    placeholder: Any = _AUTOMATIC

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The schema as it would be, with the mark on it: so it is found wherever a class hides it."""
        schema: Any = handler(source)
        marked: CoreSchema = {**schema, "metadata": {**schema.get("metadata", {}), PERSONAL: True}}
        return marked


class Keys(Protocol):
    """Keys at hand, by subject."""

    def __getitem__(self, subject: str) -> bytes | None:
        """The subject's key; None if it was destroyed.

        Raises:
            KeyNotFoundError: the key store has never had one.
        """


class _Erased:
    def __getitem__(self, subject: str) -> None:
        return None


ALL_ERASED: Final[Keys] = _Erased()
"""As if every key were destroyed: what can be read without any."""


class _Group(NamedTuple):
    """The personal fields of one subject."""

    subject: str
    names: set[str]
    erased: dict[str, Any]


class PersonalFields(NamedTuple):
    """What is personal in a class of events."""

    groups: tuple[_Group, ...]
    left_out: set[str]
    """What the plain part of the payload does not hold: these fields, and those with columns."""


@lru_cache(maxsize=4096)
def personal_fields(event_class: type[DomainEvent]) -> PersonalFields | None:
    """What is personal in a class of events; None if nothing is.

    Raises:
        InvalidOptionError: a field is marked in a way that cannot be kept.
    """
    marked: dict[str, _Group] = {}
    inside = personal_members(event_class)
    for name, field in event_class.model_fields.items():
        marks = [mark for mark in field.metadata if isinstance(mark, Personal)]
        where = f"{event_class.__name__}.{name}"
        if not marks:
            if name in inside:
                raise InvalidOptionError(
                    f"{where} has Personal() inside of its type: mark the whole field, as in "
                    "Annotated[str | None, Personal()]"
                )
            continue
        mark = marks[-1]
        if name in COLUMN_FIELDS or name == "event_version":
            raise InvalidOptionError(f"{where} cannot be personal: the store has to read it")
        group = marked.setdefault(mark.subject, _Group(mark.subject, set(), {}))
        group.names.add(name)
        group.erased[name] = _placeholder(where, mark, field.annotation)
    for group in marked.values():
        if group.subject not in event_class.model_fields or any(
            group.subject in other.names for other in marked.values()
        ):
            raise InvalidOptionError(
                f"{event_class.__name__}: Personal(subject={group.subject!r}) must name a field of the event "
                "that is not personal itself"
            )
    if not marked:
        return None
    names = {name for group in marked.values() for name in group.names}
    return PersonalFields(tuple(marked[name] for name in sorted(marked)), {*COLUMN_FIELDS, *names})


def _placeholder(where: str, mark: Personal, annotation: Any) -> Any:
    if mark.placeholder is not _AUTOMATIC:
        return to_jsonable_python(mark.placeholder)
    accepted = get_args(annotation) if is_union_origin(get_origin(annotation)) else (annotation,)
    if type(None) in accepted or None in accepted or Any in accepted:
        return None
    if str in accepted:
        return ERASED_TEXT
    raise InvalidOptionError(
        f"{where} is personal, and neither None nor text: say what is read once it is erased, with "
        "Personal(placeholder=...)"
    )


def personal_types(events: Iterable[object]) -> set[str]:
    """The names of the classes of these events that have personal fields."""
    kinds = {type(event) for event in events}
    return {
        kind.__name__ for kind in kinds if issubclass(kind, DomainEvent) and personal_fields(kind) is not None
    }


def subject_name(subject: object) -> str:
    """A subject's one name: the text of its id.

    Raises:
        InvalidOptionError: it is neither a UUID, an integer, nor a text of 1 to 255 characters.
    """
    if isinstance(subject, UUID) or type(subject) is int:
        return str(subject)
    if not isinstance(subject, str) or not subject:
        raise InvalidOptionError(f"a subject is a UUID, an int or a text, not {subject!r}")
    try:
        return check_text("subject", subject)
    except InvalidEventError as error:
        raise InvalidOptionError(str(error)) from error

"""Tags of events: what rules that span streams select by.

A tag is a text such as ``course:c1``. The events that a field marks carry it by themselves; an append may give its events
more. Tags are stored as they are, readable by everybody who reads the log: nothing personal belongs into one.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from typing import Any, ClassVar
from uuid import UUID

from pydantic import BaseModel

from esource.checks import NAME_LENGTH, check_name, check_text, shown
from esource.domain.core_schemas import personal_members
from esource.errors import InvalidEventError, InvalidOptionError


class Tag:
    """Marks a field of an event: its value becomes a tag of the event, ``<name>:<value>``.

    The value is a text, an integer, a UUID, or an enum's member with such a value; None gives no tag; a list, tuple or set of
    them gives one tag for each.

    Example:
        >>> class StudentSubscribed(DomainEvent):
        ...     course_id: Annotated[str, Tag("course")]
        ...     student_id: Annotated[str, Tag("student")]
        >>> Tag("course").of("c1")
        'course:c1'

    Args:
        name: What comes before the colon; it has none itself.

    Raises:
        InvalidOptionError: the name is no text, is empty, or has a colon.
    """

    __slots__ = ("name",)

    are_used: ClassVar[bool] = False
    """Whether this program has made any: where it has not, no event is looked at for its tags."""

    def __init__(self, name: str) -> None:
        self.name = _checked("the name of a Tag", name)
        if ":" in name:
            raise InvalidOptionError(f"the name of a Tag has no colon: {name!r}")
        Tag.are_used = True

    def of(self, value: object) -> str:
        """The tag of a value, as an event with that value in the marked field has it.

        Raises:
            InvalidOptionError: no tag can be made of it.
        """
        try:
            return _tag_of(self.name, self.name, value)
        except InvalidEventError as error:
            raise InvalidOptionError(str(error)) from error

    def __repr__(self) -> str:
        return f"Tag({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tag) and other.name == self.name

    def __hash__(self) -> int:
        return hash((Tag, self.name))


def declared_tags(event: BaseModel) -> frozenset[str]:
    """The tags that the fields of an event give it. No I/O.

    Raises:
        InvalidEventError: the value of a marked field makes no tag.
        InvalidOptionError: the class marks a field that cannot be one.
    """
    fields = tagged_fields(type(event))
    return frozenset(
        [tag for field, name in fields for tag in _tags_of(field, name, event.__dict__.get(field))]
    )


@lru_cache(maxsize=4096)
def tagged_fields(event_class: type[BaseModel]) -> tuple[tuple[str, str], ...]:
    """The fields of a class that give its events tags, each with the tag's name.

    Raises:
        InvalidOptionError: a field is marked that cannot be: it is personal, or the mark is inside of its type.
    """
    found = [
        (field, mark.name)
        for field, info in event_class.model_fields.items()
        for mark in info.metadata
        if isinstance(mark, Tag)
    ]
    for field, info in event_class.model_fields.items():
        if _is_inside(info.annotation):
            raise InvalidOptionError(
                f"{event_class.__name__}.{field} has Tag() inside of its type: mark the whole field, as in "
                "Annotated[str | None, Tag(...)]"
            )
    if found:
        personal = personal_members(event_class)
        for field, name in found:
            if field in personal:
                raise InvalidOptionError(
                    f"{event_class.__name__}.{field} is personal, and a tag ({name}:...) is stored as it is, for everybody to "
                    "read. Tag an id that says nothing by itself"
                )
    return tuple(found)


def given_tags(tags: Iterable[str]) -> frozenset[str]:
    """The tags that a caller gives, if all of them can be stored.

    Raises:
        InvalidOptionError: one cannot, or they are a single text.
    """
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise InvalidOptionError(f'tags must be several texts, as in ["course:c1"], not {shown(tags)}')
    return frozenset([_checked("a tag", tag) for tag in tags])


def _checked(what: str, text: str) -> str:
    try:
        return check_name(what, text) if isinstance(text, str) else check_text(what, text)
    except InvalidEventError as error:
        raise InvalidOptionError(
            f"{error}. A tag is a text of 1 to {NAME_LENGTH} characters, such as 'course:c1'"
        ) from None


def _tags_of(field: str, name: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_tag_of(field, name, each) for each in value]
    return [_tag_of(field, name, value)]


def _tag_of(field: str, name: str, value: object) -> str:
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, (str, int, UUID)) or isinstance(value, bool):
        raise InvalidEventError(
            field,
            f"is {shown(value)}, of which no tag can be made",
            remedy="Tags are made of texts, integers and UUIDs, and of lists of them",
        )
    return check_name(field, f"{name}:{value}")


def _is_inside(annotation: Any) -> bool:
    """Whether a part of a type is marked: pydantic does not hand such a mark on to the field."""
    inner = getattr(annotation, "__args__", ())
    return any(
        any(isinstance(mark, Tag) for mark in getattr(part, "__metadata__", ())) or _is_inside(part)
        for part in inner
    )

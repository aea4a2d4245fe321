"""Tags of events: what rules that span streams select by.

A tag is a text such as ``course:c1``. The events that a field marks carry it by themselves; an append may give its events
more. Tags are stored as they are, readable by everybody who reads the log: nothing personal belongs into one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import is_dataclass
from enum import Enum
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, ClassVar, get_type_hints
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import from_json
from typing_extensions import is_typeddict

from esource.checks import NAME_LENGTH, check_name, check_text, shown
from esource.domain.core_schemas import personal_members
from esource.errors import InvalidEventError, InvalidOptionError

NO_TAGS: frozenset[str] = frozenset()


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
        InvalidOptionError: a field is marked that cannot be: it is personal, the mark is inside of its type, or has no name.
    """
    found: list[tuple[str, str]] = []
    for field, info in event_class.model_fields.items():
        marks, kind = _whole(info.annotation, info.metadata)
        if Tag in marks:
            raise InvalidOptionError(
                f'{event_class.__name__}.{field} is marked with Tag itself: give it a name, as in Annotated[str, Tag("course")]'
            )
        if _is_inside(kind, set()):
            raise InvalidOptionError(
                f"{event_class.__name__}.{field} has Tag() inside of its type: mark the whole field of the event, as in "
                "Annotated[str | None, Tag(...)]"
            )
        found += [(field, mark.name) for mark in marks]
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
    if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable):
        raise InvalidOptionError(f'tags must be several texts, as in ["course:c1"], not {shown(tags)}')
    return frozenset([_checked("a tag", tag) for tag in tags])


def stored_tags(text: str | None) -> frozenset[str]:
    """The tags in the column of an event; none if it is empty.

    Raises:
        ValueError: another program has written something that is no list of texts.
    """
    if text is None:
        return NO_TAGS
    try:
        tags = from_json(text)
    except (ValueError, TypeError) as error:
        raise ValueError("no JSON") from error
    if isinstance(tags, list):
        for tag in tags:
            if not isinstance(tag, str):
                break
        else:
            return frozenset(tags)
    raise ValueError("no list of texts")


def legible_tags(text: str | None) -> frozenset[str]:
    """The same; none, where another program has written what is no list of texts."""
    try:
        return stored_tags(text)
    except ValueError:
        return NO_TAGS


def tags_to_store(tags: Iterable[str]) -> str:
    """What the column of an event holds that has these tags."""
    return (
        f"[{', '.join(map(encode_basestring, sorted(tags)))}]"  # as json.dumps does, in a fifth of the time
    )


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


def _is_mark(mark: Any) -> bool:
    return mark is Tag or isinstance(mark, Tag)


def _whole(kind: Any, metadata: Iterable[Any]) -> tuple[list[Any], Any]:
    """The marks of a whole field, and its type without them. An alias has those of the type that it names."""
    marks = [mark for mark in metadata if _is_mark(mark)]
    while True:
        if hasattr(kind, "__metadata__"):
            marks += [mark for mark in kind.__metadata__ if _is_mark(mark)]
            kind = kind.__origin__
        elif hasattr(kind, "__value__") and not hasattr(kind, "__args__"):
            kind = kind.__value__
        else:
            return marks, kind


def _is_inside(kind: Any, seen: set[Any]) -> bool:
    """Whether a part of a type is marked, or a field of a class in it: pydantic does not hand such a mark on."""
    return any(
        any(map(_is_mark, metadata)) or _is_inside(part, seen) for part, metadata in _parts(kind, seen)
    )


def _parts(kind: Any, seen: set[Any]) -> Iterator[tuple[Any, Iterable[Any]]]:
    """The types that a type is made of, each with its metadata; those of a class or an alias once."""
    for part in getattr(kind, "__args__", ()):
        yield part, getattr(part, "__metadata__", ())
    named = getattr(kind, "__origin__", kind)
    is_alias = hasattr(named, "__value__")
    if not (is_alias or isinstance(named, type)) or named in seen:
        return
    seen.add(named)
    if is_alias:
        yield named.__value__, getattr(named.__value__, "__metadata__", ())
    elif issubclass(named, BaseModel):
        yield from ((info.annotation, info.metadata) for info in named.model_fields.values())
    elif is_dataclass(named) or is_typeddict(named) or hasattr(named, "_fields"):
        with suppress(NameError):  # a name of the function that defines it
            for part in get_type_hints(named, include_extras=True).values():
                yield part, getattr(part, "__metadata__", ())

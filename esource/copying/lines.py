"""A row as one line of JSON, and back.

An event is a CloudEvent (https://cloudevents.io, JSON format 1.0): its payload is the ``data``, its columns are
attributes. A row of another table is ``{"esource": <table>, "row": {...}}``. JSON that is stored goes into the
line as the text it is, and comes out as the same text: a number is never read as a float on the way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Column

from esource.checks import has_many_lists, read_in_pieces, require_readable
from esource.copying.movable import unmovable
from esource.copying.rows import EVENTS, MIRRORED, Relation, Row
from esource.moments import canonical_moment
from esource.tables.rows import AGGREGATE_ID, AGGREGATE_TYPE, CLOUD_EVENT_ATTRIBUTES
from esource.tables.types import Identifier, Json, Timestamp

KIND = "esource"
"""The member that says of a line what it is; a line without it is an event."""

_COLUMNS = {attribute: column for column, attribute in CLOUD_EVENT_ATTRIBUTES.items()}
_NUMBERS = ("global_position", "version")
"""Attributes of CloudEvents are text, or numbers of 32 bits; these may be greater."""

_MIRRORED = {relation.name: relation for relation in MIRRORED}
_SPACE = re.compile(r"[ \t\r\n]*")
# Of a value in braces or brackets only the text is wanted: a dict or list of it would take up to thirty times the
# memory without being used. A fraction stays the text that it is.
_decoder = json.JSONDecoder(object_pairs_hook=bool, parse_float=str, parse_constant=str)
_read = _decoder.raw_decode
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Member(NamedTuple):
    """A member of a JSON object: its value, and the text that stands for it."""

    value: Any
    """A text, an integer, a truth value or None. Of an object or a list, only whether anything is in it."""
    text: str


def members(text: str, start: int = 0) -> dict[str, Member]:
    """The members of the JSON object that a text holds.

    Raises:
        ValueError: it is not a JSON object, or it has a member twice.
    """
    found: dict[str, Member] = {}
    in_pieces = has_many_lists(text, start)
    place = _after(text, start, "{")
    if text.startswith("}", place):
        return _ended(text, place + 1, found)
    while True:
        name, end = _read(text, place)
        if not isinstance(name, str) or name in found:
            raise ValueError(f"a member's name is wrong or comes twice: {name!r:.80}")
        place = _after(text, end, ":")
        if in_pieces and text.startswith(("[", "{"), place):
            end = read_in_pieces(text, _decoder.decode, place)
            value: Any = bool(text[place + 1 : end - 1].strip(" \t\r\n"))
        else:
            value, end = _read(text, place)
        found[name] = Member(bool(value) if type(value) is list else value, text[place:end])
        place = _past_space(text, end)
        if text.startswith("}", place):
            return _ended(text, place + 1, found)
        place = _after(text, place, ",")


def _past_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return place if found is None else found.end()


def _after(text: str, place: int, expected: str) -> int:
    place = _past_space(text, place)
    if not text.startswith(expected, place):
        raise ValueError(f"{expected!r} expected at character {place}, found {text[place : place + 20]!r}")
    return _past_space(text, place + 1)


def _ended(text: str, place: int, found: dict[str, Member]) -> dict[str, Member]:
    if text[place:].strip(" \t\r\n"):
        raise ValueError(f"something follows its end: {text[place : place + 20]!r}")
    return found


def write_line(relation: Relation, row: Row, source: str) -> str:
    """A row as JSON without a line break; ``source`` is the CloudEvents attribute.

    Raises:
        ValueError: the row holds a value that is not an id, a moment or JSON.
    """
    values = {
        name: (value if value is None else _text(relation.table.c[name], value))
        for name, value in zip(relation.columns(with_key=True), row, strict=True)
    }
    if relation is not EVENTS:
        inner = ",".join(f'"{name}":{"null" if text is None else text}' for name, text in values.items())
        return f'{{"{KIND}":"{relation.name}","row":{{{inner}}}}}'
    aggregate_id, aggregate_type = row[AGGREGATE_ID], row[AGGREGATE_TYPE]
    head = {
        "specversion": "1.0",
        "source": source,
        "subject": f"{aggregate_type}/{str(aggregate_id).lower()}",
    }
    attributes = ",".join(
        f'"{attribute}":{values[name]}'
        for name, attribute in CLOUD_EVENT_ATTRIBUTES.items()
        if values[name] is not None
    )
    return f'{_encode(head)[:-1]},"datacontenttype":"application/json",{attributes}}}'


def _text(column: Column[Any], value: Any) -> str:
    """A column's value as JSON."""
    if isinstance(column.type, Json):
        require_readable(value, _decoder.decode)
        # White space between the parts is all that a line break in JSON can be.
        return value.replace("\n", " ").replace("\r", " ") if "\n" in value or "\r" in value else str(value)
    if isinstance(column.type, Timestamp):
        value = canonical_moment(value)
    elif isinstance(column.type, Identifier):
        value = str(value).lower()
    elif column.table is EVENTS.table and column.name in _NUMBERS:
        value = str(value)
    return _encode(value)


def read_line(found: dict[str, Member]) -> tuple[Relation, Row]:
    """The row of a line that `write_line` made, or another program in the same form.

    Raises:
        ValueError: it is not such a line, or no database could hold the row.
    """
    if KIND not in found:
        relation, values = EVENTS, dict(_event_values(found))
    else:
        kind = found[KIND].value
        if kind not in _MIRRORED:
            raise ValueError(f"a line of the kind {kind!r:.80} is unknown")
        relation = _MIRRORED[kind]
        values = {
            name: _value(relation.table.c.get(name), name, member)
            for name, member in members(_required(found, "row").text).items()
        }
    columns = relation.columns(with_key=True)
    unknown = values.keys() - set(columns)
    if unknown:
        raise ValueError(f"{relation.name} has no column {min(unknown)}")
    row = tuple(values.get(name) for name in columns)
    problem = unmovable(relation, row)
    if problem is not None:
        raise ValueError(f"{problem[0]} {problem[1]}")
    return relation, row


def _event_values(found: dict[str, Member]) -> Iterator[tuple[str, Any]]:
    if _required(found, "specversion").value != "1.0":
        raise ValueError(f"CloudEvents {found['specversion'].text:.20} is unknown: 1.0 expected")
    for attribute, member in found.items():
        name = _COLUMNS.get(attribute)
        if name in _NUMBERS:
            yield name, _whole(attribute, member.value)
        elif (attribute == "data" and not member.text.startswith("{")) or member.value == "":
            raise ValueError(f"{attribute} {member.text:.80} is not what an event has there")
        elif name is not None:
            yield name, _value(EVENTS.table.c[name], name, member)
    subject = _required(found, "subject").value
    aggregate_type, _, aggregate_id = str(subject).rpartition("/")
    if not aggregate_type:
        raise ValueError(f"the subject {subject!r:.80} names no stream: <aggregate type>/<id> expected")
    yield "aggregate_type", aggregate_type
    yield "aggregate_id", str(UUID(aggregate_id))


def _required(found: dict[str, Member], name: str) -> Member:
    if name not in found:
        raise ValueError(f"it has no {name!r}")
    return found[name]


def _whole(attribute: str, value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value):
        return int(value)
    if type(value) is int:
        return value
    raise ValueError(f"{attribute} {value!r:.80} is no whole number")


def _value(column: Column[Any] | None, name: str, member: Member) -> Any:
    if column is None or member.value is None:
        return member.value if column is None or not isinstance(column.type, Json) else _null(column, member)
    if isinstance(column.type, Json):
        return member.text
    if isinstance(column.type, Timestamp):
        return canonical_moment(str(member.value))
    if isinstance(column.type, Identifier):
        return str(UUID(str(member.value)))  # one form of several, the one that SQLite is asked for
    return member.value


def _null(column: Column[Any], member: Member) -> str | None:
    return None if column.nullable else member.text

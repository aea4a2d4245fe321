"""Whether what was read back is what was written.

Python's own ``==`` is not enough: for it, True is 1, a subclass may be its base, two moments in the hour that a clock
repeats are never equal, and a class may have no notion of equality at all. Where a class declares a type, a value has
to come back with its own type; where it declares none, as what JSON makes of it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import PurePath
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import AnyUrl, BaseModel, RootModel

from esource.domain.core_schemas import is_personal
from esource.domain.declared import hints, is_open, mentions_untyped, parts_of
from esource.domain.proof import has_whole_minutes


class Difference(NamedTuple):
    """Where a value does not come back, and how."""

    path: str
    problem: str
    remedy: str = "Declare a type that JSON keeps, or a serializer and a validator that fit each other"


class How(Enum):
    """How strict a comparison is."""

    BY_TYPES = "by types"
    """A value without a declared type may come back as what JSON makes of it."""
    LOOSELY = "loosely"
    """Any value may: it stands where no type is declared."""
    STRICTLY = "strictly"
    """No value may, whatever is declared."""


IN_CLEAR = "which has personal fields: in a field of no declared type they would be stored in clear"


def difference(
    path: str, meant: Any, found: Any, *, how: How = How.BY_TYPES, sealed: Container[str] = ()
) -> Difference | None:
    """The first place where what was read back is not what was meant; None if there is none.

    Args:
        path: The name of the value.
        meant: What was to be written.
        found: What was read.
        how: How strict to be.
        sealed: The fields that are sealed as a whole, whatever they hold.
    """
    for found_difference in _differences(path, meant, found, how):
        name = found_difference.path.partition(".")[0].partition("[")[0]
        if not (found_difference.problem.endswith(IN_CLEAR) and name in sealed):
            return found_difference
    return None


def _differences(path: str, meant: Any, found: Any, how: How, declared: Any = None) -> Iterator[Difference]:
    """The differences; ``declared`` is the type, where that is known and counts."""
    kind = type(meant)
    parts = None
    if declared is not None and how is How.BY_TYPES and mentions_untyped(declared):
        how, parts = _as_declared(declared, meant, found)
    if kind is not type(found):
        yield from _of_other_types(path, meant, found, how)
    elif isinstance(meant, BaseModel):
        yield from _of_models(path, meant, found, how)
    elif dataclasses.is_dataclass(kind):
        yield from _of_dataclasses(path, meant, found, how)
    elif isinstance(meant, dict):
        yield from _of_dicts(path, meant, found, how, parts)
    elif isinstance(meant, (list, tuple, deque)):
        yield from _of_sequences(path, meant, found, how, parts)
    elif isinstance(meant, (set, frozenset)):
        if meant != found or sorted(map(_name_of_type, meant)) != sorted(map(_name_of_type, found)):
            yield Difference(path, f"comes back as {_shown(found)} with other items")
    elif not _is_same(meant, found):
        yield Difference(path, f"comes back as another {_name_of_type(meant)}")


def _as_declared(declared: Any, meant: Any, found: Any) -> tuple[How, Callable[[Any], Any] | None]:
    """How to compare a value whose type leaves something of it open, and the types of what it is made of, if they are
    known. A dict of anything has to be a dict: what is open is what it holds."""
    if is_open(declared):
        return How.LOOSELY, None
    if type(meant) is not type(found):
        return How.BY_TYPES, None
    parts = parts_of(declared, meant)
    return (How.LOOSELY if parts is None else How.BY_TYPES), parts


def _of_other_types(path: str, meant: Any, found: Any, how: How) -> Iterator[Difference]:
    if how is How.LOOSELY:
        yield from _from_json(path, meant, found)
    elif isinstance(meant, BaseModel) and isinstance(found, BaseModel):
        yield Difference(
            path,
            f"comes back as {_shown(found)}, not as {_shown(meant)}",
            f"Declare {type(meant).__name__}, or a union of the classes that it may hold",
        )
    elif not _is_as_plain(meant, found):
        yield Difference(path, f"comes back as {_shown(found)}, not as {_shown(meant)}")


def _of_dataclasses(path: str, meant: Any, found: Any, how: How) -> Iterator[Difference]:
    kind: Any = type(meant)
    for field in dataclasses.fields(kind):
        value, again = getattr(meant, field.name, None), getattr(found, field.name, None)
        yield from _differences(f"{path}.{field.name}", value, again, how, _annotations(kind).get(field.name))


def _of_models(path: str, meant: BaseModel, found: BaseModel, how: How) -> Iterator[Difference]:
    kind = type(meant)
    inner = f"{path}." if path else ""
    fields = kind.model_fields
    for name in fields:
        if name not in meant.__dict__:
            yield Difference(f"{inner}{name}", "is missing: the object was made without it")
        else:
            value, again = meant.__dict__[name], found.__dict__.get(name)
            yield from _differences(f"{inner}{name}", value, again, how, _annotations(kind).get(name))
    for name in meant.__dict__:
        if name not in fields and not hasattr(kind, name):
            yield Difference(
                f"{inner}{name}", f"is no field of {kind.__name__}, and would not be written", "Declare it"
            )
    extras = How.STRICTLY if how is How.STRICTLY else How.LOOSELY
    if meant.__pydantic_extra__ or found.__pydantic_extra__:
        yield from _of_dicts(path, meant.__pydantic_extra__ or {}, found.__pydantic_extra__ or {}, extras)
    if meant.__pydantic_private__ or found.__pydantic_private__:
        hidden, seen = meant.__pydantic_private__ or {}, found.__pydantic_private__ or {}
        for name in hidden.keys() | seen.keys():
            if name not in hidden or name not in seen:
                yield Difference(
                    f"{inner}{name}", "is a private attribute, which is not written", "Make it a field"
                )
            else:
                for _ in _differences(f"{inner}{name}", hidden[name], seen[name], How.STRICTLY):
                    yield Difference(
                        f"{inner}{name}", "is a private attribute, which is not written", "Make it a field"
                    )


def _of_dicts(
    path: str,
    meant: dict[Any, Any],
    found: dict[Any, Any],
    how: How,
    parts: Callable[[Any], Any] | None = None,
) -> Iterator[Difference]:
    inner = f"{path}." if path else ""
    if how is How.LOOSELY and len(meant) == len(found):  # JSON's keys are text, in the same order
        for (key, value), (found_key, found_value) in zip(meant.items(), found.items(), strict=True):
            if key != found_key and not (type(found_key) is str and type(key) in _KEYS):
                yield Difference(f"{inner}{key}", f"has a key that comes back as {_shown(found_key)}")
            yield from _differences(f"{inner}{key}", value, found_value, How.LOOSELY)
        return
    kinds = {key: type(key) for key in found}
    for key, value in meant.items():
        if key not in found or (kinds[key] is not type(key) and not isinstance(key, str)):
            yield Difference(f"{inner}{key}", "has a key that does not come back")
        else:
            yield from _differences(f"{inner}{key}", value, found[key], how, parts and parts(key))
    if len(found) != len(meant):
        yield Difference(path, f"comes back with {len(found)} members, not with {len(meant)}")


def _of_sequences(
    path: str, meant: Any, found: Any, how: How, parts: Callable[[Any], Any] | None = None
) -> Iterator[Difference]:
    if len(meant) != len(found):
        yield Difference(path, f"comes back with {len(found)} items, not with {len(meant)}")
    for index, (item, again) in enumerate(zip(meant, found, strict=False)):
        yield from _differences(f"{path}[{index}]", item, again, how, parts and parts(index))


def _is_as_plain(meant: Any, found: Any) -> bool:
    """Whether a text or a number of a class of its own comes back as an equal one of the plain class."""
    kind = type(found)
    if kind in (str, int, float) and not isinstance(meant, (bool, Enum)):
        return isinstance(meant, kind) and bool(meant == found)
    if isinstance(meant, dict):
        return kind is dict and bool(meant == found)
    return (
        isinstance(meant, (PurePath, datetime))
        and isinstance(found, type(meant).__mro__[1])
        and meant == found
    )


def _is_same(meant: Any, found: Any) -> bool:
    """Whether two values of one type are equal."""
    if isinstance(meant, datetime):
        if (meant.utcoffset() is None) != (found.utcoffset() is None):
            return False
        if meant.utcoffset() is not None:  # in the hour that a clock repeats, == is false for equal moments
            return _naive(meant) == _naive(found)
        return bool(meant.replace(fold=0) == found.replace(fold=0))
    if isinstance(meant, Decimal) and meant.is_nan():
        return str(meant) == str(found)
    if meant == found:
        return True
    if getattr(type(meant), "__eq__", None) is getattr(object, "__eq__", None) and hasattr(meant, "__dict__"):
        return not any(_differences("", meant.__dict__, found.__dict__, How.STRICTLY))
    return False


def _naive(moment: datetime) -> datetime:
    """A moment in UTC, without saying so."""
    return moment.replace(tzinfo=None) - (moment.utcoffset() or timedelta(0))


_TEXTS = (
    *(str, bytes, bytearray, UUID, Decimal, date, datetime, time, timedelta, PurePath, AnyUrl, re.Pattern),
    *(IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network),
)
_KEYS = frozenset({int, float, bool, type(None), UUID, date, datetime, time, timedelta, Decimal})


def _from_json(path: str, meant: Any, found: Any) -> Iterator[Difference]:  # noqa: C901 - one case for each kind
    """Whether a JSON value is what a value without a declared type becomes: nothing may be left out of it."""
    if _has_marks(meant):
        yield Difference(path, f"is {_shown(meant)}, {IN_CLEAR}", "Mark the whole field with Personal()")
    if isinstance(meant, Enum):
        yield from _differences(path, meant.value, found, How.LOOSELY)
    elif isinstance(meant, RootModel):
        yield from _differences(path, meant.root, found, How.LOOSELY)
    elif isinstance(meant, BaseModel) and meant.__pydantic_private__:
        yield Difference(path, f"is {_shown(meant)}, whose private attributes are not written")
    elif isinstance(meant, BaseModel) and isinstance(found, dict):
        members = {name: meant.__dict__.get(name) for name in type(meant).model_fields}
        yield from _of_dicts(path, members | (meant.__pydantic_extra__ or {}), found, How.LOOSELY)
    elif dataclasses.is_dataclass(meant) and isinstance(found, dict):
        members = {field.name: getattr(meant, field.name, None) for field in dataclasses.fields(meant)}
        yield from _of_dicts(path, members, found, How.LOOSELY)
    elif isinstance(meant, Mapping) and isinstance(found, dict):
        yield from _of_dicts(path, dict(meant), found, How.LOOSELY)
    elif isinstance(meant, (list, tuple, deque, set, frozenset)) and isinstance(found, list):
        yield from _of_sequences(path, meant, found, How.LOOSELY)
    elif isinstance(meant, (datetime, time)) and not has_whole_minutes(meant):
        yield Difference(path, "has an offset with seconds, which would not be written")
    elif not (isinstance(meant, _TEXTS) and isinstance(found, str)) and not _is_as_plain(meant, found):
        yield Difference(path, f"comes back as {_shown(found)}, not as {_shown(meant)}")


def _has_marks(value: Any) -> bool:
    kind: Any = type(value)
    has_fields = isinstance(value, BaseModel) or dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")
    return has_fields and is_personal(kind)


@lru_cache(maxsize=4096)
def _annotations(kind: Any) -> dict[str, Any]:
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return hints(kind)


def _name_of_type(value: Any) -> str:
    return type(value).__qualname__


def _shown(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def same_payload(stored: str, new: str) -> bool:
    """Whether two payloads say the same, whatever their spacing and key order; true is not 1, and 1 is not 1.0."""
    return stored == new or difference("", json.loads(stored), json.loads(new)) is None

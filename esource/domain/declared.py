"""What a declared type says of a value, and which types it declares for what the value is made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints, is_typeddict

from typing_inspection.introspection import is_union_origin
from typing_inspection.typing_objects import is_annotated


def is_open(annotation: Any) -> bool:
    """Whether a value of any type at all can stand here."""
    if annotation in (Any, object) or isinstance(annotation, TypeVar):
        return True
    origin = get_origin(annotation)
    return (is_union_origin(origin) or is_annotated(origin)) and any(map(is_open, get_args(annotation)))


def mentions_untyped(annotation: Any) -> bool:
    """Whether a type, or one that it is made of, leaves open what its values are."""
    if annotation in (Any, object, dict, list, tuple, set, frozenset) or isinstance(annotation, TypeVar):
        return True
    kind = get_origin(annotation) or annotation
    if is_typeddict(kind) or _is_named_tuple(kind):
        return any(map(mentions_untyped, hints(kind).values()))
    parts = (getattr(annotation, "__value__", None), *get_args(annotation))  # the first of a `type` statement
    return any(mentions_untyped(part) for part in parts if part is not None)


def parts_of(annotation: Any, value: Any) -> Callable[[Any], Any] | None:
    """The declared type of each item, by its place, or of each member, by its key; None if the type leaves open what
    there may be at all, or which of several types it is.

    Args:
        annotation: A type that a value has, or of which one member of a union has.
        value: It.
    """
    annotation = _without_choice(annotation, value)
    kind, types = get_origin(annotation) or annotation, get_args(annotation)
    if is_typeddict(kind) or _is_named_tuple(kind):
        found = hints(kind)
        return (lambda index: found[kind._fields[index]]) if _is_named_tuple(kind) else found.get
    if not (isinstance(kind, type) and types):
        return None
    if kind is tuple and types[-1] is not Ellipsis:
        return types.__getitem__ if len(types) == len(value) else None
    if issubclass(kind, Mapping):
        return None if mentions_untyped(types[0]) else lambda key: types[1]
    return (lambda index: types[0]) if issubclass(kind, Collection) else None


def _without_choice(annotation: Any, value: Any) -> Any:
    """The type that a value has, of those in a union; without what stands around it."""
    origin, types = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__value__"):  # of a `type` statement
        return _without_choice(annotation.__value__, value)
    if is_annotated(origin):
        return _without_choice(types[0], value)
    if is_union_origin(origin):
        fitting = [each for each in types if _may_be(each, value)]
        return _without_choice(fitting[0], value) if len(fitting) == 1 else None
    return annotation


def _may_be(annotation: Any, value: Any) -> bool:
    kind = get_origin(annotation) or annotation
    if is_typeddict(kind):
        return isinstance(value, dict)
    return not isinstance(kind, type) or isinstance(value, kind)


def _is_named_tuple(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def hints(kind: Any) -> dict[str, Any]:
    """The annotations of a class, with what `Annotated` says."""
    try:
        return get_type_hints(kind, include_extras=True)
    except (NameError, TypeError):  # a name that only a type checker knows
        return dict(getattr(kind, "__annotations__", {}))

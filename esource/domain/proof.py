"""Which values are sure to come back equal from their JSON, decided once for each class from its core schema.

Pydantic writes and reads most types without a loss: a text, an integer, a UUID, a list of them. Where the declared
type proves it, an event is written without a second look: its fields are compared with the types that they have to
have, which is one comparison for a whole event. Whatever is not proved here (a union, a validator, a serializer, a
constraint that `model_copy` does not check) is read back before it is written.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from functools import lru_cache
from math import isfinite
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from pydantic import BaseModel, TypeAdapter

from esource.domain.core_schemas import Schema
from esource.domain.events import DomainEvent

Check = Callable[[Any], bool]

_REQUIRE_TIME_ZONE: Final = DomainEvent._require_time_zone.__func__  # type: ignore[attr-defined]  # noqa: SLF001


_FACTORIES: Final = [
    field.default_factory for field in DomainEvent.model_fields.values() if field.default_factory
]
"""What makes the values of fields that every event has; they are what the fields declare."""


class UnprovedError(Exception):
    """A type does not prove that its values come back equal; the text says why."""


class Proof(NamedTuple):
    """The values that are sure to come back: those of exactly these types that pass the check."""

    kinds: frozenset[type] | None
    """None for a value without a declared type."""
    check: Check | None = None
    is_settled: bool = False
    """Whether a value that was validated, and that cannot be changed, needs no look: the validator had it."""


class _Shape(Protocol):
    @property
    def unproved(self) -> dict[str, str]: ...

    def holds(self, values: dict[str, Any]) -> bool: ...


def refuse_others(schema: Schema, known: set[str]) -> None:
    """Refuse what a schema says beside what is known to keep values.

    Raises:
        UnprovedError: it says more.
    """
    others = schema.keys() - known
    if others:
        raise UnprovedError(f"it has {', '.join(sorted(others))}")


_BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
    "min_length": lambda value, least: len(value) >= least,
    "max_length": lambda value, most: len(value) <= most,
}


def _within(schema: Schema) -> Check | None:
    """Whether a value is within the bounds that are declared for it: nothing else keeps them after `model_copy`."""
    bounds = [(holds, schema[name]) for name, holds in _BOUNDS.items() if schema.get(name) is not None]
    if not bounds:
        return None
    if len(bounds) == 1:
        [(only, bound)] = bounds
        return lambda value: only(value, bound)
    return lambda value: all(holds(value, bound) for holds, bound in bounds)


def _all(*checks: Check | None) -> Check | None:
    left = [check for check in checks if check is not None]
    if len(left) < 2:
        return left[0] if left else None
    return lambda value: all(check(value) for check in left)


def has_whole_minutes(value: datetime | time) -> bool:
    """Whether the offset of a moment is written whole: pydantic writes hours and minutes."""
    if value.tzinfo is timezone.utc:
        return True
    offset = value.utcoffset()
    return offset is None or not (offset.seconds % 60 or offset.microseconds)


_PLAIN = frozenset({str, int, bool, float, type(None)})


def is_plain(value: Any) -> bool:
    """Whether a value without a declared type is what JSON has: it comes back as it is."""
    try:
        return _is_plain(value)
    except RecursionError:  # it is too deep, or contains itself: that is told where it is written
        return False


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return not value or (all(type(key) is str for key in value) and all(map(_is_plain, value.values())))
    if kind is list:
        return all(map(_is_plain, value))
    return kind in _PLAIN


class Prover:
    """Proofs for the types of one class."""

    def __init__(
        self,
        config: Schema,
        definitions: dict[str, Schema],
        within: tuple[type[BaseModel], ...],
        shape_of: Callable[[type[BaseModel], tuple[type[BaseModel], ...]], _Shape],
    ) -> None:
        self._config = config
        self._shape_of = shape_of
        self._definitions = definitions
        self._within = within
        self._references: list[str] = []

    def prove(self, schema: Schema) -> Proof:
        """What values of this schema come back equal.

        Raises:
            UnprovedError: that depends on more than can be told from the schema.
        """
        kind = schema["type"]
        if kind in _SCALARS:
            return self._scalar(schema, *_SCALARS[kind])
        rule = _RULES.get(kind)
        if rule is None:
            raise UnprovedError(f"{kind!r} is not proved to come back")
        known, prove = rule
        refuse_others(schema, known | _COMMON)
        return prove(self, schema)

    def _scalar(self, schema: Schema, kind: type, known: set[str], check: Check | None) -> Proof:
        refuse_others(schema, known | _COMMON)
        if kind is float and self._config.get("ser_json_inf_nan") != "constants":
            check = isfinite  # else the text shows it
        allows_nan = schema.get("allow_inf_nan", self._config.get("allow_inf_nan"))
        is_settled = check is None or (kind is Decimal and not allows_nan)
        return Proof(frozenset({kind}), _all(check, _within(schema)), is_settled)

    def of_nullable(self, schema: Schema) -> Proof:
        kinds, check, is_settled = self.prove(schema["schema"])
        if kinds is None:
            return Proof(None, check)
        either = None if check is None else lambda value: value is None or check(value)
        return Proof(kinds | {type(None)}, either, is_settled)

    def of_default(self, schema: Schema) -> Proof:
        """Defaults are not validated: what they are is looked at here, what a function makes with each event."""
        proof = self.prove(schema["schema"])
        if "default" in schema:
            return proof if holds(proof, schema["default"]) else proof._replace(is_settled=False)
        return proof if schema["default_factory"] in _FACTORIES else proof._replace(is_settled=False)

    def of_function_after(self, schema: Schema) -> Proof:
        """A validator may change the value once more when it is read; our own does not."""
        if getattr(schema["function"]["function"], "__func__", None) is not _REQUIRE_TIME_ZONE:
            raise UnprovedError("it has a validator")
        return Proof(frozenset({datetime}), None, True)  # the column holds it in UTC, seconds and all

    def of_reference(self, schema: Schema) -> Proof:
        name = schema["schema_ref"]
        if name in self._references or name not in self._definitions:
            raise UnprovedError("its type contains itself")
        self._references.append(name)
        try:
            return self.prove(self._definitions[name])
        finally:
            self._references.pop()

    def of_any(self, schema: Schema) -> Proof:
        return Proof(None, is_plain)

    def of_items(self, schema: Schema) -> Proof:
        """A list, a set, or a tuple of any length: all items are of one schema."""
        of = {"list": list, "set": set, "frozenset": frozenset, "tuple": tuple}[schema["type"]]
        items = schema.get("items_schema")
        if of is tuple:
            if len(schema["items_schema"]) != 1 or schema.get("variadic_item_index") != 0:
                return self._places(schema)
            (items,) = schema["items_schema"]
        each = _each(self.prove(items)) if items is not None else _each(Proof(None, is_plain))
        return Proof(frozenset({of}), _all(each, _within(schema)))

    def _places(self, schema: Schema) -> Proof:
        """A tuple with a type for each place."""
        if schema.get("variadic_item_index") is not None:
            raise UnprovedError("its tuple has an open end")
        proofs = [self.prove(item) for item in schema["items_schema"]]

        def check(value: Any) -> bool:
            return len(value) == len(proofs) and all(map(holds, proofs, value))

        return Proof(frozenset({tuple}), check)

    def of_dict(self, schema: Schema) -> Proof:
        keys = self.prove(schema["keys_schema"]) if "keys_schema" in schema else None
        if keys is None or keys.kinds is None or not keys.kinds <= {str, UUID}:
            raise UnprovedError("the keys of its dict are not declared as text")
        each_key = _each(keys)
        each_value = _each(self.prove(schema["values_schema"])) if "values_schema" in schema else None
        if each_value is None:
            raise UnprovedError("the values of its dict have no type")

        def check(value: Any) -> bool:
            return not value or (each_key(value) and each_value(value.values()))

        return Proof(frozenset({dict}), _all(check, _within(schema)))

    def of_enum(self, schema: Schema) -> Proof:
        if schema.get("missing") is not None or issubclass(schema["cls"], Flag):
            raise UnprovedError("its enum has values beside its members")
        lost = lost_members(schema["cls"])
        if lost:
            raise UnprovedError(f"the value of {lost[0]} does not come back from JSON")
        return Proof(frozenset({schema["cls"]}), None, True)

    def of_literal(self, schema: Schema) -> Proof:
        expected = {(type(value), value) for value in schema["expected"]}
        kinds = frozenset(kind for kind, _ in expected)
        if not kinds <= _PLAIN:
            raise UnprovedError("its Literal has values that are no JSON")
        return Proof(kinds, lambda value: (type(value), value) in expected, True)

    def of_model(self, schema: Schema) -> Proof:
        model = schema["cls"]
        if model in self._within:
            raise UnprovedError("its class contains itself")
        shape = self._shape_of(model, self._within)
        for name, reason in shape.unproved.items():
            raise UnprovedError(f"{model.__name__}{'.' if name else ''}{name}: {reason}")
        return Proof(frozenset({model}), lambda value: shape.holds(value.__dict__))


def holds(proof: Proof, value: Any) -> bool:
    """Whether a value is one of those that are proved to come back."""
    kinds, check, _ = proof
    return (kinds is None or type(value) in kinds) and (check is None or check(value))


def _each(proof: Proof) -> Check:
    """Whether all items satisfy the proof."""
    kinds, check, _ = proof
    if kinds is None:
        return lambda items: all(map(check, items)) if check is not None else True
    if check is None:
        return lambda items: kinds.issuperset(map(type, items))
    return lambda items: kinds.issuperset(map(type, items)) and all(map(check, items))


@lru_cache(maxsize=4096)
def lost_members(kind: type[Enum]) -> list[Enum]:
    """The members of an enum that are another value, or none, when they are read again from JSON."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    return [member for member in kind if not _comes_back(adapter, member)]


def _comes_back(adapter: TypeAdapter[Any], member: Enum) -> bool:
    try:
        return adapter.validate_json(adapter.dump_json(member, warnings=False)) is member
    except ValueError:
        return False


MODEL_KEYS = {
    "cls",
    "config",
    "custom_init",
    "frozen",
    "generic_origin",
    "metadata",
    "ref",
    "revalidate_instances",
    "root_model",
    "schema",
    "strict",
    "type",
}
"""What the schema of a plain model says."""

_COMMON = {"type", "ref", "metadata", "strict"}
_SCALARS: dict[str, tuple[type, set[str], Check | None]] = {
    "none": (type(None), set(), None),
    "bool": (bool, set(), None),
    "int": (int, {"gt", "ge", "lt", "le"}, None),
    "float": (float, {"gt", "ge", "lt", "le", "allow_inf_nan"}, None),
    "str": (str, {"min_length", "max_length"}, None),
    "uuid": (UUID, set(), None),
    "date": (date, set(), None),
    "datetime": (datetime, {"microseconds_precision"}, has_whole_minutes),
    "time": (time, {"microseconds_precision"}, has_whole_minutes),
    "timedelta": (timedelta, {"microseconds_precision"}, None),
    "decimal": (Decimal, {"gt", "ge", "lt", "le", "allow_inf_nan"}, Decimal.is_finite),
    "bytes": (bytes, {"min_length", "max_length"}, None),
}
_LENGTHS = {"min_length", "max_length"}
_RULES: dict[str, tuple[set[str], Callable[[Prover, Schema], Proof]]] = {
    "any": (set(), Prover.of_any),
    "nullable": ({"schema"}, Prover.of_nullable),
    "default": (
        {
            "schema",
            "default",
            "default_factory",
            "default_factory_takes_data",
            "validate_default",
            "copy_default",
        },
        Prover.of_default,
    ),
    "function-after": ({"schema", "function"}, Prover.of_function_after),
    "definition-ref": ({"schema_ref"}, Prover.of_reference),
    "list": ({"items_schema", "fail_fast", *_LENGTHS}, Prover.of_items),
    "set": ({"items_schema", "fail_fast", *_LENGTHS}, Prover.of_items),
    "frozenset": ({"items_schema", "fail_fast", *_LENGTHS}, Prover.of_items),
    "tuple": ({"items_schema", "variadic_item_index", "fail_fast", *_LENGTHS}, Prover.of_items),
    "dict": ({"keys_schema", "values_schema", "fail_fast", *_LENGTHS}, Prover.of_dict),
    "enum": ({"cls", "members", "sub_type", "missing"}, Prover.of_enum),
    "literal": ({"expected"}, Prover.of_literal),
    "model": (MODEL_KEYS, Prover.of_model),
}

"""The shape of a class whose instances are sure to come back equal, and whether an instance has it."""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from esource.domain.core_schemas import Schema, without_definitions
from esource.domain.proof import MODEL_KEYS, Proof, Prover, UnprovedError, refuse_others

SIGNATURES = 256
"""How many combinations of types are remembered for one class: fields that may be None make several."""


_NOTHING = Proof(frozenset())
"""What no value satisfies."""


class Shape:
    """What instances of a class look like that are sure to come back equal."""

    __slots__ = ("_checks", "_kinds", "_known", "_last", "_names", "_open", "unproved")

    def __init__(
        self, proofs: dict[str, Proof], unproved: dict[str, str], *, is_frozen: bool = False
    ) -> None:
        self.unproved: Final = unproved
        """Why instances are read back before they are written, by field; empty if the types prove it."""
        self._names = list(proofs)
        self._kinds = [proof.kinds for proof in proofs.values()]
        self._checks = [(name, proof.check) for name, proof in proofs.items() if proof.check is not None]
        self._open = [(name, *proof[:2]) for name, proof in proofs.items() if not proof.is_settled]
        """The fields to look at in an instance that was validated as a whole, and not changed since."""
        if unproved or not is_frozen:
            self._open = [("", *_NOTHING[:2])]
        self._known: set[tuple[type, ...]] = set()
        self._last: list[type] = []

    def holds_validated(self, values: dict[str, Any]) -> bool:
        """Whether an instance that its class's validator made is sure to come back equal."""
        for name, kinds, check in self._open:
            value = values.get(name)
            if (kinds is not None and type(value) not in kinds) or not (check is None or check(value)):
                return False
        return True

    def holds(self, values: dict[str, Any]) -> bool:
        """Whether an instance with these attributes, however it was made, is sure to come back equal."""
        kinds = list(map(type, values.values()))
        if kinds != self._last and not self._admits(values, kinds):
            return False
        for name, check in self._checks:  # noqa: SIM110 - a generator would cost each event more
            if not check(values[name]):
                return False
        return True

    def _admits(self, values: dict[str, Any], kinds: list[type]) -> bool:
        if self.unproved:
            return False
        signature = tuple(kinds)
        if signature not in self._known:
            if list(values) != self._names:
                return False
            for kind, wanted in zip(kinds, self._kinds, strict=True):
                if wanted is not None and kind not in wanted:
                    return False
            if len(self._known) < SIGNATURES:
                self._known.add(signature)
        self._last = kinds
        return True


_HARMLESS_CONFIG = {
    "allow_inf_nan",
    "cache_strings",
    "coerce_numbers_to_str",
    "extra_fields_behavior",
    "from_attributes",
    "hide_input_in_errors",
    "loc_by_alias",
    "regex_engine",
    "revalidate_instances",
    "ser_json_inf_nan",
    "serialize_by_alias",
    "strict",
    "title",
    "typed_dict_total",
    "validate_by_alias",
    "validate_by_name",
    "validate_default",
    "validation_error_cause",
}
_HARMLESS_FIELD = {"type", "schema", "metadata", "validation_alias", "serialization_alias", "frozen"}
_HARMLESS_FIELDS = {"type", "fields", "model_name", "computed_fields", "extra_behavior", "ref", "metadata"}


_shapes: WeakKeyDictionary[type[BaseModel], Shape] = WeakKeyDictionary()


def shape_of(model: type[BaseModel], within: tuple[type[BaseModel], ...] = ()) -> Shape:
    """The shape of a class, decided once; ``within`` are the classes that are being decided."""
    shape = _shapes.get(model)
    if shape is None:
        shape = _shapes[model] = _decide(model, (*within, model))
    return shape


def _decide(model: type[BaseModel], within: tuple[type[BaseModel], ...]) -> Shape:
    proofs: dict[str, Proof] = {}
    unproved: dict[str, str] = {}
    schema: Schema = dict(model.__pydantic_core_schema__)
    definitions: dict[str, Schema] = {}
    try:
        schema = without_definitions(schema, definitions)
        fields, config = _fields_of(model, schema)
    except UnprovedError as error:
        return Shape(proofs, {"": str(error)})
    prover = Prover(config, definitions, within, shape_of)
    for name, field in fields.items():
        try:
            refuse_others(field, _HARMLESS_FIELD)
            proofs[name] = prover.prove(field["schema"])
        except UnprovedError as error:  # noqa: PERF203 - once for each class
            unproved[name] = str(error)
    return Shape(proofs, unproved, is_frozen=bool(model.model_config.get("frozen")))


def _fields_of(model: type[BaseModel], schema: Schema) -> tuple[dict[str, Schema], Schema]:
    """The fields of a class and its configuration.

    Raises:
        UnprovedError: something is done with an instance as a whole.
    """
    if schema["type"] != "model" or schema["cls"] is not model or schema["schema"]["type"] != "model-fields":
        raise UnprovedError("its class has validators or a serializer of its own")
    refuse_others(schema, MODEL_KEYS)
    refuse_others(schema["schema"], _HARMLESS_FIELDS)
    config = schema.get("config", {})
    refuse_others(config, _HARMLESS_CONFIG)
    if schema.get("custom_init") or schema.get("root_model"):
        raise UnprovedError("its class is made in a way of its own")
    if model.__private_attributes__:
        raise UnprovedError("its class has private attributes, which are not written")
    return schema["schema"]["fields"], config

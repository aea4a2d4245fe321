# ruff: noqa: UP007, UP045 - unions are put together while the tests run
"""Any class of events that pydantic lets somebody write, with values for it, valid or slipped in behind its back."""

from __future__ import annotations

import dataclasses
import re
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from ipaddress import IPv4Address
from pathlib import PurePosixPath
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    Optional,
    TypeVar,
    Union,
    get_args,
    get_origin,
)
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import reject
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    PydanticUserError,
    RootModel,
    SecretStr,
    SerializeAsAny,
    StringConstraints,
    ValidationError,
    WrapSerializer,
    create_model,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from esource import DomainEvent

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Rate(Enum):
    STANDARD = Decimal("0.19")
    REDUCED = Decimal("0.07")


class Corner(Enum):
    LEFT = (0, 1)
    RIGHT = (1, 1)


class Odd(Enum):
    TRUE = True
    ONE = "1"


class Rights(Flag):
    READ = 1
    WRITE = 2


class Base(BaseModel):
    a: int = 0


class Sub(Base):
    b: str = "b"


class Other(BaseModel):
    a: str = ""
    c: float = 0.0


class Alike(BaseModel):
    a: int = 0
    c: float = 0.0


class Crossed(BaseModel):
    first: int = Field(1, alias="second")
    second: int = Field(2, alias="first")


class Hiding(BaseModel):
    a: int = 0
    _note: str = PrivateAttr("")


class Excluding(BaseModel):
    a: int = 0
    note: str = Field("x", exclude=True)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = 0


class Numbers(RootModel[list[int]]):
    pass


class Box(BaseModel, Generic[T]):
    content: T


class Tree(BaseModel):
    leaf: int = 0
    children: list[Tree] = []


@dataclasses.dataclass
class Point:
    x: float = 0.0
    y: int = 0
    hidden: str = dataclasses.field(default="", init=False)


@pydantic_dataclass
class Place:
    x: float = 0.0
    name: str = "n"


class Labels(TypedDict, total=False):
    owner: str
    count: int


class Pair(NamedTuple):
    left: int
    right: str = ""


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = ""


def hiding(a: int, note: str) -> Hiding:
    made = Hiding(a=a)
    made._note = note
    return made


texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6
) | st.sampled_from(
    [
        "",
        "1",
        "1.0",
        "true",
        "null",
        "2024-01-01",
        "red",
        "0f8fad5b-d9cb-469f-a165-70867728950e",
        "PT1S",
        " a ",
        "B",
    ]
)
integers = st.integers(-(2**70), 2**70) | st.integers(0, 3)
floats = st.floats() | st.sampled_from([0.0, 1.0, 1e22, 1e300])
zones = st.sampled_from(
    [
        None,
        timezone.utc,
        timezone(timedelta(hours=5, minutes=30)),
        timezone(timedelta(seconds=53 * 60 + 28)),
        ZoneInfo("Europe/Berlin"),
        ZoneInfo("Africa/Monrovia"),
    ]
)
moments = st.builds(
    lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
    st.datetimes(datetime(1850, 1, 1), datetime(2100, 1, 1)) | st.just(datetime(2024, 10, 27, 2, 30)),
    zones,
    st.sampled_from([0, 1]),
)
clocks = st.builds(
    lambda clock, zone: clock.replace(tzinfo=zone),
    st.times(),
    st.sampled_from([None, timezone.utc, timezone(timedelta(seconds=3))]),
)
decimals = st.decimals(allow_nan=None).filter(lambda value: not value.is_snan()) | st.sampled_from(
    [Decimal("1.10"), Decimal("1E+30"), Decimal("-0")]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)

SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, texts),
    (int, integers),
    (float, floats | integers),
    (bool, st.booleans()),
    (None, st.none()),
    (UUID, st.uuids()),
    (date, st.dates()),
    (datetime, moments),
    (time, clocks),
    (timedelta, st.timedeltas()),
    (Decimal, decimals),
    (bytes, st.binary(max_size=4) | texts.map(str.encode)),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Rate, st.sampled_from(Rate)),
    (Corner, st.sampled_from(Corner)),
    (Odd, st.sampled_from(Odd)),
    (Rights, st.sampled_from([Rights.READ, Rights.READ | Rights.WRITE])),
    (Literal["a", "b"], st.sampled_from("ab")),
    (Literal[1, True, "1"], st.sampled_from([1, True, "1"])),
    (SecretStr, texts.map(SecretStr)),
    (PurePosixPath, st.sampled_from([PurePosixPath("a/b"), PurePosixPath(".")])),
    (IPv4Address, st.just(IPv4Address("127.0.0.1"))),
    (re.Pattern, st.just(re.compile("a+"))),
    (complex, st.complex_numbers(max_magnitude=9)),
    (Annotated[int, Field(gt=0)], st.integers(1, 9)),
    (Annotated[str, StringConstraints(strip_whitespace=True)], texts),
    (Annotated[str, StringConstraints(to_lower=True)], texts),
    (Annotated[str, Field(min_length=1)], texts.filter(bool)),
    (Annotated[str, AfterValidator(lambda value: value + "!")], texts),
    (Annotated[str, BeforeValidator(str)], texts | integers),
    (Annotated[float, PlainSerializer(lambda value: round(value, 1))], st.floats(0, 9)),
    (Annotated[int, PlainSerializer(str)], integers),
    (Annotated[Any, PlainSerializer(lambda value: None)], integers),
    (Annotated[str, WrapSerializer(lambda value, handler: handler(value)[:1])], texts),
    (Annotated[bytes, PlainSerializer(lambda value: value.hex())], st.binary(max_size=4)),
    (Any, json_values),
    (dict, st.dictionaries(texts, json_values, max_size=2)),
    (Base, st.builds(Base, a=integers) | st.builds(Sub, a=integers, b=texts)),
    (SerializeAsAny[Base], st.builds(Base, a=integers) | st.builds(Sub, a=integers, b=texts)),
    (Other, st.builds(Other, a=texts, c=floats)),
    (Crossed, st.builds(Crossed, first=integers, second=integers)),
    (Hiding, st.builds(hiding, integers, texts)),
    (Excluding, st.builds(Excluding, a=integers, note=texts)),
    (Open, st.builds(Open, a=integers, more=json_values)),
    (Numbers, st.lists(integers, max_size=2).map(Numbers)),
    (Box[int], st.builds(Box[int], content=integers)),
    (Box, st.builds(Box[int], content=integers)),
    (Tree, st.builds(Tree, leaf=integers, children=st.lists(st.builds(Tree, leaf=integers), max_size=2))),
    (Point, st.builds(Point, x=floats, y=integers)),
    (Place, st.builds(Place, x=floats, name=texts)),
    (Labels, st.fixed_dictionaries({}, optional={"owner": texts, "count": integers})),
    (Pair, st.builds(Pair, integers, texts)),
    (Union[Cat, Dog], st.builds(Cat, lives=integers) | st.builds(Dog, name=texts)),
    (
        Annotated[Union[Cat, Dog], Field(discriminator="kind")],
        st.builds(Cat, lives=integers) | st.builds(Dog, name=texts),
    ),
    (Union[Base, Alike], st.builds(Base, a=integers) | st.builds(Alike, a=integers, c=floats)),
]
KEYS = [
    entry
    for entry in SCALARS
    if entry[0] in (str, int, float, bool, UUID, date, datetime, Decimal, Colour, Level, bytes)
]


def _parts(annotation: Any) -> list[Any]:
    """What a type is made of, itself included."""
    inner = [] if get_origin(annotation) is Literal else get_args(annotation)
    return [annotation, *(part for each in inner for part in _parts(each))]


@st.composite
def typed(draw: Any, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    """A type and a strategy for its values."""
    if depth == 0 or draw(st.integers(0, 9)) < 5:
        return draw(st.sampled_from(SCALARS))
    kind = draw(
        st.sampled_from(
            ["optional", "union", "list", "set", "tuple", "pair", "dict", "sequence", "mapping", "deque"]
        )
    )
    if kind in ("dict", "mapping"):
        key, keys = draw(st.sampled_from(KEYS) | st.just((tuple[int, int], st.tuples(integers, integers))))
        item, items = draw(typed(depth - 1))
        outer = dict if kind == "dict" else Mapping
        return outer[key, item], st.dictionaries(keys, items, max_size=2)
    item, items = draw(typed(depth - 1))
    if kind == "optional":
        return Optional[item], st.none() | items
    if kind in ("union", "pair"):
        other, others = draw(typed(depth - 1))
        if kind == "union" and Any in (*_parts(item), *_parts(other)):
            return item, items  # anything goes in it, and comes back as JSON has it
        return (
            (Union[item, other], items | others)
            if kind == "union"
            else (tuple[item, other], st.tuples(items, others))
        )
    if kind == "set":
        item, items = draw(st.sampled_from(KEYS))
        return set[item], st.sets(items, max_size=2)
    if kind == "tuple":
        return tuple[item, ...], st.lists(items, max_size=2).map(tuple)
    if kind == "sequence":
        return Sequence[item], st.lists(items, max_size=2) | st.lists(items, max_size=2).map(tuple)
    if kind == "deque":
        return deque[item], st.lists(items, max_size=2).map(deque)
    return list[item], st.lists(items, max_size=2)


CONFIGS: list[dict[str, Any]] = [
    {},
    {},
    {},
    {"extra": "allow"},
    {"extra": "ignore"},
    {"strict": True},
    {"frozen": False},
    {"ser_json_inf_nan": "null"},
    {"ser_json_inf_nan": "strings"},
    {"ser_json_timedelta": "float"},
    {"ser_json_temporal": "seconds"},
    {"ser_json_bytes": "base64"},
    {"ser_json_bytes": "base64", "val_json_bytes": "base64"},
    {"ser_json_bytes": "hex"},
    {"use_enum_values": True},
    {"str_strip_whitespace": True},
    {"str_to_lower": True},
    {"str_max_length": 3},
    {"coerce_numbers_to_str": True},
    {"alias_generator": lambda name: name.upper()},
    {
        "alias_generator": lambda name: {"a": "b", "b": "c", "c": "a"}.get(name, name),
        "populate_by_name": True,
    },
    {"serialize_by_alias": True, "alias_generator": lambda name: f"x{name}"},
    {"allow_inf_nan": True},
    {"revalidate_instances": "always"},
    {"validate_assignment": True, "frozen": False},
]
FIELDS: list[dict[str, Any]] = [
    {},
    {},
    {},
    {},
    {"exclude": True},
    {"alias": "other"},
    {"validation_alias": AliasChoices("amount", "price")},
    {"validation_alias": "b"},
    {"serialization_alias": "elsewhere"},
    {"repr": False},
]


def _names_another(options: dict[str, Any]) -> bool:
    """Whether options may give a field the name of another one, which has the same options at times."""
    rename = options.get("alias_generator", str)
    return "alias" in options or "validation_alias" in options or rename("a") == "b"


@st.composite
def classes_with_values(
    draw: Any, kind: type[BaseModel] = DomainEvent
) -> tuple[type[Any], dict[str, Any], dict[str, Any]]:
    """A class of events, values for its fields, and values that are put there behind its back."""
    fields: dict[str, Any] = {}
    types = {name: draw(typed()) for name in ("a", "b", "c")[: draw(st.integers(1, 3))]}
    strategies = {name: values for name, (_, values) in types.items()}
    # A field of no declared type holds anything, and that comes back as JSON has it: it is given no other field's value.
    is_open = any(Any in _parts(annotation) for annotation, _ in types.values())
    for name, (annotation, values) in types.items():
        options = draw(st.sampled_from([each for each in FIELDS if not (is_open and _names_another(each))]))
        default = draw(st.sampled_from([..., ..., "value"]))
        fields[name] = (annotation, Field(default if default is ... else draw(values), **options))
    config = draw(st.sampled_from([each for each in CONFIGS if not (is_open and _names_another(each))]))
    base = type("Configured", (kind,), {"model_config": ConfigDict(arbitrary_types_allowed=True, **config)})
    own: Any = {"aggregate_type": (str, "Thing")} if kind is DomainEvent else {}
    try:
        made = create_model("Drawn", __base__=base, **own, **fields)
    except PydanticUserError:
        reject()  # pydantic does not let anybody write it
    values = {name: draw(strategy) for name, strategy in strategies.items()}
    slipped = {}
    if draw(st.integers(0, 3)) == 0:
        _, others = draw(typed(1))
        typed_fields = [
            name for name, (annotation, _) in fields.items() if not {Any, dict} & {*_parts(annotation)}
        ]
        of_events = ["event_id", "tenant_id", "actor_id", "event_version", "correlation_id"]
        targets = typed_fields + of_events * (kind is DomainEvent)
        if config.get("extra") != "allow":  # extras are of no declared type
            targets.append("typo")
        if targets:
            slipped[draw(st.sampled_from(targets))] = draw(others)
    return made, values, slipped


def made(
    event_class: type[DomainEvent], values: dict[str, Any], slipped: dict[str, Any]
) -> DomainEvent | None:
    """An event, as its class makes it from the values; None if it does not take them."""
    given = {}
    for name, value in values.items():
        alias = event_class.model_fields[name].validation_alias
        given[name if alias is None else alias.choices[0] if isinstance(alias, AliasChoices) else alias] = (
            value
        )
    try:
        event = event_class(**given)
    except (ValidationError, TypeError, ValueError):
        return None
    return event.model_copy(update=slipped) if slipped else event


def canonical(value: Any) -> Any:
    """What a value is, its type included, in a form that compares as people do."""
    if isinstance(value, BaseModel):
        return (
            type(value),
            {name: canonical(item) for name, item in value.__dict__.items()},
            canonical(value.__pydantic_extra__ or {}),
            canonical(value.__pydantic_private__ or {}),
        )
    if dataclasses.is_dataclass(value):
        return type(value), {
            field.name: canonical(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return "dict", {(_kind(key), key): canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, deque)):
        return type(value), [canonical(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(map(repr, map(canonical, value)))
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            return datetime, "naive", value.replace(fold=0).isoformat()
        return datetime, (value.replace(tzinfo=None) - value.utcoffset()).isoformat()
    if isinstance(value, float):
        return float, repr(value + 0.0)
    if isinstance(value, SecretStr):
        return SecretStr, value.get_secret_value()
    if isinstance(value, Decimal):
        return Decimal, "NaN" if value.is_nan() else value
    return _kind(value), value


def _kind(value: Any) -> type:
    for kind in (bool, Enum, str, int, float):
        if isinstance(value, kind):
            return type(value) if kind is Enum else kind
    return type(value)

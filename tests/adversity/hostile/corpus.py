"""Values that somebody sends who means no good, or who has never thought about it."""

from __future__ import annotations

from typing import Any


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value} if _ % 2 else [value]
    return value


INJECTIONS = {
    "a quote": "'; DROP TABLE events; --",
    "a double quote": '"; DROP TABLE events; --',
    "a bracket": "x'); DELETE FROM events; --",
    "a dollar quote": "$body$; DROP TABLE events; $body$",
    "a backslash": "\\'; DROP TABLE events; --",
    "a union": "' UNION SELECT payload FROM events --",
    "always true": "' OR '1'='1",
    "a comment": "/* */ -- #",
    "formats": "%s %(name)s {0} :name $1 ?",
    "a wildcard": "%_*",
}
"""Texts that become statements where somebody puts a statement together from them."""

STORED_TEXTS = {
    **INJECTIONS,
    "right to left": "\u202egnp.exe\u2066\u200f",
    "combining": "e\u0301\u0301\u0301 \ufdfa \u200d\ufeff",
    "beyond the first plane": "😀\U0010ffff",
    "control characters": "\x01\x1b[31m\x7f\x85\u2028\r\n\t",
    "a prototype": "__proto__",
    "JSON in a text": '{"a": [1, "\\u0000"]}',
    "a number in a text": "1e309",
    "a word of JSON": "NaN",
    "a path": "../../etc/passwd",
    "spaces": "  ",
    "long": "é" * 255,
}
"""Texts that come back as they were, whether as names or as values."""

REFUSED_TEXTS = {"NUL": "a\x00b", "half a pair": "a\ud800b", "the other half": "\udfff"}

STORED_VALUES: dict[str, Any] = {
    **STORED_TEXTS,
    "a megabyte": "x" * 2**20,
    "a megabyte of others": "é" * 2**19,
    "nothing": "",
    "the largest float": 1.7976931348623157e308,
    "the smallest float": 5e-324,
    "minus zero": -0.0,
    "a float that is whole": 1e22,
    "an integer past 64 bits": 2**64 + 1,
    "the longest integer": 10**4299,
    "a number as text": ["1", "0x10", "1_000", "٣"],
    "the deepest": nested(197),
    "keys": {
        "": 1,
        " ": 2,
        "__proto__": {"constructor": {"prototype": 3}},
        "toString": 4,
        "a.b[0]": 5,
        "$ref": "#/x",
        "__class__": 6,
        '"': 7,
        "\\": 8,
        "'; DROP TABLE events; --": 9,
        "event_type": "Other",
        "aggregate_id": "Other",
        "é" * 1000: 10,
    },
    "many keys": {f"k{number}": number for number in range(10_000)},
    "many brackets": [[]] * 5000,
}
REFUSED_VALUES: dict[str, Any] = {
    **REFUSED_TEXTS,
    "not a number": float("nan"),
    "infinity": float("inf"),
    "minus infinity": [-float("inf")],
    "too deep": nested(200),
    "far too deep": nested(5000),
    "too long an integer": 10**4300,
    "a NUL in a key": {"a\x00": 1},
    "half a pair in a key": {"\ud800": 1},
    "no JSON": object(),
    "bytes that are no text": b"\xff",
}

"""JSON in pieces: the pieces are readable where the whole is, and nowhere else."""

from __future__ import annotations

import json
import random

import pytest
from pydantic_core import from_json

from esource.checks import pieces
from esource.checks.pieces import read_in_pieces, require_readable

SCALARS = [
    "1",
    "-2.5e3",
    "true",
    "null",
    '""',
    '"a,b"',
    '"[{"',
    '"]}"',
    '"\\""',
    '"\\\\"',
    '"\\\\\\",["',
    '"é☃"',
    " 7 ",
]
LETTERS = '[]{},:"\\ 01eu'


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(pieces, "MANY_LISTS", 0)


def drawn(chance: random.Random, depth: int) -> str:
    kind = chance.random() if depth else 0
    if kind < 0.3:
        return chance.choice(SCALARS)
    inside = [drawn(chance, depth - 1) for _ in range(chance.randrange(5))]
    if kind < 0.65:
        return f"[{','.join(inside)}]"
    members = (f"{chance.choice(SCALARS[4:9])}:{each}" for each in inside)
    return f"{{{','.join(members)}}}"


def damaged(chance: random.Random, text: str) -> str:
    opening = [place for place, letter in enumerate(text, 1) if letter in "[{"]
    if opening and chance.random() < 0.2:
        place = chance.choice(opening)
        return f"{text[:place]}{chance.choice(['', ' '])},{text[place:]}"
    place = chance.randrange(len(text) + 1)
    return text[:place] + chance.choice([*LETTERS, ""]) + text[place + chance.randrange(2) :]


def is_readable(text: str, read, **options) -> bool:
    try:
        read(text, **options)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("read", [json.loads, from_json])
@pytest.mark.parametrize("size", [1, 7, 40])
def test_a_text_is_refused_in_pieces_where_it_is_refused_as_a_whole(monkeypatch, read, size):
    monkeypatch.setattr(pieces, "PIECE_CHARACTERS", size)
    chance = random.Random(size)
    refused = 0
    for number in range(900):
        text = drawn(chance, 6)
        for _ in range(number % 3):
            text = damaged(chance, text)
        wanted = is_readable(text, read)
        refused += not wanted
        assert is_readable(text, lambda whole: require_readable(whole, read)) == wanted, text
    assert 100 < refused < 800


@pytest.mark.parametrize("read", [json.loads, from_json])
@pytest.mark.parametrize("bad", ["[,1]", '[ ,"a"]', '{,"k":1}', '{\n,"k":1}', "[[,[]]]"])
def test_a_comma_behind_a_bracket_that_opens_is_refused_wherever_the_text_is_cut(monkeypatch, read, bad):
    text = f"[{'[],' * 5}{bad},{'[],' * 5}1]"
    for size in range(1, len(text)):
        monkeypatch.setattr(pieces, "PIECE_CHARACTERS", size)
        with pytest.raises(ValueError):
            require_readable(text, read)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_the_end_of_a_value_is_found_whatever_follows(monkeypatch, size):
    monkeypatch.setattr(pieces, "PIECE_CHARACTERS", size)
    chance = random.Random(size)
    for _ in range(500):
        text, rest = f"[{drawn(chance, 5)}]", chance.choice(["", ',"x":[1]}', "]]", " {}"])
        before = chance.choice(["", '{"a":', "é"])
        assert read_in_pieces(before + text + rest, json.loads, len(before)) == len(before + text)


@pytest.mark.parametrize("read", [json.loads, from_json])
def test_no_piece_is_much_longer_than_a_piece(monkeypatch, read):
    seen: list[int] = []

    def reading(piece: str) -> None:
        seen.append(len(piece))
        read(piece)

    monkeypatch.setattr(pieces, "PIECE_CHARACTERS", 100)
    require_readable("[" + '{"a":[[],[1,{}]]},' * 500 + "{}]", reading)
    assert len(seen) > 50
    assert max(seen) < 200


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 300 + "1" + "}" * 300, "[[1,2" + "]" * 3, '["a', "[1,"]
)
def test_what_is_nested_too_deeply_or_does_not_end_is_refused(monkeypatch, text):
    monkeypatch.setattr(pieces, "PIECE_CHARACTERS", 50)
    with pytest.raises(ValueError):
        require_readable(text, from_json)

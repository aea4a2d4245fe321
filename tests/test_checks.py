"""What is refused before anything is written, however large the value: checks look at each character a few times."""

from decimal import Decimal

import pytest

from esource.checks import CEILING, check_foreign_json, check_json, check_names, check_seconds
from esource.errors import InvalidEventError, InvalidOptionError


def in_full(text):
    return check_foreign_json("", text)


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("1e22", f"1{'0' * 22}.0"),
        ("-1.5e+3", "-1500.0"),
        ("1.5E2", "150.0"),
        ("1e308", f"1{'0' * 308}.0"),
        ("0e999999999", "0.0"),
        ("-0.0e5", "-0.0"),
        ("1e-5", "1e-5"),
        ("123e-300", "123e-300"),
    ],
)
def test_a_number_with_an_exponent_is_written_in_full(written, full):
    for text in ("{}", "[{}]", '{{"a":{},"b":1}}', '["1e5\\\\",{},"\\"2e5"]'):
        assert in_full(text.format(written)) == text.format(full)


def test_what_looks_like_a_number_inside_a_text_stays():
    for text in ('["1e22"]', '["\\"1e22,", 5]', '["\\\\", "e1]"]', '{"1e22,":"x1e5}"}'):
        assert in_full(text) == text


@pytest.mark.parametrize(
    "number",
    [
        "1e300000000",
        "1e999999999",
        "-1e309",
        "1e-300000000",
        "1.5e" + "9" * 100,
        f"{'1' * 300}e50",
        "1e" + "0" * 20 + "400",
    ],
)
def test_a_number_that_no_float_can_be_is_refused_before_it_is_written_out(number):
    with pytest.raises(InvalidEventError, match="which no float can be"):
        check_foreign_json("payload", f'{{"a":{number}}}')


def test_many_large_numbers_are_refused_before_they_fill_the_memory():
    text = f"[{','.join(['1e308'] * (CEILING.payload_characters // 300))}]"
    with pytest.raises(InvalidEventError, match="once its numbers are written in full"):
        check_json("payload", text)


@pytest.mark.parametrize(
    "text",
    [
        "[" + ",".join(["1" * 4299] * 500) + ",1e22]",
        "[" + ",".join([f"{'1' * 2000}.{'1' * 2000}"] * 500) + ",1e22]",
        '["' + '\\"' * 1_000_000 + '",1e22]',
        '["' + "1" * 2_000_000 + '",1e22]',
        '["' + "-1" * 1_000_000 + '",1e22]',
        '["' + "e1" * 1_000_000 + '",1e22]',
        "[" + '"",' * 700_000 + "1e22]",
    ],
    ids=["integers", "fractions", "quotes", "digits", "signs", "exponents", "texts"],
)
def test_no_text_makes_a_check_begin_anew_at_each_of_its_characters(text):
    """Each of these took minutes or hours when a search began at every digit; the test's own limit is the bound."""
    assert in_full(text) == text.replace(",1e22]", f",{Decimal('1e22'):f}.0]")


def test_seconds_are_a_number_above_a_bound():
    assert check_seconds("pause", 0.5) == 0.5
    assert check_seconds("pause", 0, least=0) == 0.0
    for wrong in (0, -1, True, "5", None, float("nan"), float("inf")):
        with pytest.raises(InvalidOptionError, match="pause must be more than 0 seconds"):
            check_seconds("pause", wrong)
    with pytest.raises(InvalidOptionError, match="pause must be 5 or more seconds"):
        check_seconds("pause", 4.9, least=5)


def test_names_are_several_texts():
    assert check_names("types", ["a", "b", "a"]) == {"a", "b"}
    assert check_names("types", None) is None
    for wrong in ("a", 5, [5]):
        with pytest.raises(InvalidOptionError, match="types must be a collection of names"):
            check_names("types", wrong)

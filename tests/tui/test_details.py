"""What is stored, as text for the details beside a list."""

from __future__ import annotations

from esource.tui.details import LONGEST_TEXT, cell, number, payload


def test_what_is_not_there_is_a_dash_and_a_line_stays_one():
    shown = [str(cell(value)) for value in (None, 3, "a\nb\x1b[2J")]
    assert shown == ["-", "3", "a b\N{REPLACEMENT CHARACTER}[2J"]
    assert [str(number(value)) for value in (None, 12345)] == ["-", "12,345"]


def test_of_an_events_payload_its_own_fields_come_first():
    said = payload({"metadata": {}, "total": 5, "event_version": 1}).plain
    assert said.index("total") < min(said.index("metadata"), said.index("event_version"))


def test_a_payload_is_shown_whatever_it_is_and_not_without_end():
    assert payload("[1, 2]").plain == payload([1, 2]).plain == "[\n  1,\n  2\n]"
    assert payload("{broken").plain == "{broken"
    said = payload('"' + "x" * (LONGEST_TEXT + 1023)).plain
    assert len(said) < LONGEST_TEXT + 100
    assert said.endswith("1.0 KiB more are not shown")

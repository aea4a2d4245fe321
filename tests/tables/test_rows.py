"""The places of a row that is read, and the values of one that is written, by the names of the table's columns."""

from esource.tables import rows
from esource.tables.model import events

RENAMED = {"global_position": "POSITION", "created_at": "STORED_AT"}


def test_the_places_of_a_row_are_those_of_the_tables_columns():
    for place, column in enumerate(events.c):
        assert getattr(rows, RENAMED.get(column.name, column.name.upper())) == place


def test_what_an_event_brings_goes_into_columns_of_these_names():
    brought_by_others = {"global_position", "aggregate_id", "aggregate_type", "version", "created_at"}
    assert {*rows.EncodedEvent._fields} == {column.name for column in events.c} - brought_by_others

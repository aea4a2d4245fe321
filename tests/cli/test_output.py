"""What a command says on terminals of several widths, and into a pipe."""

from __future__ import annotations

import re

import pytest
from support.commands import esource
from support.orders import several

from esource import OutboxRepository, open_store
from esource.cli.output import Output, shown

ID = "86647d4e-9821-4576-b565-6f9afb87186d"


@pytest.fixture
def on_terminal(monkeypatch):
    """Standard output is a terminal of so many columns."""

    def resize(columns: int) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(columns))

    return resize


def lines(said: str) -> list[str]:
    """What is to be seen, without the codes for colours."""
    return [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", said).splitlines()]


@pytest.fixture
async def waiting(tmp_path):
    """A file with a stream whose two events wait in the outbox; its stream, and its name."""
    [first, _] = events = several(2)
    async with open_store(f"sqlite:///{tmp_path}/shop.db", outbox_enabled=True) as store:
        await store.initialize()
        await store.append_events(first.aggregate_id, "Order", events, 0)
        [row, _] = await OutboxRepository(store).get_pending_events()
        await OutboxRepository(store).mark_failed(row.id, "the broker at broker.example is not there")
    return f"{first.aggregate_id}:Order", f"{tmp_path}/shop.db"


@pytest.mark.parametrize("columns", [60, 80, 120])
async def test_a_stream_is_in_one_piece_on_a_narrow_terminal_too(waiting, on_terminal, columns):
    stream, file = waiting
    on_terminal(columns)
    for command in (["streams"], ["outbox", "list"], ["outbox", "list", "--failed"]):
        said = lines((await esource(*command, "--url", file)).stdout)
        assert sum(stream in line for line in said) == 1, said
        assert max(map(len, said)) <= columns


async def test_a_row_takes_one_line_at_eighty_columns(waiting, on_terminal):
    stream, file = waiting
    on_terminal(80)
    heading, row = lines((await esource("streams", "--url", file)).stdout)
    assert heading.split("  ")[0] == "stream"
    assert row.startswith(f"{stream}  ")
    assert len(lines((await esource("outbox", "list", "--url", file)).stdout)) == 2


async def test_no_codes_and_every_column_go_into_a_pipe(waiting, monkeypatch):
    _, file = waiting
    monkeypatch.setenv("COLUMNS", "40")
    for command in (["streams"], ["outbox", "list", "--failed"]):
        said = (await esource(*command, "--url", file)).stdout
        assert "\x1b" not in said
        assert len(said.splitlines()) == 2
        assert "position" in said or "since" in said


def test_a_sentence_is_broken_at_its_blanks_and_an_id_is_not(on_terminal, capsys):
    on_terminal(80)
    error = "the broker at broker.example is not there, and neither is the other one"
    Output().table(["id", "error", "n"], [(ID, error, 1)], spare=["n"])
    said = lines(capsys.readouterr().out)
    assert said[0].split() == ["id", "error", "n"]
    assert said[1].startswith(f"{ID}  the broker at broker.example")
    assert "broker.example" in said[1]


def test_what_fits_no_table_is_a_list_of_facts(on_terminal, capsys):
    on_terminal(60)
    Output().table(["a", "b", "n"], [(ID, ID, 1), (ID, ID, 2)], spare=["n"])
    facts = [["a", ID], ["b", ID], ["n"]]
    said = [line.split() for line in lines(capsys.readouterr().out)]
    assert said == [*facts[:2], ["n", "1"], [], *facts[:2], ["n", "2"], []]


async def test_a_payload_has_colours_on_a_terminal_and_stays_the_same_json(waiting, on_terminal):
    stream, file = waiting
    on_terminal(80)
    said = (await esource("show", stream, "--limit", 1, "--url", file)).stdout
    assert "\x1b[" in said
    assert '"customer_id": ' in "\n".join(lines(said))


def test_values_are_shown_as_a_person_says_them():
    assert [shown(value) for value in (True, False, None, 1, "a")] == ["yes", "no", "-", "1", "a"]

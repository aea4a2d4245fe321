"""`esource inspect`, driven by keys and the mouse, on a real store that others write to meanwhile."""

from __future__ import annotations

import asyncio
import sys
from uuid import UUID

import pytest
from support.commands import esource
from support.orders import OrderShipped, placed, several
from support.schemas import execute
from textual.widgets import Input, Select

from esource import CheckpointRepository, DLQRepository, OutboxRepository, browsing
from esource.browsing import streams
from esource.cli.inspecting import still_there
from esource.cli.opening import database_url
from esource.database.sources import database_of
from esource.tui import log, panes
from esource.tui.help import HelpScreen
from esource.tui.streams import StreamsPane

FIRST, SECOND, PARCEL = (
    UUID(f"{digit * 8}-{digit * 4}-4{digit * 3}-8{digit * 3}-{digit * 12}") for digit in ("a", "b", "c")
)


def shipped(aggregate_id: UUID) -> OrderShipped:
    return OrderShipped(aggregate_id=aggregate_id, tracking_number="PX-1")


def failure(message: str = "no such customer") -> LookupError:
    try:
        raise LookupError(message)
    except LookupError as error:
        return error


def hold_up(pane, method):
    """Let a method of a pane wait: the events that it was called, and that it may go on."""
    work, asked, answer = getattr(pane, method), asyncio.Event(), asyncio.Event()

    async def late(argument):
        asked.set()
        await answer.wait()
        return await work(argument)

    setattr(pane, method, late)
    return asked, answer


@pytest.fixture
async def orders(shared_store):
    """Three streams; the last event is at position 5."""
    events = [*several(2, FIRST), shipped(FIRST)]
    await shared_store.append_events(FIRST, "Order", events, 0)
    await shared_store.append_events(SECOND, "Order", [placed(SECOND, customer_id="ada")], 0)
    parcel = placed(PARCEL, aggregate_type="Parcel")
    await shared_store.append_events(PARCEL, "Parcel", [parcel], 0)
    return events


async def test_streams_are_listed_opened_and_left_again(look, orders, shared_database_url):
    async with look(shared_database_url) as seen:
        await seen.lists(str(PARCEL), str(SECOND), str(FIRST))
        assert "newest first" in seen.title()
        assert "position 5" in seen.text("#head")
        await seen.press("down")
        await seen.tells(f"{SECOND}:Order", "OrderPlaced", '"customer_id": "ada"')
        await seen.press("down", "enter")
        await seen.lists("OrderPlaced", "OrderPlaced", "OrderShipped")
        assert str(FIRST) in seen.title()
        await seen.press("end")
        await seen.tells("OrderShipped", '"tracking_number": "PX-1"', str(orders[2].event_id))
        await seen.press("o")
        await seen.lists("OrderShipped", "OrderPlaced", "OrderPlaced")
        await seen.press("escape")
        await seen.until(lambda: seen.app.pane.id == "streams")
        await seen.lists(str(PARCEL), str(SECOND), str(FIRST))
        assert seen.app.pane.listing.cursor_row == 2


@pytest.mark.parametrize("name", ["[/ [/b]x[A]", "[a=' \\[b] of [x\\"])
@pytest.mark.slow
async def test_brackets_in_a_name_are_shown_as_they_are(look, shared_store, shared_database_url, name):
    event = placed(actor_id=name).model_copy(update={"aggregate_type": name})
    await shared_store.append_events(event.aggregate_id, name, [event])
    await CheckpointRepository(shared_store).save_position(name, 1, event.event_id, name)
    await DLQRepository(shared_store).add_failed_event(
        event.event_id, name, name, {name: name}, ValueError(name)
    )
    await OutboxRepository(shared_store).add_event(event)
    async with look(shared_database_url) as seen:
        await seen.lists(str(event.aggregate_id))
        chooser = seen.app.pane.query_one("#type", Select)
        await seen.until(lambda: len(chooser._options) == 2)
        await seen.press("slash")
        await seen.until(lambda: seen.app.pane.query_one("#prefix", Input).has_focus)
        await seen.press("escape")
        chooser.value = name
        await seen.lists(str(event.aggregate_id))
        await seen.press("enter")
        await seen.until(lambda: name in seen.title())
        for tab in ("2", "3", "4", "5"):
            await seen.press(tab)
            await seen.lists(name)
            await seen.tells(name)
        assert not seen.banner()


@pytest.mark.slow
async def test_streams_are_filtered_by_type_and_by_the_beginning_of_their_id(
    look, orders, shared_database_url
):
    async with look(shared_database_url) as seen:
        await seen.lists(str(PARCEL), str(SECOND), str(FIRST))
        chooser = seen.app.pane.query_one("#type", Select)
        await seen.until(lambda: len(chooser._options) == 3)  # all, Order, Parcel
        chooser.value = "Order"
        await seen.lists(str(SECOND), str(FIRST))
        prefix = seen.app.pane.query_one("#prefix", Input)
        prefix.focus()
        await seen.press(*"AAAA")
        await seen.lists(str(FIRST))
        assert "by id" in seen.title()
        prefix.value = "xyz"
        await seen.until(lambda: "none begins with 'xyz'" in seen.banner())
        prefix.value = f"{SECOND}:Order"
        await seen.lists(str(SECOND))
        await seen.until(lambda: seen.banner() == "")
        prefix.value = str(PARCEL)
        await seen.lists()
        await seen.tells("No streams")
        await seen.press("escape")
        assert seen.app.pane.listing.has_focus


@pytest.mark.slow
async def test_the_log_shows_what_another_store_appends(look, orders, shared_store, shared_database_url):
    async with look(shared_database_url) as seen:
        await seen.press("2")
        await seen.lists(*(f"{position}  " for position in (5, 4, 3, 2, 1)))
        assert "following" in seen.title()
        for position in (6, 7):
            event = placed()
            await shared_store.append_events(event.aggregate_id, "Order", [event], 0)
            await seen.until(lambda p=position: seen.rows()[0].startswith(str(p)))
            await seen.tells(str(event.event_id))
        await seen.press("space")
        assert "paused" in seen.title()
        event = placed()
        await shared_store.append_events(event.aggregate_id, "Order", [event], 0)
        await seen.until(lambda: "1 newer" in seen.title())
        assert len(seen.rows()) == 7
        await seen.press("space")
        await seen.until(lambda: len(seen.rows()) == 8)
        await seen.press("down")
        await seen.until(lambda: "paused" in seen.title())
        event = placed()
        await shared_store.append_events(event.aggregate_id, "Order", [event], 0)
        await seen.until(lambda: "1 newer" in seen.title())
        await seen.press("up")
        await seen.until(lambda: len(seen.rows()) == 9)


@pytest.mark.slow
async def test_more_new_events_than_a_page_leave_one_page(look, open_stores, sqlite_url, monkeypatch):
    """On one database: what is put on the screen does not depend on it."""
    shared_store = await open_stores(sqlite_url)
    monkeypatch.setattr(log, "PAGE_EVENTS", 5)
    async with look(sqlite_url) as seen:
        await seen.press("2")
        await seen.tells("No events")
        await seen.until(lambda: not seen.app.pane.is_reading)
        [first, *_] = events = several(12)
        await shared_store.append_events(first.aggregate_id, "Order", events, 0)
        await seen.until(lambda: seen.rows() and seen.rows()[0].startswith("12"))
        await seen.press("end")
        await seen.until(
            lambda: [row.split()[0] for row in seen.rows()] == [str(n) for n in range(12, 0, -1)]
        )


@pytest.mark.slow
async def test_the_log_is_read_back_from_a_position_and_by_type(look, orders, shared_database_url):
    async with look(shared_database_url) as seen:
        await seen.press("2")
        await seen.lists(*("5", "4", "3", "2", "1"))
        pane = seen.app.pane
        pane.query_one("#position", Input).value = "2"
        await seen.lists("2  ", "1  ")
        await seen.press("space")
        await seen.lists(*("5", "4", "3", "2", "1"))
        pane.query_one("#event-type", Select).value = "OrderShipped"
        await seen.lists("OrderShipped")
        await seen.press("enter")
        await seen.until(lambda: seen.app.pane.id == "stream")
        await seen.lists("OrderPlaced", "OrderPlaced", "OrderShipped")
        await seen.tells("OrderShipped", "version 3")  # the one that it was opened for
        seen.app.pane.query_one("#version", Input).value = "2"
        await seen.lists("OrderPlaced", "OrderShipped")


@pytest.mark.slow
async def test_projections_dead_letters_and_the_outbox_are_shown(
    look, orders, shared_store, shared_database_url
):
    checkpoints, letters = CheckpointRepository(shared_store), DLQRepository(shared_store)
    outbox = OutboxRepository(shared_store)
    await checkpoints.save_position("sales", 2, orders[1].event_id, "OrderPlaced")
    await checkpoints.save_position("mails", 5, orders[2].event_id, "OrderShipped")
    for projection in ("sales", "mails"):
        await letters.add_failed_event(
            orders[0].event_id, projection, "OrderPlaced", {"customer_id": "c-1"}, failure("a\x1b[2Jb")
        )
    _, second, third = [await outbox.add_event(event) for event in orders]
    await outbox.mark_failed(second, "no broker")
    await outbox.mark_published(third)
    async with look(shared_database_url, size=(140, 40)) as seen:
        await seen.until(lambda: "Dead letters 2" in str(seen.app.tabs.get_tab("letters-tab").label))
        assert "Outbox 2" in str(seen.app.tabs.get_tab("outbox-tab").label)

        await seen.press("3")
        await seen.lists("mails", "sales")
        await seen.tells("up to date", "100.0%")
        await seen.press("down")
        await seen.tells("at most 3 events", "40.0%", "none holds it")
        await checkpoints.save_position("sales", 4, orders[1].event_id, "OrderPlaced")
        await seen.tells("at most 1 events")

        await seen.press("4")
        await seen.lists("mails", "sales")
        await seen.tells("mails gave up on OrderPlaced", "Traceback", "in failure", '"customer_id": "c-1"')
        assert "\x1b" not in seen.details() + "".join(seen.rows())
        await letters.mark_resolved(1, "ada")
        await seen.press("r")
        await seen.lists("mails")
        seen.app.pane.query_one("#letters", Select).value = "resolved"
        await seen.lists("sales")
        await seen.tells("resolved", "ada")

        await seen.press("5")
        await seen.lists("OrderPlaced")
        await seen.tells("pending", str(orders[0].event_id), '"customer_id": "c-1"')
        status = seen.app.pane.query_one("#status", Select)
        status.value = "failed"
        await seen.lists("no broker")
        await seen.tells("no broker", str(orders[1].event_id))
        status.value = "published"
        await seen.lists("OrderShipped")


@pytest.mark.slow
async def test_an_empty_store_says_so_on_every_tab_and_shows_what_comes(
    look, shared_store, shared_database_url
):
    async with look(shared_database_url) as seen:
        for key, said in (
            ("2", "No events"),
            ("3", "No projections"),
            ("4", "No dead letters"),
            ("5", "No such rows"),
            ("1", "No streams"),
        ):
            await seen.press(key)
            await seen.tells(said)
        event = placed()
        await shared_store.append_events(event.aggregate_id, "Order", [event], 0)
        await seen.lists(str(event.aggregate_id))


@pytest.mark.slow
async def test_tags_that_are_being_filled_are_shown(look, shared_store, shared_database_url):
    event = placed()
    await shared_store.append_events(event.aggregate_id, "Order", [event], 0)
    async with look(shared_database_url, size=(140, 40)) as seen:
        await seen.press("3")
        await seen.tells("No projections")
        assert "filling" not in seen.title()
        await execute(
            shared_database_url,
            "INSERT INTO tag_fillings (event_type, tag_name, global_position) VALUES ('OrderPlaced', '[customer', 0)",
        )
        await seen.until(lambda: "filling [customer:… of OrderPlaced 0 of 1" in seen.title())
        await execute(
            shared_database_url, "UPDATE tag_fillings SET completed_at = '2026-01-01 00:00:00+00:00'"
        )
        await seen.until(lambda: "filling" not in seen.title())


@pytest.mark.slow
async def test_a_reader_that_ends_after_the_parts_of_its_pane_are_gone_does_no_harm(
    look, open_stores, sqlite_url, monkeypatch
):
    """On one database: what is put on the screen does not depend on it. A screen that closes takes its parts down first."""
    store = await open_stores(sqlite_url)
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)
    is_gone = asyncio.Event()
    ended = []

    def late(read):
        async def read_late(*arguments):
            found = await read(*arguments)
            await is_gone.wait()
            ended.append(read)
            return found

        return read_late

    monkeypatch.setattr(StreamsPane, "describe", late(StreamsPane.describe))
    monkeypatch.setattr(browsing, "aggregate_types", late(browsing.aggregate_types))
    async with look(sqlite_url) as seen:
        await seen.lists(str(event.aggregate_id))
        await seen.app.pane.query("*").remove()
        is_gone.set()
        await seen.until(lambda: len(ended) == 2)


@pytest.mark.slow
async def test_further_pages_come_as_the_cursor_moves_and_end_at_the_bound(
    look, open_stores, sqlite_url, monkeypatch
):
    """On one database: what is put on the screen does not depend on it."""
    monkeypatch.setattr(panes, "MOST_ROWS", 100)
    store = await open_stores(sqlite_url)
    await asyncio.gather(
        *(store.append_events(event.aggregate_id, "Order", [event], 0) for event in map(placed, [None] * 130))
    )
    async with look(sqlite_url) as seen:
        await seen.until(lambda: len(seen.rows()) == 50)
        assert "50+" in seen.title()
        await seen.press("end")
        await seen.until(lambda: len(seen.rows()) == 100)
        await seen.press("end", "end")
        assert len(seen.rows()) == 100
        assert "found by the filter" in seen.title()


@pytest.mark.slow
async def test_pages_without_a_row_do_not_end_the_list(look, open_stores, sqlite_url, monkeypatch):
    """On one database: what is put on the screen does not depend on it."""
    monkeypatch.setattr(streams, "SMALLEST_WINDOW", 10)
    monkeypatch.setattr(streams, "PAGE_SECONDS", 0)
    store = await open_stores(sqlite_url)
    for kind, count in (("Parcel", 5), ("Order", 60), ("Parcel", 60)):
        new = [placed(aggregate_type=kind) for _ in range(count)]
        await asyncio.gather(*(store.append_events(event.aggregate_id, kind, [event], 0) for event in new))
    async with look(sqlite_url) as seen:
        chooser = seen.app.pane.query_one("#type", Select)
        await seen.until(lambda: len(chooser._options) == 3)  # all, Order, Parcel
        chooser.value = "Parcel"
        await seen.until(lambda: len(seen.rows()) < 60 and all("Parcel" in row for row in seen.rows()))
        for _ in range(6):  # each leads to a further page, until there is none
            await seen.press("end")
            await seen.until(lambda: not seen.app.pane.is_reading)
        assert len(seen.rows()) == 65


@pytest.mark.slow
async def test_details_that_come_late_are_not_shown_for_a_list_that_is_empty(look, open_stores, sqlite_url):
    """On one database: what is put on the screen does not depend on it."""
    store = await open_stores(sqlite_url)
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)
    async with look(sqlite_url) as seen:
        await seen.tells(str(event.aggregate_id))
        pane = seen.app.pane
        asked, answer = hold_up(pane, "describe")
        await seen.press("r")
        await asked.wait()
        pane.query_one("#prefix", Input).value = str(FIRST)
        await seen.tells("No streams")
        answer.set()
        await seen.until(lambda: all(each.is_finished for each in pane.workers if each.group == "details"))
        assert "No streams" in seen.details()


@pytest.mark.slow
async def test_a_key_pressed_while_the_list_is_read_anew_is_not_lost(look, open_stores, sqlite_url):
    """On one database: what is put on the screen does not depend on it."""
    store = await open_stores(sqlite_url)
    for event in (placed(FIRST), placed(SECOND)):
        await store.append_events(event.aggregate_id, "Order", [event], 0)
    async with look(sqlite_url) as seen:
        await seen.lists(str(SECOND), str(FIRST))
        pane = seen.app.pane
        asked, answer = hold_up(pane, "page")
        await seen.press("r")
        await asked.wait()
        await seen.press("down")
        answer.set()
        await seen.until(lambda: not pane.is_reading)
        assert pane.key(pane.row) == f"{FIRST}:Order"


@pytest.mark.slow
async def test_a_tab_that_is_asked_for_stays_whatever_had_the_focus_before(look, open_stores, sqlite_url):
    """On one database: what is put on the screen does not depend on it."""
    await open_stores(sqlite_url)
    async with look(sqlite_url) as seen:
        await seen.tells("No streams")
        listing = seen.app.pane.listing
        seen.app.screen.set_focus(None)
        seen.app.screen.set_focus(listing)  # its tab hears of that after the next line
        seen.app.action_tab("log")
        await seen.tells("No events")
        await seen.until(lambda: seen.app.focused is seen.app.pane.listing)
        assert seen.app.pane.id == "log"


@pytest.mark.slow
async def test_keys_and_the_mouse_lead_everywhere(look, open_stores, sqlite_url):
    """On one database: what is put on the screen does not depend on it."""
    store = await open_stores(sqlite_url)
    first, second = placed(FIRST), placed(SECOND)
    for event in (first, second):
        await store.append_events(event.aggregate_id, "Order", [event], 0)
    async with look(sqlite_url, size=(140, 40)) as seen:
        await seen.lists(str(SECOND), str(FIRST))
        await seen.press("question_mark")
        await seen.until(lambda: isinstance(seen.app.screen, HelpScreen))
        await seen.press("2", "escape")
        await seen.until(lambda: not isinstance(seen.app.screen, HelpScreen))
        assert seen.app.tabs.active == "streams-tab"
        await seen.press("z")
        assert not seen.app.pane.listing.display
        await seen.press("escape")
        await seen.until(lambda: seen.app.pane.listing.display)
        await seen.press("c")
        assert seen.app.clipboard == f"{SECOND}:Order"
        before = seen.app.theme
        await seen.press("t")
        assert seen.app.theme != before
        listing = seen.app.pane.listing
        below = (5, 3)  # the border, the columns' names, the first row
        await seen.pilot.click(listing, offset=below)
        await seen.tells(f"{FIRST}:Order")
        await seen.pilot.click(listing, offset=below)
        await seen.until(lambda: seen.app.pane.id == "stream")
        await seen.lists("OrderPlaced")
        await seen.pilot.click(seen.app.tabs.get_tab("log-tab"))
        await seen.until(lambda: seen.app.pane.id == "log")


@pytest.mark.slow
async def test_a_failure_is_a_sentence_and_passes_when_its_cause_does(
    look, orders, shared_store, shared_database_url
):
    database = database_of(shared_store)
    async with look(shared_database_url) as seen:
        await seen.lists(str(PARCEL), str(SECOND), str(FIRST))
        await database.run_script(["ALTER TABLE events RENAME TO elsewhere"])
        await seen.press("r")
        await seen.until(lambda: "has no esource tables" in seen.banner())
        assert "Traceback" not in seen.banner()
        await seen.press("2")
        await database.run_script(["ALTER TABLE elsewhere RENAME TO events"])
        await seen.until(lambda: seen.banner() == "")
        await seen.lists(*("5", "4", "3", "2", "1"))


@pytest.mark.slow
async def test_a_failure_that_only_one_tab_met_passes_as_well(
    look, orders, shared_store, shared_database_url
):
    database = database_of(shared_store)
    async with look(shared_database_url) as seen:
        await database.run_script(["ALTER TABLE events RENAME COLUMN payload TO elsewhere"])
        await seen.press("2")
        await seen.until(lambda: "older schema" in seen.banner())
        assert ("", "") not in seen.app._troubles  # the end of the log can be read all the time
        await database.run_script(["ALTER TABLE events RENAME COLUMN elsewhere TO payload"])
        await seen.until(lambda: seen.banner() == "")
        await seen.lists(*("5", "4", "3", "2", "1"))


async def test_a_file_that_is_gone_is_named(look, sqlite_url, tmp_path):
    """SQLite only: an open file can be read on after it was deleted."""
    check = still_there(database_url(sqlite_url))
    async with look(sqlite_url, check=check) as seen:
        (tmp_path / "events.db").rename(tmp_path / "other.db")
        await seen.until(lambda: "no such file any more" in seen.banner())
        (tmp_path / "other.db").rename(tmp_path / "events.db")
        await seen.until(lambda: seen.banner() == "")


async def test_without_a_terminal_or_the_extra_the_command_names_the_remedy(sqlite_url, monkeypatch):
    """On one database: it is refused before anything is opened."""
    done = await esource("inspect", "--url", sqlite_url)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "needs a terminal" in done.stderr
    for module in ("esource.tui.app", "textual"):
        monkeypatch.setitem(sys.modules, module, None)
    done = await esource("inspect", "--url", sqlite_url)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "pip install 'esource[tui]'" in done.stderr

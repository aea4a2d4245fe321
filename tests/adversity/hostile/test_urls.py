"""Names of files and URLs of databases: what is opened is what was named, or nothing is."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy.engine import make_url
from support.orders import placed
from typer.testing import CliRunner

from esource import EventSourceError, InvalidOptionError, SQLiteEventStore, open_store, schema
from esource.cli.app import app

SECRET = "s3cr3t/p%w:rd"
ENCODED = "s3cr3t%2Fp%25w%3Ard"

NAMES = [
    *(
        " ",
        "\n.db",
        "a b.db",
        "%41.db",
        "a%00b.db",
        "?.db",
        "a?mode=ro",
        "#.db",
        "é\u202e😀.db",
        "':;--.db",
        "~.db",
    ),
    *(
        "file:x.db",
        "file:x.db?mode=memory",
        "file::memory:?cache=shared",
        ":memory: ",
        "-x",
        "a\\b",
    ),
    *("../up/x.db", "deep/../deeper/x.db", "x" * 240),
]
MISLEADING = [
    "sqlite:x.db",
    "sqlite://events.db",
    "sqlite://user:pw@host/x.db",
    "sqlite:///x.db?mode=memory&uri=true",
]
UNREADABLE = [
    "a\x00b.db",
    "a\ud800.db",
    "sqlite:///a\x00b",
    "x" * 5000,
    "/dev/null/x.db",
    "",
    "mysql://h/d",
    "://",
]


async def round_trip(store) -> None:
    order = uuid4()
    await store.append_events(order, "Order", [placed(order)], 0)
    assert await store.get_stream_version(order, "Order") == 1


@pytest.mark.slow
async def test_a_file_gets_exactly_the_name_that_was_given_on_sqlite(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in NAMES:
        async with SQLiteEventStore(name, enable_tracing=False, synchronous="NORMAL") as store:
            await store.initialize()
            await round_trip(store)
        assert Path(name).is_file(), name
        async with SQLiteEventStore(f"/{folder}/{name}", read_only=True) as store:
            assert await store.get_global_position() == 1
        Path(name).unlink()
    assert [found for found in folder.iterdir() if found.is_file()] == []


@pytest.mark.parametrize("url", [*MISLEADING, *UNREADABLE])
async def test_what_names_no_file_is_refused_and_nothing_is_made_on_sqlite(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EventSourceError):
        async with open_store(url, enable_tracing=False) as store:
            await store.initialize()
    assert list(tmp_path.iterdir()) == []


async def test_bytes_are_no_name_on_sqlite():
    with pytest.raises(InvalidOptionError, match="bytes"):
        SQLiteEventStore(b"events.db")  # type: ignore[arg-type]


WITH_SECRET = [
    f"postgresql://u:{ENCODED}@127.0.0.1:1/db",
    f"postgresql://127.0.0.1:1/db?user=u&password={ENCODED}",
    f"postgresql://u:x@127.0.0.1:1/db?password={ENCODED}",
    f"postgresql://u@nohost.invalid:1/db?password={ENCODED}",
    f"postgresql://u@127.0.0.1:1/db?password=x&password={ENCODED}",
    f"postgresql://u@127.0.0.1:1/db?passwd={ENCODED}",
    f"postgresql://u@127.0.0.1:1/db?PASSWORD={ENCODED}",
    f"postgresql://u@127.0.0.1:1/db?sslpassword={ENCODED}",
    f"postgresql://u@127.0.0.1:1/db?dsn=postgresql://u:{ENCODED}@h/db",
    f"postgresql://u@127.0.0.1:1/db?port={ENCODED}",
    f"postgresql://u:{ENCODED}@127.0.0.1:99999/db",
    f"postgresql://u:{ENCODED}@127.0.0.1:x/db",
    f"postgresql://u:{ENCODED}@[::1/db",
    f"postgresql://u:{ENCODED}@127.0.0.1:1/d%00b",
    f"postgresql://u:{SECRET}@127.0.0.1:1/db",
    f"postgresql+psycopg2://u:{ENCODED}@127.0.0.1:1/db",
    f"mysql://u:{ENCODED}@127.0.0.1:1/db",
    f"sqlite://u:{ENCODED}@host/x.db",
    f"://u:{ENCODED}@",
    # The password has an @ of its own, which ends it for SQLAlchemy: the rest is a host, a name or an option.
    *(
        f"postgresql://u:{password}@127.0.0.1:1/db"
        for password in (
            "a@s3cr3t",
            "a@s3cr3t@b",
            "a@b/s3cr3t",
            "a@b?s3cr3t",
            "a@b?s3cr3t=1",
            "a@b:s3cr3t",
            "a@b#s3cr3t",
        )
    ),
    "postgresql://u:a@b?sslmode=s3cr3t@127.0.0.1:1/db",
]


def assert_kept(text: str) -> None:
    assert "s3cr3t" not in text, text


@pytest.mark.parametrize("url", WITH_SECRET)
async def test_no_message_shows_a_password(url, caplog, monkeypatch):
    monkeypatch.setattr("esource.database.database.RETRY_SECONDS", 0.05)
    caplog.set_level(logging.DEBUG, "esource")
    with pytest.raises(EventSourceError) as caught:
        store = open_store(url, enable_tracing=False)
        database = store._opened.database
        assert_kept(f"{store!r} {store.database} {database!r} {database.name} {database.url!r}")
        try:
            await store.open()
            await store.get_global_position()
        finally:
            assert_kept(repr(database.connections.engine))
            await store.close()
    assert_kept("".join(traceback.format_exception(caught.value)))
    assert_kept(caplog.text)


@pytest.mark.parametrize("url", WITH_SECRET[:9])
def test_the_command_line_shows_no_password(url, monkeypatch):
    monkeypatch.setattr("esource.database.database.RETRY_SECONDS", 0.05)
    for arguments in (["--traceback", "stats"], ["stats"]):
        result = CliRunner().invoke(app, [*arguments, "--url", url])
        assert "Error" in result.output
        assert_kept(result.output)


@pytest.mark.parametrize("url", WITH_SECRET)
def test_alembic_shows_no_password(url, monkeypatch):
    from alembic import command

    monkeypatch.setattr("esource.database.database.RETRY_SECONDS", 0.05)
    monkeypatch.setenv("ESOURCE_URL", url)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Alembic's own, which says little
        command.current(schema.alembic_config())
    assert_kept("".join(traceback.format_exception(caught.value)))


async def test_a_wrong_password_or_database_is_not_shown_on_postgresql(postgres_url, caplog):
    caplog.set_level(logging.DEBUG, "esource")
    good = make_url(postgres_url)
    for wrong in (
        good.set(username="nobody", password=SECRET),
        good.set(database="nothing", password=SECRET),
    ):
        with pytest.raises(EventSourceError) as caught:
            async with open_store(wrong.render_as_string(hide_password=False)) as store:
                await store.get_global_position()
        assert_kept("".join(traceback.format_exception(caught.value)))
    assert_kept(caplog.text)


async def test_a_password_among_the_options_is_used_on_postgresql(postgres_url, open_stores):
    with_option = make_url(postgres_url).set(password=None).update_query_dict({"password": SECRET})
    store = await open_stores(with_option.render_as_string(hide_password=False))
    await round_trip(store)
    assert store._opened.database.url.password == SECRET
    assert_kept(repr(store._opened.database.connections.engine))

"""URLs and paths as people paste them."""

from inspect import isawaitable
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from esource import (
    CheckpointRepository,
    InvalidOptionError,
    PostgreSQLEventStore,
    SQLiteEventStore,
    open_store,
    schema,
)


@pytest.mark.parametrize(
    "form", ["sqlite:///{}", "sqlite+aiosqlite:///{}", "{}", Path], ids=["url", "driver", "text", "path"]
)
async def test_every_way_to_name_a_file_opens_that_file(form, tmp_path):
    file = tmp_path / "events.db"
    async with open_store(form(file) if form is Path else form.format(file)) as store:
        await store.initialize()
    assert file.exists()


async def test_a_relative_path_is_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, named in enumerate(("sqlite:///{}", "{}")):
        async with open_store(named.format(f"{number}.db")) as store:
            await store.initialize()
        assert (tmp_path / f"{number}.db").exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite+aiosqlite://", ":memory:"])
async def test_every_way_to_say_in_memory_makes_no_file(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with open_store(url) as store:
        await store.initialize()
    assert list(tmp_path.iterdir()) == []


def test_two_slashes_are_one_too_few():
    with pytest.raises(InvalidOptionError, match=r"three slashes before the path: sqlite:///events\.db"):
        open_store("sqlite://events.db")


@pytest.mark.parametrize("url", ["sqlite:///events.db", "postgresql://me:secret@host/db", "sqlite:events.db"])
def test_a_url_is_no_path(url):
    with pytest.raises(InvalidOptionError, match="open_store takes a URL") as refused:
        SQLiteEventStore(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgresql+psycopg2", "postgresql+psycopg", "postgres+psycopg2"])
def test_another_driver_is_named_with_the_one_to_write(scheme):
    with pytest.raises(InvalidOptionError, match=r"asyncpg, not psycopg.*: write postgres(ql)?://"):
        open_store(f"{scheme}://me@host/db")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ssl": "allow", "target_session_attrs": "read-write"},
        {
            "sslmode": "prefer",
            "channel_binding": "prefer",
            "connect_timeout": "30",
            "application_name": "shop",
        },
    ],
    ids=["plain", "asyncpg", "libpq"],
)
async def test_every_way_to_name_a_server_connects_on_postgresql(scheme, settings, postgres_url):
    url = make_url(postgres_url).set(drivername=scheme).update_query_dict(settings)
    async with PostgreSQLEventStore(url) as store, store.transaction() as transaction:
        name = await transaction.connection.exec_driver_sql("SHOW application_name")
        assert name.scalar() == settings.get("application_name", "")


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("channel_binding=require", "channel_binding: asyncpg has no such setting. Take it out of the URL"),
        ("connect_timeout=soon", "connect_timeout must be a number of seconds, not 'soon'"),
        ("sslmode=bogus", "sslmode must be one of disable, .*verify-full, not 'bogus'"),
        ("ssl=true", "ssl must be one of disable, .*verify-full, not 'true'"),
        ("target_session_attrs=master", "target_session_attrs must be one of any, primary, .*not 'master'"),
    ],
)
async def test_a_setting_that_asyncpg_lacks_is_named(setting, text):
    with pytest.raises(InvalidOptionError, match=text):
        await open_store(f"postgresql://me@localhost/db?{setting}").open()


@pytest.mark.parametrize("form", ["sqlite:///~/shop/events.db", "~/shop/events.db", Path("~/shop/events.db")])
async def test_a_tilde_is_the_home_folder(form, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    async with open_store(form) as store:
        await store.initialize()
        assert str(tmp_path / "home") in store.name
    assert (tmp_path / "home" / "shop" / "events.db").is_file()
    assert [found.name for found in tmp_path.iterdir()] == ["home"]
    await schema.upgrade("sqlite:///~/shop/events.db")


def test_the_home_of_a_user_that_nobody_knows_is_no_folder_to_make():
    with pytest.raises(InvalidOptionError, match="no home folder is known for '~nobody_of_this_name'"):
        open_store("~nobody_of_this_name/events.db")


@pytest.mark.parametrize(
    "url", ["sqlite:///q?x.db", "sqlite:///q?mode=ro", "sqlite:///q.db?", "sqlite://?cache=shared"]
)
async def test_a_question_mark_in_a_url_of_sqlite_opens_no_other_file(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for use in (open_store, schema.current, CheckpointRepository):
        with pytest.raises(InvalidOptionError, match="a SQLite URL has no options; pass keywords"):
            result = use(url)
            if isawaitable(result):
                await result
    assert list(tmp_path.iterdir()) == []


async def test_a_path_may_have_a_question_mark(tmp_path):
    async with SQLiteEventStore(tmp_path / "q?x.db") as store:
        await store.initialize()
    assert (tmp_path / "q?x.db").is_file()


@pytest.mark.parametrize(
    "url", ["postgresql://me:p@ss@host/db", "postgresql://me:p@s/s@host/db", "postgresql://me@host/d@b"]
)
def test_a_second_at_sign_is_to_be_written_with_its_code(url):
    with pytest.raises(InvalidOptionError, match="more than one @: write %40"):
        open_store(url)


def test_at_signs_in_the_options_are_no_second_one():
    store = open_store("postgresql://me@host/db?password=p@ss&host=/tmp/a@b")
    assert store._opened.database.url.password == "p@ss"


def test_an_option_without_a_value_is_not_passed_over():
    with pytest.raises(InvalidOptionError, match="has no value"):
        open_store("postgresql://me@host/db?sslmode")

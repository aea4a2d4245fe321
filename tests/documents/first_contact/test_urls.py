"""URLs and paths as people paste them."""

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from esource import InvalidOptionError, PostgreSQLEventStore, SQLiteEventStore, open_store


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

"""Every way to run the scripts, each with the real command in a process of its own."""

import sys

import pytest
from support.documents import blocks
from support.schemas import CHECKOUT, alembic, described, execute, rows, run

from esource import EventRegistry, open_store, schema

APPEND = """
import asyncio, sys
from uuid import uuid4
import esource
from esource import DomainEvent, open_store, register_event

@register_event
class Noted(DomainEvent):
    event_type: str = "Noted"
    aggregate_type: str = "Note"

async def main():
    async with open_store(sys.argv[1]) as store:
        await store.initialize()
        note = uuid4()
        await store.append_events(note, "Note", [Noted(aggregate_id=note)], 0)
        print((await store.get_events(note, "Note")).version, esource.__file__)

asyncio.run(main())
"""


async def is_at_head(url: str) -> bool:
    """The version says so, and so does every table."""
    expected = f"{url}.expected" if url.startswith("sqlite") else None
    if await schema.current(url) != schema.HEAD:
        return False
    found = await described(url)
    if expected is None:
        await schema.downgrade(url, "base")
        expected = url
    await schema.upgrade(expected)
    return found == await described(expected)


# -- the checkout ----------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_in_the_checkout_the_environment_names_the_database(empty_database_url):
    alembic("upgrade", "head", cwd=CHECKOUT, environment={"ESOURCE_URL": empty_database_url})

    assert await is_at_head(empty_database_url)


@pytest.mark.slow
async def test_in_the_checkout_an_argument_names_the_database_before_the_environment(
    empty_database_url, tmp_path
):
    other = f"sqlite:///{tmp_path / 'other.db'}"
    alembic(
        "-x",
        f"url={empty_database_url}",
        "upgrade",
        "head",
        cwd=CHECKOUT,
        environment={"ESOURCE_URL": other},
    )

    assert await is_at_head(empty_database_url)
    assert not (tmp_path / "other.db").exists()


@pytest.mark.slow
async def test_in_the_checkout_history_current_check_and_downgrade_work(empty_database_url):
    environment = {"ESOURCE_URL": empty_database_url}
    alembic("upgrade", "head", cwd=CHECKOUT, environment=environment)
    assert f"esource_{schema.HEAD} (esource) (head)" in alembic("history", cwd=CHECKOUT).stdout
    assert f"esource_{schema.HEAD} (head)" in alembic("current", cwd=CHECKOUT, environment=environment).stdout
    assert "No new upgrade operations" in alembic("check", cwd=CHECKOUT, environment=environment).stdout

    alembic("downgrade", "esource_0001", cwd=CHECKOUT, environment=environment)

    assert await schema.current(empty_database_url) == "0001"


MISTAKES = {
    "none": ([], "pass `alembic -x url=sqlite:///events.db"),
    "no URL at all": (["-x", "url=events"], "the database URL cannot be read"),
    "another database": (["-x", "url=mysql://localhost/events"], "no backend for 'mysql' URLs"),
    "another driver": (
        ["-x", "url=postgresql+psycopg2://localhost/events"],
        "the driver for postgresql is asyncpg",
    ),
    "no server": (["-x", "url=postgresql://app:secret@127.0.0.1:1/events"], "Check that the server runs"),
    "no file": (["-x", "url=sqlite:////dev/null/events.db"], "Choose another path"),
    "no such revision": (["-x", "url=sqlite://"], "Can't locate revision"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_url_is_said_in_one_line(arguments, message):
    revision = "0999" if message == "Can't locate revision" else "head"
    finished = alembic(*arguments, "upgrade", revision, cwd=CHECKOUT, ok=False)

    assert message in finished.stdout
    assert "Traceback" not in finished.stdout + finished.stderr
    assert "secret" not in finished.stdout + finished.stderr


@pytest.mark.slow
async def test_two_deployments_migrate_at_once(empty_database_url):
    import asyncio

    await schema.upgrade(empty_database_url, "0001")
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "alembic",
            "-x",
            f"url={empty_database_url}",
            "upgrade",
            "head",
            cwd=CHECKOUT,
        )
        for _ in range(3)
    ]

    assert [await process.wait() for process in processes] == [0, 0, 0]
    assert await is_at_head(empty_database_url)


# -- offline -----------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_offline_the_printed_sql_leads_to_the_same_schema_and_back(empty_database_url):
    url = empty_database_url
    printed = alembic("-x", f"url={url}", "upgrade", "head", "--sql", cwd=CHECKOUT).stdout
    assert not await has_tables(url)

    await execute(url, printed)
    assert await is_at_head(url)
    await execute(
        url, alembic("-x", f"url={url}", "downgrade", "head:esource_0001", "--sql", cwd=CHECKOUT).stdout
    )

    assert await schema.current(url) == "0001"


async def has_tables(url: str) -> bool:
    return await schema.current(url) is not None


@pytest.mark.slow
async def test_offline_the_printed_sql_keeps_what_is_stored(empty_database_url):
    url = empty_database_url
    await schema.upgrade(url, "0001")
    await execute(
        url,
        "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, version, timestamp, payload) "
        "VALUES ('e0000000-0000-4000-8000-000000000001', 'a0000000-0000-4000-8000-000000000001', 'Order', "
        "'OrderPlaced', 1, '2025-03-01T17:30:00.5+05:30', '{\"total\": 1.0}')",
    )

    await execute(
        url, alembic("-x", f"url={url}", "upgrade", "esource_0001:head", "--sql", cwd=CHECKOUT).stdout
    )

    assert await schema.current(url) == schema.HEAD
    async with open_store(url, EventRegistry(), unknown_events="untyped", enable_tracing=False) as store:
        [stored] = [stored async for stored in store.read_all()]
    assert stored.event.occurred_at.isoformat() == "2025-03-01T12:00:00.500000+00:00"


# -- the installed package -----------------------------------------------------------------------------------


@pytest.mark.slow
async def test_from_the_installed_wheel_alembic_finds_the_scripts_in_the_package(
    installed, empty_database_url, tmp_path
):
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = esource:migrations\n")

    run(
        str(installed),
        "-m",
        "alembic",
        "upgrade",
        "head",
        cwd=tmp_path,
        environment={"ESOURCE_URL": empty_database_url},
    )
    printed = run(str(installed), "-c", APPEND, empty_database_url, cwd=tmp_path).stdout

    assert printed.startswith("1 ")
    assert str(installed.parents[1]) in printed
    assert await schema.current(empty_database_url) == schema.HEAD


@pytest.mark.slow
async def test_the_installed_wheel_initializes_without_any_ini_file(installed, empty_database_url, tmp_path):
    printed = run(str(installed), "-c", APPEND, empty_database_url, cwd=tmp_path).stdout

    assert str(installed.parents[1]) in printed
    assert await is_at_head(empty_database_url)


# -- inside an application's own Alembic ------------------------------------------------------------------------

HOST_INI = blocks((CHECKOUT / "docs" / "how-to" / "migrate.md").read_text(encoding="utf-8"), "ini")[1]
"""As the documentation shows it."""
HOST_ENV = """
import asyncio, os
from alembic import context
from sqlalchemy import Column, Integer, MetaData, Table
from sqlalchemy.ext.asyncio import create_async_engine
from esource.schema import include_name

metadata = MetaData()
Table("customers", metadata, Column("id", Integer, primary_key=True))

def run(connection):
    context.configure(connection=connection, target_metadata=metadata, include_name=include_name)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    engine = create_async_engine(os.environ["HOST_URL"])
    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()

asyncio.run(main())
"""
HOST_REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "host1"
down_revision = None

def upgrade():
    op.create_table("customers", sa.Column("id", sa.Integer(), primary_key=True))

def downgrade():
    op.drop_table("customers")
"""


@pytest.fixture
def host(installed, tmp_path, empty_database_url):
    """An application's Alembic that takes in the installed scripts as a branch; runs its commands."""
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    (tmp_path / "alembic.ini").write_text(HOST_INI)
    (tmp_path / "migrations" / "env.py").write_text(HOST_ENV)
    (tmp_path / "migrations" / "versions" / "host1_customers.py").write_text(HOST_REVISION)
    driver = "sqlite+aiosqlite" if empty_database_url.startswith("sqlite") else "postgresql+asyncpg"
    url = empty_database_url.replace(empty_database_url.split(":")[0], driver, 1)

    def command(*arguments: str) -> str:
        finished = run(
            str(installed), "-m", "alembic", *arguments, cwd=tmp_path, environment={"HOST_URL": url}
        )
        return finished.stdout

    return command


@pytest.mark.slow
async def test_an_application_upgrades_our_branch_with_its_own(host, empty_database_url, tmp_path):
    url = empty_database_url

    host("upgrade", "heads")

    assert sorted(await rows(url, "SELECT version_num FROM alembic_version")) == [
        (f"esource_{schema.HEAD}",),
        ("host1",),
    ]
    assert await schema.current(url) == schema.HEAD
    assert run(sys.executable, "-c", APPEND, url, cwd=tmp_path).stdout.startswith("1 ")
    await execute(url, "DROP TABLE customers", "DROP TABLE alembic_version")
    assert await is_at_head(url)


@pytest.mark.slow
async def test_an_application_takes_our_branch_down_and_up_again(host, empty_database_url):
    url = empty_database_url
    host("upgrade", "heads")

    host("downgrade", "esource_0001")
    assert await schema.current(url) == "0001"
    host("downgrade", "esource@base")
    assert await schema.current(url) is None
    host("upgrade", "esource@head")

    assert await schema.current(url) == schema.HEAD
    assert await rows(url, "SELECT * FROM customers") == []


@pytest.mark.slow
async def test_an_applications_autogenerate_leaves_our_tables_alone(host):
    host("upgrade", "heads")

    assert "No new upgrade operations" in host("check")


@pytest.mark.slow
async def test_without_include_name_an_applications_autogenerate_leaves_our_tables_alone_too(host, tmp_path):
    host("upgrade", "heads")
    environment = tmp_path / "migrations" / "env.py"
    environment.write_text(environment.read_text().replace(", include_name=include_name", ""))

    assert "No new upgrade operations" in host("check")

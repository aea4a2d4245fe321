"""An application with an Alembic of its own, set up as the pages teach it, from the wheel, with the real commands."""

import re
import sys
from pathlib import Path

import pytest
from support.documents import blocks
from support.schemas import CHECKOUT, rows, run

from esource import schema

pytestmark = pytest.mark.slow

PAGE = (CHECKOUT / "docs" / "how-to" / "migrate.md").read_text(encoding="utf-8")
APART, TOGETHER = [
    [line.partition("  #")[0].strip() for line in block.splitlines()]
    for block in blocks(PAGE, "sh")
    if "revision --autogenerate" in block
]
"""The commands of both ways, as the page has them."""
TOGETHER_INI = next(block for block in blocks(PAGE, "ini") if "version_locations" in block)

MODELS = """
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Text

metadata = MetaData()
Table("customers", metadata, Column("id", Integer, primary_key=True))
"""
SECOND_SCHEMA = """
Table("events", metadata, Column("id", Integer, primary_key=True), Column("note", Text), schema="app")
"""
APPEND = """
import asyncio, sys
from uuid import UUID
from esource import DomainEvent, open_store, register_event

@register_event
class Noted(DomainEvent):
    event_type: str = "Noted"
    aggregate_type: str = "Note"

async def main():
    async with open_store(sys.argv[1]) as store:
        await store.append_events(UUID(int=7), "Note", [Noted()])
        print(len([stored async for stored in store.read_all()]))

asyncio.run(main())
"""
KINDS = [
    f"{database}, {way}" for database in ("sqlite", "postgresql") for way in ("synchronous", "asynchronous")
]
EACH_ONCE, EACH_ONCE_MORE = KINDS[::3], KINDS[1:3]
"""Each database and each way once: enough where the two do not work together. Together they are all."""


class Application:
    """A folder with an Alembic, made by ``alembic init``."""

    def __init__(self, python: Path, folder: Path, url: str, *, asynchronous: bool) -> None:
        self.python, self.folder, self.url = python, folder, url
        template = ["-t", "async"] if asynchronous else []
        self.run("alembic", "init", *template, "migrations")
        kind, rest = url.split("://", 1)
        drivers = {"sqlite": ["", "+aiosqlite"], "postgresql": ["+psycopg", "+asyncpg"]}
        driver = drivers[kind][asynchronous]
        self.change(
            "alembic.ini",
            r"^sqlalchemy.url = .*$",
            f"sqlalchemy.url = {kind}{driver}://{rest}".replace("%", "%%"),
        )
        (folder / "models.py").write_text(MODELS)
        self.change(
            "migrations/env.py", "target_metadata = None", "from models import metadata as target_metadata"
        )

    def run(self, command: str, *arguments: str, ok: bool = True) -> str:
        done = run(
            str(self.python), "-m", command, *arguments,
            cwd=self.folder, ok=ok, environment={"ESOURCE_URL": self.url},
        )  # fmt: skip
        return done.stdout + done.stderr

    def enter(self, line: str, *, ok: bool = True) -> str:
        """A command as a page shows it."""
        import shlex

        command, *arguments = shlex.split(line)
        return self.run(command, *arguments, ok=ok)

    def change(self, name: str, pattern: str, replacement: str) -> None:
        place = self.folder / name
        text, count = re.subn(pattern, lambda _: replacement, place.read_text(), flags=re.MULTILINE)
        assert count, (name, pattern)
        place.write_text(text)

    def name_the_filter(self, more: str = "") -> None:
        """As the pages say: in both calls of `context.configure`."""
        found = "target_metadata=target_metadata"
        self.change("migrations/env.py", found, f"{found}, include_name=include_name{more}")
        self.change("migrations/env.py", r"\A", "from esource.schema import include_name\n")

    def revisions(self) -> list[Path]:
        return list((self.folder / "migrations" / "versions").glob("*.py"))

    def append(self) -> int:
        """Append one event; how many there are then."""
        return int(run(str(self.python), "-c", APPEND, self.url, cwd=self.folder).stdout)


@pytest.fixture
def application(request, installed, tmp_path) -> Application:
    kind, _, way = request.param.partition(", ")
    if kind == "postgresql":
        url = request.getfixturevalue("empty_postgres_url")
    else:
        url = f"sqlite:///{tmp_path / 'application.db'}"
    (tmp_path / "shop").mkdir()
    return Application(installed, tmp_path / "shop", url, asynchronous=way == "asynchronous")


@pytest.mark.parametrize(
    ("application", "told"),
    [
        *(pytest.param(kind, True, id=f"{kind}, as the page says") for kind in EACH_ONCE_MORE),
        *(pytest.param(kind, False, id=f"{kind}, without include_name") for kind in EACH_ONCE),
    ],
    indirect=["application"],
)
async def test_apart_the_applications_commands_concern_its_own_tables(application, told):
    on_postgresql = application.url.startswith("postgresql")
    if on_postgresql:
        with (application.folder / "models.py").open("a") as models:
            models.write(SECOND_SCHEMA)
        from support.schemas import execute

        await execute(application.url, "CREATE SCHEMA app")
    more = ", include_schemas=True" if on_postgresql else ""
    if told:
        application.name_the_filter(more)
    elif more:
        found = "target_metadata=target_metadata"
        application.change("migrations/env.py", found, found + more)

    for command in APART:
        application.enter(command)
    assert application.append() == 1

    [script] = application.revisions()
    written = script.read_text()
    assert "create_table('customers'" in written
    assert ("schema='app'" in written) == on_postgresql
    for name in (*schema.TABLES - {"events"}, schema.VERSION_TABLE, "payload"):
        assert name not in written
    assert "No new upgrade operations" in application.run("alembic", "check")
    assert application.enter(APART[0]).endswith("already.\n")

    (application.folder / "models.py").write_text("from sqlalchemy import MetaData\nmetadata = MetaData()\n")
    application.run("alembic", "revision", "--autogenerate", "-m", "gone")
    application.run("alembic", "upgrade", "head")
    application.run("alembic", "downgrade", "-1")
    application.run("alembic", "downgrade", "base")
    assert application.append() == 2
    assert await schema.current(application.url) == schema.HEAD
    assert await rows(application.url, "SELECT version_num FROM alembic_version") == []


@pytest.mark.parametrize("application", EACH_ONCE_MORE, indirect=True)
async def test_apart_a_script_that_would_drop_our_tables_is_refused(application):
    application.enter(APART[0])
    assert application.append() == 1
    application.run("alembic", "revision", "-m", "tidy")
    [script] = application.revisions()
    text = script.read_text().replace("pass", 'op.drop_table("events")', 1)
    assert "drop_table" in text
    script.write_text(text)

    said = application.run("alembic", "upgrade", "head", ok=False)

    assert "op.drop_table('events') would drop or change what esource keeps its events in" in said
    assert "Traceback" not in said
    assert application.append() == 2


@pytest.mark.parametrize("application", EACH_ONCE, indirect=True)
async def test_together_each_command_names_its_branch(application):
    url = re.search(r"^sqlalchemy.url = .*$", (application.folder / "alembic.ini").read_text(), re.MULTILINE)[
        0
    ]
    (application.folder / "alembic.ini").write_text(f"{TOGETHER_INI}prepend_sys_path = .\n{url}\n")
    environment = application.folder / "migrations" / "env.py"
    environment.write_text(environment.read_text().replace("fileConfig(config.config_file_name)", "pass"))
    upgrade, first, second, upgrade_again, downgrade = TOGETHER
    site_packages = application.python.parents[1]
    before = sorted(site_packages.rglob("versions/*.py"))

    application.enter(upgrade)
    for options in (["--autogenerate"], []):
        said = application.run("alembic", "revision", *options, "-m", "lost", ok=False)
        assert "this revision would follow esource's" in said
    application.enter(first)
    application.enter(upgrade_again)
    assert application.append() == 1
    (application.folder / "models.py").write_text(MODELS.replace('"customers"', '"orders"'))
    application.enter(second)
    application.enter(upgrade_again)
    assert len(application.revisions()) == 2
    assert sorted(site_packages.rglob("versions/*.py")) == before

    application.enter(downgrade)
    application.run("alembic", "downgrade", "app@base")
    assert application.append() == 2
    for too_much in ("-1", "base"):
        said = application.run("alembic", "downgrade", too_much, ok=False)
        assert "would take back esource's schema" in said
    assert application.append() == 3
    assert await schema.current(application.url) == schema.HEAD
    application.run("alembic", "downgrade", "esource@-1")
    assert await schema.current(application.url) == schema.REVISIONS[-2]


def test_the_python_of_the_tests_has_no_other_application(installed):
    assert str(installed) != sys.executable

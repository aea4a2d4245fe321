"""An application's Alembic does not drop or change our tables, whatever its ``env.py`` says: here without one, in
`test_an_applications_alembic` with the real command."""

import io

import pytest
from alembic import command
from alembic.autogenerate import produce_migrations
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Column, Integer, MetaData, Table, Text
from support.schemas import described, execute, rows

from esource import schema
from esource.database.database import Database
from esource.schema import protection
from esource.tables import metadata as our_metadata

protection.protect()


async def in_alembic(url, work, models=None, **options):
    """Run something as a script of an application's Alembic would; what it returns."""

    def run(connection):
        context = MigrationContext.configure(connection, opts={"target_metadata": models, **options})
        return work(context)

    database = Database.from_url(url)
    try:
        async with database.transaction() as unit:
            return await unit.connection.run_sync(run)
    finally:
        await database.close()


def operations_of(script):
    return [
        (type(operation).__name__, getattr(operation, "table_name", None), getattr(operation, "schema", None))
        for operation in script.upgrade_ops.ops + script.downgrade_ops.ops
    ]


async def test_autogenerate_without_any_filter_writes_nothing_about_our_tables(
    shared_store, shared_database_url
):
    models = MetaData()
    Table("customers", models, Column("id", Integer, primary_key=True))
    await execute(
        shared_database_url, "CREATE TABLE gone (id INTEGER)", "CREATE INDEX theirs ON events (actor_id)"
    )

    script = await in_alembic(
        shared_database_url, lambda context: produce_migrations(context, models), models
    )

    assert operations_of(script) == [
        ("CreateTableOp", "customers", None),
        ("DropTableOp", "gone", None),
        ("CreateTableOp", "gone", None),
        ("DropTableOp", "customers", None),
    ]


async def test_autogenerate_writes_what_an_application_adds_to_our_tables_and_no_more(
    shared_store, shared_database_url
):
    models = MetaData()
    theirs = Table("events", models, Column("note", Text))
    for column in our_metadata.tables["events"].columns:
        if column.name not in ("payload", "tenant_id"):
            theirs.append_column(column._copy())

    script = await in_alembic(
        shared_database_url, lambda context: produce_migrations(context, models), models
    )

    [change] = script.upgrade_ops.ops
    assert [(type(op).__name__, getattr(op, "column", column).name) for op in change.ops] == [
        ("AddColumnOp", "note")
    ]


DESTRUCTIVE = {
    "drop_table": lambda op: op.drop_table("events"),
    "drop the version table": lambda op: op.drop_table("esource_alembic_version"),
    "rename_table": lambda op: op.rename_table("snapshots", "states"),
    "drop_column": lambda op: op.drop_column("events", "payload"),
    "alter_column": lambda op: op.alter_column("event_outbox", "status", nullable=True),
    "rename a column": lambda op: op.alter_column("events", "payload", new_column_name="data"),
    "drop_index": lambda op: op.drop_index("idx_events_timestamp"),
    "drop_index of a table": lambda op: op.drop_index("idx_events_timestamp", "events"),
    "drop_constraint": lambda op: op.drop_constraint("uq_events_aggregate_version", "events"),
}


@pytest.mark.parametrize("operation", DESTRUCTIVE.values(), ids=DESTRUCTIVE)
async def test_an_operation_that_drops_or_changes_what_is_ours_is_refused(shared_database_url, operation):
    before = await described(shared_database_url)

    with pytest.raises(CommandError, match="what esource keeps its events in"):
        await in_alembic(shared_database_url, lambda context: operation(Operations(context)))

    assert await described(shared_database_url) == before


async def test_batch_mode_does_not_write_our_tables_anew(sqlite_url):
    """SQLite's way to alter a table, in which Alembic loses what it cannot read."""
    before = await described(sqlite_url)

    def alter(context):
        with Operations(context).batch_alter_table("events", recreate="always") as batch:
            batch.add_column(Column("note", Text))

    with pytest.raises(CommandError, match=r"op.batch_alter_table\('events'\)"):
        await in_alembic(sqlite_url, alter)
    assert await described(sqlite_url) == before


async def test_what_an_application_has_added_it_may_change_and_drop(shared_database_url):
    def work(context):
        op = Operations(context)
        op.add_column("events", Column("note", Text))
        op.create_index("theirs", "events", ["note"])
        op.drop_index("theirs", "events")
        op.alter_column("events", "note", new_column_name="remark")
        op.drop_column("events", "remark")

    before = await described(shared_database_url)
    await in_alembic(shared_database_url, work)
    assert await described(shared_database_url) == before


async def test_a_table_by_our_name_is_an_applications_where_esource_is_not(empty_database_url):
    url = empty_database_url
    await execute(url, "CREATE TABLE events (id INTEGER, note TEXT)")
    models = MetaData()

    def work(context):
        op = Operations(context)
        found = operations_of(produce_migrations(context, models))
        with op.batch_alter_table(
            "events", recreate="always" if url.startswith("sqlite") else "auto"
        ) as batch:
            batch.add_column(Column("payload", Text))
        op.drop_column("events", "payload")
        op.drop_table("events")
        return found

    assert ("DropTableOp", "events", None) in await in_alembic(url, work, models)


async def test_in_another_schema_a_table_by_our_name_is_an_applications(postgres_url):
    """PostgreSQL only: a SQLite file has one schema."""
    await execute(postgres_url, "CREATE SCHEMA app", "CREATE TABLE app.events (id INTEGER)")
    models = MetaData()

    def work(context):
        found = operations_of(produce_migrations(context, models))
        Operations(context).drop_table("events", schema="app")
        return found

    found = await in_alembic(postgres_url, work, models, include_schemas=True)
    assert found[0] == ("DropTableOp", "events", "app")
    assert ("DropTableOp", "events", None) not in found
    assert await rows(postgres_url, "SELECT count(*) FROM events") == [(0,)]
    await execute(postgres_url, "DROP SCHEMA app CASCADE")


@pytest.mark.parametrize(
    ("name", "found_in", "default", "outside"),
    [
        ("events", None, False, True),
        ("events", "app", True, True),
        ("events", "shop", True, False),
        ("events_from_17", None, False, False),
        (schema.VERSION_TABLE, "app", False, False),
        ("customers", None, True, True),
        (None, None, True, True),
    ],
)
def test_include_name_looks_at_the_schema(name, found_in, default, outside):
    parents = {"schema_name": found_in, "schema_qualified_table_name": name}
    assert schema.include_name(name, "table", parents) is default
    assert schema.include_name_outside("shop")(name, "table", parents) is outside
    assert schema.include_name("payload", "column", parents)


# -- offline: only SQL is printed, and the database cannot be asked ---------------------------------------------

ENVIRONMENT = """
from alembic import context
context.configure(dialect_name=context.config.get_main_option("dialect"), literal_binds=True)
with context.begin_transaction():
    context.run_migrations()
"""
DROPPING = """
from alembic import op
revision, down_revision, branch_labels = "lost", None, ("app",)
def upgrade():
    op.drop_table("events")
def downgrade():
    pass
"""
TEMPLATE = """
revision, down_revision, branch_labels = ${repr(up_revision)}, ${repr(down_revision)}, ${repr(branch_labels)}
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def printing(request, tmp_path):
    """The Alembic of an application, with a script that drops a table of ours; alone, or with our scripts."""
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(ENVIRONMENT)
    (tmp_path / "script.py.mako").write_text(TEMPLATE)
    (tmp_path / "versions" / "lost.py").write_text(DROPPING)

    def made(*, together):
        config = Config(output_buffer=io.StringIO())
        config.set_main_option("script_location", str(tmp_path))
        config.set_main_option("dialect", request.param)
        config.set_main_option("path_separator", "newline")
        folders = [tmp_path / "versions", *([schema.scripts() / "versions"] if together else [])]
        config.set_main_option("version_locations", "\n".join(map(str, folders)))
        return config

    return made


def test_offline_a_script_that_drops_what_is_ours_is_refused_where_our_scripts_run_too(printing):
    with pytest.raises(CommandError, match="what esource keeps its events in"):
        command.upgrade(printing(together=True), "app@head", sql=True)


def test_offline_and_apart_a_table_by_our_name_is_taken_for_the_applications(printing):
    config = printing(together=False)
    command.upgrade(config, "head", sql=True)
    assert "DROP TABLE events" in config.output_buffer.getvalue()


def test_offline_a_downgrade_that_names_no_branch_does_not_take_our_schema_back(printing):
    config = printing(together=True)
    with pytest.raises(CommandError, match="would take back esource's schema"):
        command.downgrade(config, "esource_0003:base", sql=True)
    assert "DROP" not in config.output_buffer.getvalue()
    command.downgrade(config, "esource_0003:esource_0002", sql=True)
    assert "DROP" in config.output_buffer.getvalue()


@pytest.mark.parametrize(
    ("url", "setting", "problem"),
    [
        ("sqlite:///events.db", "on", "SQLite has no roles"),
        ("postgresql://host/shop", "perhaps", "must be 'on' or 'off'"),
    ],
)
def test_offline_row_level_security_that_cannot_be_is_refused(url, setting, problem):
    config = schema.alembic_config(url)
    config.output_buffer = io.StringIO()
    config.attributes["row_level_security"] = setting
    with pytest.raises(CommandError, match=problem):
        command.upgrade(config, "head", sql=True)


@pytest.mark.parametrize("options", [{}, {"head": "heads", "splice": True}])
def test_a_revision_of_an_application_is_not_written_into_our_folder(printing, tmp_path, options):
    (tmp_path / "versions" / "lost.py").unlink()
    before = sorted(schema.scripts().rglob("*.py"))
    with pytest.raises(CommandError, match="in the folder where esource is installed"):
        command.revision(printing(together=True), "lost", **options)
    assert sorted(schema.scripts().rglob("*.py")) == before
    options = {"head": "base", "branch_label": "app", "version_path": str(tmp_path / "versions")}
    assert command.revision(printing(together=True), "ours", **options)

"""Alembic's entry into esource's migrations; how they run is told in `esource.schema`."""

from alembic import context

from esource.schema import run_migrations

run_migrations(context)

"""Who takes part, and what each needs. The modules are imported by the workers only: their needs clash."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

COMMON = ("append", "contend", "load", "read_all", "project", "aggregate", "processes", "growth")
"""The kinds of workload about streams and the log."""

DECIDING = ("conditional", "decision", "enrol")
"""The kinds about tags and conditions over them."""


@dataclass(frozen=True)
class Entry:
    """One contender."""

    name: str
    """As shown."""
    family: str
    """What the targets are about: esource, eventsource-py, eventsourcing, raw, or raw without a hop."""
    factory: str
    """``module:class`` below this package."""
    requirements: tuple[str, ...] = ()
    """What pip installs into the contender's own environment; nothing: it runs in ours."""
    databases: tuple[str, ...] = ("sqlite-full", "sqlite-normal", "postgresql", "memory")
    kinds: tuple[str, ...] = COMMON
    """The kinds of workload that it takes part in."""
    lacks: tuple[str, ...] = ()
    """Kinds of workload of these that it has nothing for."""
    is_counted: bool = True
    """Whether its events are in the database of the run, where they can be counted behind its back."""
    beside: str | None = "esource"
    """The way of driving esource that it is compared with: synchronous beside synchronous, a hop beside a hop."""

    def make(self) -> Any:
        module, _, name = self.factory.partition(":")
        return getattr(import_module(f"bench.contenders.{module}"), name)()


# greenlet: SQLAlchemy 2.1 no longer installs it by itself.
_EVENTSOURCE = "eventsource-py[sqlite,postgresql]"
_EVENTSOURCING = ("eventsourcing[postgres]", "psycopg[binary]")

SQLITE = ("sqlite-full", "sqlite-normal")
_ALL = (*COMMON, *DECIDING)

ENTRIES = (
    Entry("esource", "esource", "esource:Esource", kinds=_ALL, beside=None),
    Entry("esource, no hop", "esource", "esource:EsourceWithoutHop", databases=SQLITE, kinds=_ALL),
    Entry("esource.sync", "esource", "esource_sync:EsourceSync", kinds=_ALL, lacks=("project",)),
    Entry("esource, plain append", "plain append", "esource:EsourcePlain", kinds=("conditional",)),
    Entry(
        "raw",
        "raw",
        "raw_sqlite:RawSQLite",
        databases=(*SQLITE, "memory"),
        lacks=("aggregate", "project"),
    ),
    Entry(
        "raw, no hop",
        "raw, no hop",
        "raw_sqlite:RawSQLiteWithoutHop",
        databases=(*SQLITE, "memory"),
        lacks=("aggregate", "project"),
        beside="esource, no hop",
    ),
    Entry(
        "raw asyncpg",
        "raw",
        "raw_postgresql:RawPostgreSQL",
        databases=("postgresql",),
        lacks=("aggregate", "project"),
    ),
    Entry(
        "eventsource-py 0.5.0",
        "eventsource-py",
        "eventsource_050:EventSource050",
        (f"{_EVENTSOURCE}==0.5.0", "greenlet"),
    ),
    Entry(
        "eventsource-py newest",
        "eventsource-py",
        "eventsource_new:EventSourceNew",
        (_EVENTSOURCE, "greenlet"),
        lacks=("project",),  # its subscription manager is that of 0.5.0
    ),
    Entry(
        "eventsourcing",
        "eventsourcing",
        "eventsourcing:EventSourcing",
        _EVENTSOURCING,
        kinds=(*COMMON, "enrol"),
        beside="esource.sync",
    ),
    Entry(
        "eventsourcing, DB functions",
        "eventsourcing",
        "eventsourcing:EventSourcingWithFunctions",
        _EVENTSOURCING,
        databases=("postgresql",),
        beside="esource.sync",
    ),
    Entry(
        "eventsourcing DCB",
        "eventsourcing DCB",
        "eventsourcing_dcb:EventSourcingDCB",
        (*_EVENTSOURCING, "msgspec"),
        databases=("postgresql",),
        kinds=DECIDING,
    ),
    Entry(
        "UmaDB",
        "UmaDB",
        "uma:UmaDB",
        ("umadb",),
        databases=("sqlite-full", "postgresql"),
        kinds=("conditional", "decision"),
        is_counted=False,
    ),
)


def entry(name: str) -> Entry:
    """The contender of that name."""
    return next(entry for entry in ENTRIES if entry.name == name)

"""The one place that knows SQLite from PostgreSQL.

`backend` is the seam: engine set-up, running a statement in one hop or one round trip, the append
lock, bulk rows, and telling what a driver's error means. `sqlite` and `postgresql` fill it in;
everything else asks a `Backend` and never the name of a database.
"""

from esource.dialect.backend import STANDARD, Backend, Plan, Statement, StreamWrite, Switches, Written
from esource.dialect.resolve import backend_for_engine, backend_for_url, parse_url

__all__ = [
    "STANDARD",
    "Backend",
    "Plan",
    "Statement",
    "StreamWrite",
    "Switches",
    "Written",
    "backend_for_engine",
    "backend_for_url",
    "parse_url",
]

"""The one place that knows SQLite from PostgreSQL.

`backend` is the seam: engine set-up, running a statement in one hop or one round trip, the append lock, bulk rows, and
telling what a driver's error means. The folders `sqlite` and `postgresql` fill it in; everything else asks a `Backend`
and never the name of a database. `urls` finds the backend of a URL or an engine.
"""

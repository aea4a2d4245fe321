"""Whether the SQLite driver is installed."""

from esource import SQLITE_AVAILABLE

if SQLITE_AVAILABLE:
    print("SQLite backend is ready!")
else:
    print("Please install: pip install esource[sqlite]")

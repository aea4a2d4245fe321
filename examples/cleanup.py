"""Remove a SQLite database with the files that a crashed process may have left beside it.

A clean close removes -wal and -shm itself, as SQLite does.
"""

import os


def cleanup_sqlite_db(db_path: str) -> None:
    """
    Remove SQLite database and WAL files.

    Args:
        db_path: Path to the database file
    """
    for suffix in ["", "-wal", "-shm"]:
        path = f"{db_path}{suffix}"
        if os.path.exists(path):
            os.remove(path)
            print(f"Removed: {path}")


# Usage
cleanup_sqlite_db("./cleanup.db")

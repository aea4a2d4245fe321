"""SQLite, through aiosqlite. Nothing is imported here: the driver is an extra."""

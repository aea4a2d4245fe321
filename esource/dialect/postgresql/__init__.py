"""PostgreSQL, through asyncpg. Nothing is imported here: the driver is an extra."""

"""Every option of the SQLite store. Constructing it opens nothing yet."""

from esource import SQLiteEventStore

store = SQLiteEventStore(
    database="./configuration.db",  # Required: path or ":memory:"
    event_registry=None,  # Optional: custom event registry
    wal_mode=True,  # Optional: enable WAL mode (default True)
    busy_timeout=5000,  # Optional: lock timeout in ms (default 5000)
    enable_tracing=True,  # Optional: OpenTelemetry tracing (default True)
    uuid_fields=None,  # Optional: additional UUID fields
    string_id_fields=None,  # Optional: exclude from UUID detection
    auto_detect_uuid=True,  # Optional: auto-detect UUID fields (default True)
)

print(f"Database: {store.database}")
print(f"WAL mode: {store.wal_mode}")
print(f"Busy timeout: {store.busy_timeout}ms")
print(f"Connected: {store.is_connected}")

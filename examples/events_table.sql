CREATE TABLE IF NOT EXISTS events (
    -- Global position for ordered replay
    global_position INTEGER PRIMARY KEY AUTOINCREMENT,

    -- Unique event identifier
    event_id TEXT NOT NULL UNIQUE,

    -- Aggregate identification
    aggregate_id TEXT NOT NULL,
    aggregate_type TEXT NOT NULL,

    -- Event metadata
    event_type TEXT NOT NULL,

    -- Multi-tenancy support (optional)
    tenant_id TEXT,

    -- Actor who triggered the event
    actor_id TEXT,

    -- Optimistic concurrency control
    version INTEGER NOT NULL,

    -- Event timestamp (ISO 8601 string)
    timestamp TEXT NOT NULL,

    -- Event payload (JSON as TEXT)
    payload TEXT NOT NULL,

    -- Technical metadata
    created_at TEXT NOT NULL DEFAULT (datetime('now')),

    -- Prevent concurrent modifications
    UNIQUE (aggregate_id, aggregate_type, version)
);

-- Load aggregate event streams
CREATE INDEX idx_events_aggregate_id ON events (aggregate_id);

-- Query events by aggregate type
CREATE INDEX idx_events_aggregate_type ON events (aggregate_type);

-- Query events by event type
CREATE INDEX idx_events_event_type ON events (event_type);

-- Time-based queries
CREATE INDEX idx_events_timestamp ON events (timestamp);

-- Multi-tenant queries (partial index)
CREATE INDEX idx_events_tenant_id ON events (tenant_id) WHERE tenant_id IS NOT NULL;

-- Composite index for projections
CREATE INDEX idx_events_type_tenant_timestamp ON events (aggregate_type, tenant_id, timestamp);

-- Aggregate stream loading
CREATE INDEX idx_events_aggregate_version ON events (aggregate_id, aggregate_type, version);

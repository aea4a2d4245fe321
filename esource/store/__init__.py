"""The event store: its doors, its transactions, subscriptions, and the repository of aggregates."""

from esource.store.store import EventStore

__all__ = ["EventStore"]

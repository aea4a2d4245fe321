"""Personal data for those that read messages, and have no keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic_core import to_json

from esource.database.calls import answer_of
from esource.privacy.keys import KeyStore
from esource.privacy.payloads import is_sealed, unsealed

if TYPE_CHECKING:
    from esource.publishing.publishers import BatchPublisher, Publisher
    from esource.repositories.outbox_entries import OutboxEntry


class _Opening:
    def __init__(self, publisher: Publisher, key_store: KeyStore) -> None:
        self._publisher = publisher
        self._key_store = key_store

    async def publish(self, entry: OutboxEntry) -> None:
        await answer_of(self._publisher.publish, await self._opened(entry))

    async def _opened(self, entry: OutboxEntry) -> OutboxEntry:
        data = entry.event_data
        if not is_sealed(data):
            return entry
        keys = await self._key_store.keys_to_open([to_json(data).decode()])
        if keys is None:
            return entry
        return replace(entry, event_data=unsealed(data, str(entry.event_id), keys))


class _OpeningBatches(_Opening):
    def __init__(self, publisher: BatchPublisher, key_store: KeyStore) -> None:
        super().__init__(publisher, key_store)
        self._batches = publisher

    async def publish_many(self, entries: Sequence[OutboxEntry]) -> None:
        await self._batches.publish_many([await self._opened(entry) for entry in entries])


def open_personal_data(publisher: Publisher, key_store: KeyStore) -> Publisher:
    """A publisher that sends personal fields in clear: what is published then is beyond any key.

    Without it an `OutboxRelay` publishes them as they are stored, sealed. Those of a destroyed key are sent as
    their placeholders.

    Example:
        >>> relay = OutboxRelay(store, open_personal_data(publisher, key_store))
    """
    many = getattr(publisher, "publish_many", None)
    return _Opening(publisher, key_store) if many is None else _OpeningBatches(publisher, key_store)  # type: ignore[arg-type]

"""The outbox to a broker: the relay that works it off, and the publishers that it calls."""

from esource.publishing.personal import open_personal_data
from esource.publishing.publishers import BatchPublisher, FastStreamPublisher, Publisher, to_cloud_event
from esource.publishing.relay import OutboxRelay

__all__ = [
    "BatchPublisher",
    "FastStreamPublisher",
    "OutboxRelay",
    "Publisher",
    "open_personal_data",
    "to_cloud_event",
]

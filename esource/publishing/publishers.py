"""Where a relay sends what the outbox holds: anything with a `publish`, and an adapter to message brokers.

The form of a message is CloudEvents 1.0 (https://cloudevents.io), by its own library: the event's id, type,
time and stream are attributes that any consumer understands, the event itself is the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from string import Formatter
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from esource.checks import shown
from esource.errors import InvalidOptionError, MissingDriverError
from esource.moments import from_iso
from esource.repositories.outbox_entries import OutboxEntry
from esource.tables.rows import CLOUD_EVENT_ATTRIBUTES

if TYPE_CHECKING:
    from cloudevents.core.v1.event import CloudEvent

CLOUD_EVENT_TYPE = "application/cloudevents+json; charset=utf-8"
"""The content type of a CloudEvent that is one JSON text."""


class Publisher(Protocol):
    """Sends one message to wherever it belongs.

    Returning says that the message is in safe hands: its row is marked as published. An exception says
    that it may not be: it is sent again later, so consumers must expect a message twice, and know it by
    its event id.
    """

    async def publish(self, entry: OutboxEntry) -> None:
        """Send one message."""


@runtime_checkable
class BatchPublisher(Protocol):
    """A publisher that can send many messages at once, such as a producer with transactions."""

    async def publish(self, entry: OutboxEntry) -> None:
        """Send one message."""

    async def publish_many(self, entries: Sequence[OutboxEntry]) -> None:
        """Send all of these, in order. After an exception they are sent again one by one."""


def to_cloud_event(entry: OutboxEntry, source: str) -> CloudEvent:
    """An outbox row as a CloudEvent. An application that wants another form writes its own publisher.

    The stream is the ``subject`` (``Order/<id>``). Extensions: ``correlationid``, ``causationid``,
    ``tenantid``, ``globalposition`` and ``aggregateversion``, those that are known.

    Raises:
        MissingDriverError: the extra with the library is not installed.
    """
    try:
        from cloudevents.core.v1.event import CloudEvent
    except ImportError as error:
        raise MissingDriverError("cloudevents", "cloudevents") from error
    data = entry.event_data
    attributes: dict[str, Any] = {
        "id": str(entry.event_id),
        "source": source,
        "specversion": "1.0",
        "type": entry.event_type,
        "subject": f"{entry.aggregate_type}/{entry.aggregate_id}",
        "datacontenttype": "application/json",
        "time": from_iso(data["occurred_at"]) if "occurred_at" in data else entry.created_at,
    }
    extensions = {
        "correlationid": data.get("correlation_id"),
        "causationid": data.get("causation_id"),
        CLOUD_EVENT_ATTRIBUTES["tenant_id"]: entry.tenant_id,
        CLOUD_EVENT_ATTRIBUTES["global_position"]: entry.global_position,
        CLOUD_EVENT_ATTRIBUTES["version"]: data.get("aggregate_version"),
    }
    attributes |= {name: str(value) for name, value in extensions.items() if value is not None}
    return CloudEvent(attributes, data)


PLACES = tuple(field.name for field in fields(OutboxEntry))
"""What may stand in braces in a destination."""


def destination_of(template: str | Callable[[OutboxEntry], str]) -> Callable[[OutboxEntry], str]:
    """What makes the destination of an entry.

    Raises:
        InvalidOptionError: the template is neither a text nor a function, has braces that do not fit, or names what is no
            field of an `OutboxEntry`.
    """
    if callable(template):
        return template
    if not isinstance(template, str):
        raise InvalidOptionError(
            f"destination must be a text or a function of an entry, not {shown(template)}"
        )
    try:
        places = [place for place in Formatter().parse(template) if place[1] is not None]
    except ValueError as error:
        raise InvalidOptionError(f"destination {shown(template)} cannot be filled in: {error}") from error
    for _, name, specification, conversion in places:
        if name not in PLACES or specification or conversion:
            raise InvalidOptionError(
                f"destination {shown(template)} has a place that is no plain name of a field: {shown(name)}. An entry has "
                f"{', '.join(PLACES)}. For anything else give a function of the entry"
            )
    names = {str(name) for _, name, _, _ in places}
    return lambda entry: template.format_map({name: getattr(entry, name) for name in names})


def check_source(source: str) -> str:
    """The source itself, if a CloudEvent can have it.

    Raises:
        InvalidOptionError: it is empty, or no text.
    """
    if not isinstance(source, str) or not source:
        raise InvalidOptionError(
            f"source must be a URI reference that names the application, such as '/shop', not {shown(source)}"
        )
    return source


class FastStreamPublisher:
    """Publishes CloudEvents through a FastStream broker: Kafka, RabbitMQ, NATS or Redis.

    The broker is yours: started before the relay runs, and stopped after it. Messages are structured
    CloudEvents, one JSON text each, with their content type in a header.

    That ``publish`` has returned means what it means to the broker. Core NATS acknowledges nothing: name a
    JetStream stream in the options. Kafka keeps the order of one key: make it the aggregate's id. RabbitMQ
    forgets messages in a restart unless they are told to persist.

    Example:
        >>> broker = NatsBroker("nats://localhost")
        >>> publisher = FastStreamPublisher(broker, "shop.{aggregate_type}.{event_type}", source="/shop")

    Args:
        broker: A FastStream broker.
        destination: The subject, topic, queue or channel: a text in which names of an `OutboxEntry`'s fields may stand
            in braces (``"shop.{aggregate_type}.{event_id}"``), or a function of the entry.
        source: The CloudEvents ``source``: a URI reference that names this application.
        options: Further arguments of the broker's own ``publish`` for an entry:
            ``lambda entry: {"stream": "shop"}`` for NATS, ``{"key": str(entry.aggregate_id).encode()}`` for
            Kafka, ``{"persist": True}`` for RabbitMQ. Headers are sent beside the content type.

    Raises:
        InvalidOptionError: the destination names a field that there is not, or the source is empty.
        MissingDriverError: the extra with the CloudEvents library is not installed.
    """

    def __init__(
        self,
        broker: Any,
        destination: str | Callable[[OutboxEntry], str],
        *,
        source: str,
        options: Callable[[OutboxEntry], dict[str, Any]] | None = None,
    ) -> None:
        try:
            from cloudevents.core.formats.json import JSONFormat
        except ImportError as error:
            raise MissingDriverError("cloudevents", "faststream") from error
        if options is not None and not callable(options):
            raise InvalidOptionError(f"options must be a function of an entry, not {shown(options)}")
        self._write = JSONFormat().write
        self._broker = broker
        self._destination = destination_of(destination)
        self._source = check_source(source)
        self._options = options

    def destination_of(self, entry: OutboxEntry) -> str:
        """Where this entry goes."""
        return self._destination(entry)

    async def publish(self, entry: OutboxEntry) -> None:
        """Send one message, and wait until the broker has taken it."""
        options = {} if self._options is None else {**self._options(entry)}
        headers = {"content-type": CLOUD_EVENT_TYPE, **(options.pop("headers", None) or {})}
        await self._broker.publish(
            self._write(to_cloud_event(entry, self._source)),
            self.destination_of(entry),
            headers=headers,
            **options,
        )

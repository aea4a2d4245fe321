"""Every error that esource raises, as one tree.

::

    EventSourceError
    ├── InvalidEventError             an event that may not be stored; nothing was written
    ├── InvalidOptionError            an argument that makes no sense (also a ValueError)
    ├── AsyncRequiredError            an asynchronous call was written like a synchronous one (also a TypeError)
    ├── OptimisticLockError           the stream is not at the expected version
    │   └── AppendConditionError      an event came that the append's condition excludes
    ├── StreamClosedError             the stream was closed for good; nothing was written
    ├── DuplicateEventError           the event id is already stored at another place, or with other content
    ├── TenantMismatchError           a store bound to one tenant got data of another; nothing was written
    ├── AggregateNotFoundError        the stream to load has no events
    ├── UnknownEventTypeError         no class is registered for a stored event type
    ├── TagsIncompleteError           a query asks for tags that stored events are still being given
    ├── DuplicateEventTypeError       another class is registered under this name
    ├── EventDecodeError              a stored event does not fit its class
    ├── ProjectionFailedError         a projection stopped at an event that it could not handle
    ├── StreamHaltedError             an event waits behind a failed one (recorded, never raised)
    ├── PositionNotReachedError       the log has not reached the position in time (also a TimeoutError)
    ├── CheckpointNotReachedError     a projection has not reached the position in time (also a TimeoutError)
    ├── TimeLimitError                code of the application took longer than its limit (also a TimeoutError)
    ├── MissingDriverError            the extra with the database driver is not installed
    ├── StoreClosedError              the store was closed
    ├── StoreMovedError               the store was moved to another database; nothing was written
    ├── ArchiveRefusedError           a stream cannot be archived: it is open, or its events are still needed
    ├── FileRefusedError              a file of events is cut off, damaged, or of another kind
    ├── CopyRefusedError              the target of a copy has other content than the source
    ├── PrivacyError
    │   ├── KeyStoreMissingError      an event has personal fields, and the store has no key store
    │   ├── SubjectErasedError        the person's key was destroyed; nothing was written
    │   ├── KeyNotFoundError          the key store has never had the key
    │   └── KeyStoreError             the key store cannot be used as it is
    ├── SchemaError
    │   ├── SchemaMissingError        the database has none of our tables
    │   ├── SchemaUnmanagedError      our tables are there, but no Alembic version
    │   ├── SchemaOutdatedError       the database is older than this library
    │   └── SchemaTooNewError         the database is newer than this library
    └── DatabaseError                 the database refused or failed
        ├── DatabaseUnavailableError  the database cannot be opened, reached or read
        ├── DatabaseBusyError         another writer held the lock for too long
        ├── DatabaseReadOnlyError     the database may not be written
        ├── DatabaseFullError         no space is left
        └── ConstraintError           a constraint refused the row

Exceptions of the driver never reach the caller; such an exception is the ``__cause__`` of our error. The data that a
program needs are attributes. The text says what happened, what was found, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID


class EventSourceError(Exception):
    """The root of every error that esource raises."""


class InvalidEventError(EventSourceError):
    """An event, or a row of another table, holds a value that may not be stored; nothing was written.

    Both databases refuse the same values, so every value that SQLite accepted can move to PostgreSQL. This is not a
    `ValueError`, because pydantic would turn it into a `ValidationError`.
    """

    def __init__(self, field: str, problem: str, *, remedy: str = "") -> None:
        self.field = field
        """The name of the wrong field; a nested field has a name with dots."""
        self.problem = problem
        super().__init__(f"{field}: {problem}" + (f". {remedy}" if remedy else ""))


class InvalidOptionError(EventSourceError, ValueError):
    """An argument that makes no sense, refused before any I/O."""


class AsyncRequiredError(EventSourceError, TypeError):
    """An asynchronous call was written like a synchronous one, for example ``with`` in place of ``async with``."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what} is asynchronous: write `{instead}`, inside `async def`")


class OptimisticLockError(EventSourceError):
    """The stream is not at the version that the append expected; nothing of that append was written.

    Load the aggregate again, apply the command to its new state, and save once more. If the stream does not exist, this
    does not help: check the id and the type.
    """

    def __init__(
        self, aggregate_type: str, aggregate_id: UUID, expected_version: int, actual_version: int
    ) -> None:
        self.aggregate_type = aggregate_type
        self.aggregate_id = aggregate_id
        self.expected_version = expected_version
        self.actual_version = actual_version
        expected = {0: "no stream", -2: "an existing stream"}.get(
            expected_version, f"version {expected_version}"
        )
        found, remedy = "no stream", "Check the id and the aggregate type: nothing is stored under both."
        if actual_version:
            found = f"version {actual_version}"
            remedy = "Another writer came first: load it again, repeat the command, save."
        super().__init__(f"{aggregate_type} {aggregate_id}: expected {expected}, found {found}. {remedy}")


class AppendConditionError(OptimisticLockError):
    """An event has come that the condition of the append excludes; nothing of that append was written.

    Read the query again, decide anew, and append with the new condition.
    """

    def __init__(
        self,
        aggregate_type: str,
        aggregate_id: UUID,
        expected_version: int,
        *,
        after: int,
        global_position: int,
        event_type: str,
    ) -> None:
        self.aggregate_type = aggregate_type
        """The stream that the append was for, with `aggregate_id`."""
        self.aggregate_id = aggregate_id
        self.expected_version = self.actual_version = expected_version
        """The version that the append expected. It is not what was in the way."""
        self.after = after
        """The position up to which the decision knew the log."""
        self.global_position = global_position
        """The position of the first event that matched past it."""
        self.event_type = event_type
        """The type of that event."""
        Exception.__init__(
            self,
            f"{event_type} at global position {global_position} matches the condition of the append, which excludes such "
            f"events past position {after}. Another writer came first: read the query again, decide anew, append with "
            "the new condition.",
        )


class StreamClosedError(EventSourceError):
    """The stream was closed (`EventStore.close_stream`) and takes no more events; nothing was written.

    This is not an `OptimisticLockError`, because it would not help to load again and repeat the command.
    """

    def __init__(self, aggregate_type: str, aggregate_id: UUID) -> None:
        self.aggregate_type = aggregate_type
        self.aggregate_id = aggregate_id
        super().__init__(
            f"{aggregate_type} {aggregate_id} is closed and takes no more events. Begin a new stream, under "
            "an id of its own."
        )


class DuplicateEventError(EventSourceError):
    """An event id is stored already, in another place or with other content; nothing was written.

    To append the same events again, to the same place with the same content, is not an error: the append returns the
    first result, marked `AppendResult.idempotent`.
    """

    def __init__(self, event_id: UUID, found: str) -> None:
        self.event_id = event_id
        self.found = found
        super().__init__(f"event {event_id} is stored already: {found}. Give the new event an id of its own.")


class TenantMismatchError(EventSourceError):
    """A store bound to one tenant got an event or a stream of another tenant; nothing was written.

    The text says nothing about the data of the other tenant.
    """

    def __init__(self, tenant_id: UUID | None, problem: str) -> None:
        self.tenant_id = tenant_id
        """The tenant that the store is bound to; None if only the database knows it."""
        self.problem = problem
        bound = "the connected role" if tenant_id is None else f"the store bound to tenant {tenant_id}"
        super().__init__(
            f"{bound} may not do this: {problem}. Use a store for the tenant that it belongs to."
        )


class AggregateNotFoundError(EventSourceError):
    """No event is stored for the aggregate."""

    def __init__(self, aggregate_type: str, aggregate_id: UUID) -> None:
        self.aggregate_type = aggregate_type
        self.aggregate_id = aggregate_id
        super().__init__(
            f"{aggregate_type} {aggregate_id} has no events. Use create_new() or load_or_create() "
            "for an aggregate that may not exist yet."
        )


class UnknownEventTypeError(EventSourceError, KeyError):
    """The log holds an event type for which no class is registered."""

    def __init__(self, event_type: str, known: Iterable[str] = (), forgotten: str = "") -> None:
        self.event_type = event_type
        self.known_types = sorted(known)
        self.forgotten = forgotten
        """Module and name of a class that exists for this type and is not registered; empty if there is none."""
        listed = ", ".join(self.known_types[:10]) or "none"
        remedy = (
            f"Put @register_event above {forgotten}"
            if forgotten
            else "Import the module that defines it under @register_event"
        )
        self.message = (
            f"no class is registered for event type {event_type!r} (registered: {listed}). {remedy}, or open "
            "the store with unknown_events='untyped' or 'skip'."
        )
        super().__init__(self.message)

    def __str__(self) -> str:  # KeyError would show the repr of the text
        return self.message


class TagsIncompleteError(EventSourceError):
    """A query, or the condition of an append, asks for tags that stored events are still being given; nothing was written.

    Events that were stored before their class declared a tag get it from `esource.copying.fill_tags` (``esource tag``). Until
    that is at its end, an answer could lack some of them.
    """

    def __init__(self, event_type: str, tag_name: str) -> None:
        self.event_type = event_type
        """The type of these events."""
        self.tag_name = tag_name
        """The name of the tag, before its colon."""
        super().__init__(
            f"stored events of type {event_type} are still being given their tags {tag_name}:..., and what depends on these would "
            "miss some. Wait until `esource tag` is at its end; if it was ended, run it again: it goes on where it was. "
            "`esource doctor` says how far it has come."
        )


class DuplicateEventTypeError(EventSourceError):
    """A different class is registered under this event type."""

    def __init__(self, event_type: str, existing: type, new: type) -> None:
        self.event_type = event_type
        self.existing = existing
        self.new = new
        super().__init__(
            f"event type {event_type!r} belongs to {existing.__module__}.{existing.__qualname__}; "
            f"{new.__module__}.{new.__qualname__} needs another name: set its event_type, or pass "
            "event_type= to register_event."
        )


class EventDecodeError(EventSourceError):
    """A stored event does not fit the class registered for its type."""

    def __init__(self, event_type: str, event_id: str, global_position: int, problem: str) -> None:
        self.event_type = event_type
        self.event_id = event_id
        self.global_position = global_position
        self.problem = problem
        super().__init__(
            f"{event_type} {event_id} at global position {global_position} cannot be decoded: {problem}"
        )


class ProjectionFailedError(EventSourceError):
    """A projection could not handle an event in any of its attempts; the last error is the ``__cause__``.

    The effects of all earlier events are saved. Correct the handler or the class of the event, and run the projection
    again.
    """

    def __init__(
        self, projection: str, event_type: str, event_id: str, global_position: int, problem: str
    ) -> None:
        self.projection = projection
        self.event_type = event_type
        self.event_id = event_id
        self.global_position = global_position
        super().__init__(
            f"{projection} stopped at {event_type} {event_id}, global position {global_position}: {problem}. "
            "Mend it and run again, or set on_failure to 'skip' or 'halt_stream'."
        )


class StreamHaltedError(EventSourceError):
    """An event was not tried, because an earlier one of its stream has failed."""

    def __init__(self, global_position: int) -> None:
        self.global_position = global_position
        """The position of the event that failed."""
        super().__init__(f"waits behind the failed event at global position {global_position}")


class PositionNotReachedError(EventSourceError, TimeoutError):
    """The log of this database has not reached a position in time: a replica is behind, or no append has had this
    position."""

    def __init__(self, database: str, position: int, found: int) -> None:
        self.position = position
        self.found = found
        """The position that the log has reached."""
        super().__init__(
            f"{database} is at position {found}, not yet at {position}. Wait longer, or read on the primary."
        )


class TimeLimitError(EventSourceError, TimeoutError):
    """A handler or a publisher took longer than its limit, and was cancelled. Counts as a failed attempt."""

    def __init__(self, what: str, seconds: float, option: str) -> None:
        self.seconds = seconds
        """The limit."""
        self.option = option
        """What sets the limit."""
        super().__init__(
            f"{what} took longer than {option} = {seconds:g} s and was cancelled. Give what it waits for a limit of "
            f"its own, or raise {option}"
        )


class CheckpointNotReachedError(EventSourceError, TimeoutError):
    """A projection, or another checkpoint, has not come to a position in time (`EventStore.wait_for`)."""

    checkpoint: str
    """The name that was waited for."""
    position: int
    """The position that was waited for."""
    found: int | None
    """The position up to which everything is dealt with; None if nothing is."""
    head: int | None = None
    """The position of the last event in the log; None if the database did not answer."""
    lag_seconds: float = 0.0
    """Age of the first event past ``found``, in seconds."""
    owners: tuple[str, ...] = ()
    """The workers that hold the leases of what is late."""


class MissingDriverError(EventSourceError, ImportError):
    """A database driver, or another package that an extra brings, is not installed."""

    def __init__(self, driver: str, extra: str) -> None:
        self.driver = driver
        self.extra = extra
        super().__init__(f"{driver} is not installed. Run: pip install 'esource[{extra}]'")


class StoreClosedError(EventSourceError):
    """The store was closed, or belongs to an event loop that has ended."""


class StoreMovedError(EventSourceError):
    """The store was cut over to another database and takes no more writes; nothing was written."""

    def __init__(self, database: str, moved_to: str) -> None:
        self.database = database
        self.moved_to = moved_to
        """The other database, as the cut-over named it; a password is masked."""
        super().__init__(
            f"{database} has moved to {moved_to} and takes no more writes. Open that database. To use the old one "
            "again after all, run `esource reopen`."
        )


class ArchiveRefusedError(EventSourceError):
    """A stream cannot be archived, because it is not closed, or because its events are still needed."""

    def __init__(self, aggregate_type: str, aggregate_id: object, why: str) -> None:
        self.aggregate_type = aggregate_type
        self.aggregate_id = str(aggregate_id)
        super().__init__(
            f"{aggregate_type} {aggregate_id} cannot be archived: {why}. Its events are in the log."
        )


class FileRefusedError(EventSourceError):
    """A file of rows is cut off, damaged, or of another kind; nothing was written."""

    def __init__(self, file: str, problem: str, *, line: int | None = None) -> None:
        self.file = file
        self.line = line
        """The number of the line that cannot be used, from 1; None if the error is about the whole file."""
        place = file if line is None else f"{file}, line {line}"
        super().__init__(f"{place}: {problem}")


class CopyRefusedError(EventSourceError):
    """The target of a copy has rows that the source does not have; nothing was written.

    Copy into an empty database, or into one that an earlier copy of the same source has begun. When a cut-over raises
    this error, everything was copied, but the two stores still differ; the source then accepts writes as before.
    """

    def __init__(
        self, target: str, found: str, *, is_to_be_empty: bool = False, is_cut_over: bool = False
    ) -> None:
        self.target = target
        self.found = found
        unchanged = "Nothing was changed"
        if is_to_be_empty:
            problem, remedy = f"{target} is not empty", "Choose an empty database"
        elif is_cut_over:
            problem, unchanged = f"{target} is not equal to the source", "The source takes writes as before"
            remedy = "Another program has written to the target: correct its rows, or begin again with an empty database"
        else:
            problem = f"{target} is not a copy of this source, and not the beginning of one"
            remedy = "Choose an empty database, or one that holds the beginning of a copy of this source"
        super().__init__(f"{problem}: {found}. {unchanged}. {remedy}")


class PrivacyError(EventSourceError):
    """The root of all errors about personal data and its keys."""


class KeyStoreMissingError(PrivacyError):
    """An event has personal fields, which are never stored in clear, and the store has no key store."""

    def __init__(self, event_type: str) -> None:
        self.event_type = event_type
        super().__init__(
            f"{event_type} has personal fields, and this store has no keys for them: open it with key_store=, for "
            "example a DatabaseKeyStore of esource.privacy"
        )


class SubjectErasedError(PrivacyError):
    """An event has personal data of a subject whose key was destroyed; nothing was written."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        super().__init__(
            f"the key of subject {subject} was destroyed, and no new key is made: store new data under another "
            "subject, or in an event without personal fields"
        )


class KeyNotFoundError(PrivacyError):
    """A stored event was encrypted with a key that the key store has never had."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        super().__init__(
            f"the key store has no key of subject {subject}, and has not destroyed one: is it the key store "
            "that the events were written with?"
        )


class KeyStoreError(PrivacyError):
    """The key store cannot be used as it is; the text says what to do."""


class SchemaError(EventSourceError):
    """The tables of the database do not fit this version of esource."""


class SchemaMissingError(SchemaError):
    """The database has none of our tables, or some of them were dropped."""

    def __init__(self, database: str, detail: str = "", *, version: str | None = None) -> None:
        self.database = database
        self.version = version
        """The version in the version table; None if there is no such table."""
        problem = f"has no esource tables{f' ({detail})' if detail else ''}"
        remedy = "Create them with `await store.initialize()`, or in a deployment with `alembic upgrade head`"
        if version is not None:
            problem = f"is at schema {version}, but lacks the tables {detail}"
            remedy = (
                "They were dropped. Restore a backup, or run `esource check` to see the statements that make empty "
                "ones"
            )
        super().__init__(f"{database} {problem}. {remedy}.")


class SchemaUnmanagedError(SchemaError):
    """Tables with our names exist, but the database has no schema version of esource: eventsource-py made the tables,
    or a program that has nothing to do with either."""

    def __init__(self, database: str, lacking: Sequence[str] = ()) -> None:
        self.database = database
        self.lacking = tuple(lacking)
        """The columns that a table `events` of esource or eventsource-py has and this one lacks; empty if it lacks
        none."""
        problem = "has event tables but no esource schema version: eventsource-py may have written it"
        remedy = (
            "Make a backup, then take it over with `await esource.schema.adopt(url)`, or with "
            "`alembic stamp esource_0001` and `alembic upgrade head`"
        )
        if lacking:
            problem = f"has a table `events` that is not esource's: it lacks the columns {', '.join(lacking)}"
            remedy = "Use another database, or on PostgreSQL a schema of its own (?schema=NAME in the URL)"
        super().__init__(f"{database} {problem}. {remedy}.")


class SchemaOutdatedError(SchemaError):
    """The database is at an older schema than this library."""

    def __init__(self, database: str, found: str | None, head: str | None, detail: str = "") -> None:
        self.database = database
        self.found = found
        """The schema version of the database; None if the error comes from a missing column."""
        self.head = head
        """The version that this library works with; None if the error comes from a missing column."""
        problem = (
            f"is at an older schema than this esource works with ({detail})"
            if found is None
            else f"is at schema {found}, this esource works with {head}"
        )
        super().__init__(
            f"{database} {problem}. Run `alembic upgrade head`, or `await store.initialize(upgrade=True)`."
        )


class SchemaTooNewError(SchemaError):
    """The database is at a newer schema than this library."""

    def __init__(self, database: str, found: str, head: str) -> None:
        self.database = database
        self.found = found
        self.head = head
        super().__init__(
            f"{database} is at schema {found}, which this esource (schema {head}) does not know. Upgrade "
            "the package: pip install --upgrade esource"
        )


class DatabaseError(EventSourceError):
    """The database refused a statement or failed; the driver's own error is the ``__cause__``."""


class DatabaseUnavailableError(DatabaseError):
    """The database cannot be opened, reached or read: a wrong path, a stopped server, a broken file."""


class DatabaseBusyError(DatabaseError):
    """Another writer held the lock longer than the busy timeout; nothing was written."""


class DatabaseReadOnlyError(DatabaseError):
    """The database may not be written: a read-only file, a read replica, a missing privilege, a reading."""


class DatabaseFullError(DatabaseError):
    """No space is left; nothing was written. The store works again when there is space."""


class ConstraintError(DatabaseError):
    """A constraint of the schema refused the row."""

    def __init__(self, constraint: str, message: str) -> None:
        self.constraint = constraint
        """The name of the constraint, the same on both databases."""
        super().__init__(message)


def error_text(error: BaseException) -> str:
    """An error's type and text, whatever its class makes of that."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception as failure:
        return f"{type(error).__name__} (its text cannot be made: {type(failure).__name__})"

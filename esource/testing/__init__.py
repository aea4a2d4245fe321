"""For the tests of applications, and of stores: a pytest plugin, scenarios, and a conformance suite.

``pytest_plugins = ["esource.testing"]`` in the topmost ``conftest.py`` (or ``-p esource.testing``) brings the
fixtures:

- `event_store`: an open store on a fresh SQLite file;
- `postgres_event_store`: one on a fresh PostgreSQL database (``esource_postgres_url`` is its URL), on the server
  that ``ESOURCE_TEST_POSTGRES_URL`` names, or in a container, or on an embedded server.

Beside them, `given` and `given_events` for tests of aggregates and projections, `assert_events_come_back` for what
an application's events keep when they are stored, and `EventStoreConformance` for stores of your own. Needs ``pip install 'esource[testing]'``.

The plugin has to be asked for: to be found by itself, it would be imported into every run of pytest there is.
Importing names from here in a ``conftest.py`` does no harm: PYTEST_DONT_REWRITE keeps pytest from warning that
it came too late to rewrite this module, which has no assertions.
"""

from esource.errors import MissingDriverError

try:
    import pytest
    import pytest_asyncio  # noqa: F401 - the fixtures' own
except ImportError as error:
    raise MissingDriverError(error.name or "pytest", "testing") from error

# Before the import: their assertions are to show what they compared.
pytest.register_assert_rewrite("esource.testing.conformance", "esource.testing.conformance_tables")

from esource.testing.conformance import EventStoreConformance  # noqa: E402
from esource.testing.plugin import (  # noqa: E402
    esource_postgres_server,
    esource_postgres_template,
    esource_postgres_url,
    esource_sqlite_template,
    event_store,
    postgres_event_store,
)
from esource.testing.round_trips import RoundTrip, assert_events_come_back, round_trips  # noqa: E402
from esource.testing.scenarios import an_event, given, given_events, same_event  # noqa: E402

__all__ = [
    "EventStoreConformance",
    "RoundTrip",
    "an_event",
    "assert_events_come_back",
    "esource_postgres_server",
    "esource_postgres_template",
    "esource_postgres_url",
    "esource_sqlite_template",
    "event_store",
    "given",
    "given_events",
    "postgres_event_store",
    "round_trips",
    "same_event",
]

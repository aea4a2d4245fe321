"""`esource.directory.upkeep` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from collections.abc import Collection

from esource.directory import upkeep as asynchronous
from esource.directory.upkeep import LogReport, OnOutcome, OnReport, Outcome
from esource.sync.driven import Driven


class Upkeep(Driven):
    """The part of `Directory` that works on whole logs."""

    _target: asynchronous.Upkeep

    def report(
        self, names: Collection[str] | None = None, *, on_report: OnReport | None = None
    ) -> list[LogReport]:
        """How the logs are doing, all or those of these names: schema, last position, size, lag. A log that cannot be
        reached holds up no other, and a server that does not answer is waited for once.

        Args:
            names: Which logs.
            on_report: Called with the report of each log as soon as it is there.

        Raises:
            InvalidOptionError: there is no log of a name.
        """
        return self._call(self._target.report(names, on_report=on_report))

    def upgrade(
        self, names: Collection[str] | None = None, *, on_outcome: OnOutcome | None = None
    ) -> list[Outcome]:
        """Bring the logs to the newest schema, all or those of these names. One that fails is told of, and stops no other;
        what is upgraded already is passed over, so that a round that was broken off can be repeated.

        Raises:
            InvalidOptionError: there is no log of a name.
        """
        return self._call(self._target.upgrade(names, on_outcome=on_outcome))

    def distribute(
        self, names: Collection[str] | None = None, *, on_outcome: OnOutcome | None = None
    ) -> list[Outcome]:
        """Let a node of a Citus cluster have each log, all or those of these names; see `esource.schema.distribution.distribute`.
        One that fails is told of, and stops no other; what is distributed already stays where it is.

        Raises:
            InvalidOptionError: there is no log of a name; or the stores of this directory were not opened with
                ``append_lock="row"`` and ``notify=False``, without which they could not use such a log.
        """
        return self._call(self._target.distribute(names, on_outcome=on_outcome))

    def verify(
        self, names: Collection[str] | None = None, *, on_outcome: OnOutcome | None = None
    ) -> list[Outcome]:
        """Look at every row of the logs, all or those of these names; see `esource.copying.integrity.verify_store`.

        Raises:
            InvalidOptionError: there is no log of a name.
        """
        return self._call(self._target.verify(names, on_outcome=on_outcome))

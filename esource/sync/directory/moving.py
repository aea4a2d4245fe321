"""`esource.directory.moving` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from os import PathLike

from sqlalchemy.engine import URL

from esource.copying import CopyResult, Reset
from esource.copying.progress import OnProgress
from esource.directory import moving as asynchronous
from esource.sync.directory.upkeep import Upkeep


class Moves(Upkeep):
    """The part of `Directory` that moves and drops logs."""

    _target: asynchronous.Moves

    def move(
        self,
        name: str,
        to: str | URL | PathLike[str],
        *,
        reset: Reset = (),
        on_progress: OnProgress | None = None,
    ) -> CopyResult:
        """Move a log to another place while it is written to: `esource.copying.copy`, then `esource.copying.cut_over`, then
        the directory's note. What was broken off at any moment goes on with the same call.

        The stores of this directory, in any process, follow: an append that meets the fence is done in the new place, and
        a transaction that meets it raises `StoreMovedError` and can be repeated. Stores that only read look there within
        ``refresh_seconds``, and until then read what was there at the cut-over. Between SQLite and PostgreSQL open
        stores do not follow: `log` gives a new one.

        The old database stays, behind its fence. Read models are not moved: see ``reset``.

        Args:
            name: The log.
            to: The new place, as for `create`.
            reset: Projections that begin anew in the new place; see `esource.copying.copy`.
            on_progress: Called now and then.

        Raises:
            InvalidOptionError: there is no such log, it is being moved to another place, or another log is there.
            StoreMovedError: a log has moved away from the new place.
            CopyRefusedError: the new place holds something else, or the two are not equal in the end; the log stays.
            DatabaseBusyError: a transaction was open for too long; the log stays, and the call can be repeated.
        """
        return self._call(self._target.move(name, to, reset=reset, on_progress=on_progress))

    def stay(self, name: str) -> None:
        """Give up a move that has not come to its cut-over: the log stays where it is. What was copied stays, too.

        Raises:
            InvalidOptionError: there is no such log, or it is not being moved.
            StoreMovedError: it was cut over already; repeat the move.
        """
        self._call(self._target.stay(name))

    def drop(self, name: str, *, everything: bool = False) -> None:
        """Drop a log: its schema or its file, and its note. Stop what works with it before.

        Args:
            name: The log.
            everything: Also if it holds events, or objects of the application, or if keys live in it.

        Raises:
            InvalidOptionError: it holds something, and ``everything`` was not said; it lies in no schema of its own; it
                is being moved. Nothing was dropped.
        """
        self._call(self._target.drop(name, everything=everything))

    def forget(self, name: str) -> None:
        """Take a log out of the directory, and leave its database as it is. The keys that live in it are forgotten, too.

        Raises:
            InvalidOptionError: there is no such log.
        """
        self._call(self._target.forget(name))

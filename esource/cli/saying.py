"""Standard output whose failures have an error of their own: a full disk behind it is not a bug."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class OutputLostError(OSError):
    """Standard output could not be written."""


@contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader has read enough: Click ends the command without a word
        raise
    except OSError as error:
        raise OutputLostError(*error.args) from error


class Watched:
    """A stream whose failures raise `OutputLostError`. Everything else is passed on to the stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def buffer(self) -> Watched:
        """The stream of bytes beneath."""
        return Watched(self._stream.buffer)

    def write(self, text: Any) -> int:
        with _told_apart():
            return int(self._stream.write(text))

    def flush(self) -> None:
        with _told_apart():
            self._stream.flush()


@contextmanager
def watched_output() -> Iterator[None]:
    """Standard output is `Watched`, and at the end written out, before the interpreter does it: a failure there
    could not be explained.

    Raises:
        OutputLostError: it cannot be written.
    """
    # It is None if the parent process has closed it: then the output goes nowhere.
    sys.stdout = Watched(sys.stdout or open(os.devnull, "w"))  # noqa: SIM115, PTH123
    try:
        yield
    finally:
        sys.stdout.flush()


def forget_output() -> None:
    """Let the interpreter's own last flush succeed: it would fail once more, with exit code 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""Standard output that says of itself when it fails: a full disk behind it is nobody's bug."""

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
    """A stream whose failures are told from those of any other file; all else is the stream's own."""

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
    """Standard output is `Watched`, and at the end written out, before the interpreter does it: that would fail
    without anybody to explain it.

    Raises:
        OutputLostError: it cannot be written.
    """
    # Without any, whoever started us has closed it: nothing is to be said.
    sys.stdout = Watched(sys.stdout or open(os.devnull, "w"))  # noqa: SIM115, PTH123
    try:
        yield
    finally:
        sys.stdout.flush()


def forget_output() -> None:
    """Let the interpreter's own last flush succeed: it would fail once more, with exit code 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

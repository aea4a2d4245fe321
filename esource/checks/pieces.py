"""JSON that is read only to see whether it can be read: where that would take much memory, piece by piece.

A list takes 56 bytes and more in Python, and three characters in JSON: 16 MiB of empty lists become 0.4 GiB.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from esource.checks.limits import CEILING

MANY_LISTS = 10_000
"""A text with fewer lists and objects is read at once: they take about a megabyte."""

PIECE_CHARACTERS = 2**16
"""Characters of a piece; a longer text or number is a piece of its own."""

_TEXT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = b"[{"
_BEGUN = {ord("["): "[", ord("{"): '{"":'}
_CLOSED = {ord("["): "]", ord("{"): "}"}
_SPACE = " \t\r\n"


def has_many_lists(text: str, start: int = 0) -> bool:
    """Whether so many lists and objects may follow that the text is to be read in pieces."""
    return (
        len(text) - start >= 2 * MANY_LISTS and text.count("[", start) + text.count("{", start) >= MANY_LISTS
    )


def require_readable(text: str, read: Callable[[str], Any]) -> None:
    """Read JSON with a reader, whose result is not wanted.

    Raises:
        ValueError: the reader refuses it.
    """
    start = len(text) - len(text.lstrip(_SPACE))
    if not has_many_lists(text) or not text.startswith(("[", "{"), start):
        read(text)
    elif text[read_in_pieces(text, read, start) :].strip(_SPACE):
        raise ValueError("something follows its end")


def read_in_pieces(text: str, read: Callable[[str], Any], start: int = 0) -> int:
    """Read a list or an object that begins in a text; where it ends.

    It is cut at commas. What is open before a piece is opened again in short for the reader, and what is open after it
    is closed: all of it is JSON if every piece is.

    Args:
        text: Holds it.
        read: Called with each piece, as JSON of its own.
        start: Where it begins.

    Raises:
        ValueError: the reader refuses a piece, or the text ends before it, or it is nested too deeply.
    """
    size, opened = PIECE_CHARACTERS, b""
    while True:
        window = _TEXT.sub(_blank, text[start : start + size])
        cut = window.rfind(",")
        brackets = (
            window[: cut if cut >= 0 else None].encode("ascii", "replace").translate(None, _NO_BRACKETS)
        )
        after = _opened_after(opened, brackets)
        if not after:
            end = start + _end_in(window, len(opened))
        elif cut >= 0:
            end = start + cut
            # Closed behind it, the bracket alone would be JSON.
            if text[start:end].rstrip(_SPACE).endswith(("[", "{")):
                raise ValueError(f"a comma follows a bracket that opens, at character {end}")
        elif start + size < len(text):
            size *= 2
            continue
        else:
            raise ValueError("the text ends before it does")
        if len(after) > CEILING.json_depth:
            raise ValueError(f"it has more than {CEILING.json_depth} levels of nesting")
        try:
            read(f"{_begun(opened)}{text[start:end]}{''.join(_CLOSED[each] for each in reversed(after))}")
        except ValueError as error:
            raise ValueError(f"{error}, in the part that begins at character {start}") from error
        if not after:
            return end
        start, size, opened = end + 1, PIECE_CHARACTERS, after


def _blank(text: re.Match[str]) -> str:
    return " " * len(text[0])


def _opened_after(opened: bytes, brackets: bytes) -> bytes:
    """What is open after these brackets; nothing once the outermost was closed."""
    if opened:  # else the outermost pair might be among those that are left out
        for _ in range(4):
            brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    after = bytearray(opened)
    for bracket in brackets:
        if bracket in _OPENING:
            after.append(bracket)
        else:
            after.pop()
            if not after:
                break
    return bytes(after)


def _end_in(window: str, depth: int) -> int:
    """Behind the bracket that closes the outermost one."""
    for bracket in _BRACKET.finditer(window):
        depth += 1 if bracket[0] in "[{" else -1
        if not depth:
            return bracket.end()
    raise ValueError("a bracket is missing")


def _begun(opened: bytes) -> str:
    """The beginning of JSON in which these are open, with an element in the innermost, whose comma was cut."""
    return f"{''.join(map(_BEGUN.__getitem__, opened))}0," if opened else ""

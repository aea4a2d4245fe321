"""What a power cut may leave of a folder: what the disk confirmed, and of the rest whatever chance keeps.

The model is that of a journaling file system which keeps no more than it has to (Pillai et al., "All File Systems Are
Not Created Equal", OSDI 2014):

- What was written to a file before an `fsync` or `fdatasync` of that file began is there when that has returned.
- Of what was written since, any part may be there, in any order: no write, each of them, some, and of each any sectors
  of 512 bytes. A sector is whole. A change of size is one more such change.
- Names (made, renamed, removed) keep their order among themselves: what is there is a beginning of them, at least up to
  the last that concerned a file or a folder which was synced since.

A disk that confirms what it has not written, or loses what it had, is no part of it.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal

from adversity.powercut.recording import Call

SECTOR = 512
Kept = Literal["nothing", "everything", "some", "torn"]
KEPT: tuple[Kept, ...] = ("nothing", "everything", "some", "torn")
"""What becomes of that which the disk has not confirmed."""


@dataclass
class File:
    """A file as the disk has it for certain, and the changes that it may or may not have."""

    safe: bytearray
    changes: list[Call] = field(default_factory=list)

    def sync(self, began: int) -> None:
        for change in self.changes:
            if change.ended < began:
                _apply(change, self.safe, [(0, len(change.data))])
        self.changes = [change for change in self.changes if change.ended >= began]

    def after_cut(self, kept: Kept, chance: random.Random) -> bytes:
        content = bytearray(self.safe)
        share = chance.choice((0.1, 0.5, 0.9))
        for change in self.changes:
            whole = [(0, len(change.data))]
            if kept == "everything" or (kept == "some" and chance.random() < share):
                _apply(change, content, whole)
            elif kept == "torn":
                sectors = list(_sectors(change)) if change.name == "write" else whole
                _apply(change, content, [part for part in sectors if chance.random() < share])
        return bytes(content)


def _sectors(change: Call) -> Iterator[tuple[int, int]]:
    """The parts of a write that fall into one sector of the file each."""
    start = 0
    while start < len(change.data):
        end = start + SECTOR - (change.offset + start) % SECTOR
        yield start, min(end, len(change.data))
        start = end


def _apply(change: Call, content: bytearray, parts: Sequence[tuple[int, int]]) -> None:
    if not parts:
        return
    if change.name == "truncate":
        del content[change.offset :]
    end = change.offset + (parts[-1][1] if change.name == "write" else 0)
    content.extend(bytes(max(0, end - len(content))))
    for start, stop in parts if change.name == "write" else ():
        content[change.offset + start : change.offset + stop] = change.data[start:stop]


class Disk:
    """A folder that began as ``base`` and goes through the calls of a recording."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._names: dict[str, File] = {}
        """The files that programs see, if the recording has touched them."""
        self._safe_names: dict[str, File | None] = {}
        """The same as the disk has them for certain; None for a name that is no more."""
        self._name_changes: list[tuple[Call, File]] = []

    def _file(self, path: str) -> File:
        if path not in self._names:
            self._names[path] = File(bytearray((self._base / path).read_bytes()))
            self._safe_names[path] = self._names[path]
        return self._names[path]

    def take(self, call: Call) -> None:
        if call.name in ("write", "truncate", "extend"):
            self._file(call.path).changes.append(call)
        elif call.name == "sync":
            self._sync(call)
        elif call.name == "create":
            is_new = call.path not in self._names and not (self._base / call.path).exists()
            if is_new or self._is_gone(call.path):
                self._rename(call, File(bytearray()))
        elif call.name in ("rename", "unlink"):
            file = self._file(call.path)
            del self._names[call.path]
            self._rename(call, file)

    def _is_gone(self, path: str) -> bool:
        """Whether a file that there was has no name any more."""
        return path not in self._names and path in self._safe_names

    def _rename(self, call: Call, file: File) -> None:
        if call.name == "create":
            self._names[call.path] = file
        elif call.name == "rename":
            self._names[call.target] = file
        # Of a name that is not on the disk for certain, it is certain that it is not there.
        self._safe_names.setdefault(call.path, None)
        self._name_changes.append((call, file))

    def _sync(self, call: Call) -> None:
        if call.path in self._names or (self._base / call.path).is_file():
            self._file(call.path).sync(call.began)
        synced = self._names.get(call.path)
        concerned = [
            number
            for number, (change, file) in enumerate(self._name_changes, 1)
            if change.ended < call.began and (file is synced or call.path in _folders(change))
        ]
        if concerned:
            self._safe_names = self._named(concerned[-1])
            del self._name_changes[: concerned[-1]]

    def _named(self, count: int) -> dict[str, File | None]:
        """The names on the disk if so many changes of names are there."""
        names = dict(self._safe_names)
        for change, file in self._name_changes[:count]:
            names[change.path] = file if change.name == "create" else None
            if change.name == "rename":
                names[change.target] = file
        return names

    def cut(self, kept: Kept, chance: random.Random, folder: Path) -> None:
        """Make a folder of what a power cut at this moment may leave; what was there before goes."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._base, folder)
        bounds = {"nothing": (0, 0), "everything": (len(self._name_changes),) * 2}
        count = chance.randint(*bounds.get(kept, (0, len(self._name_changes))))
        for path, file in self._named(count).items():
            if file is None:
                (folder / path).unlink(missing_ok=True)
            else:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(file.after_cut(kept, chance))


def _folders(change: Call) -> set[str]:
    return {str(PurePath(path).parent) for path in (change.path, change.target) if path}


@dataclass(frozen=True)
class Cut:
    """One state that a power cut may leave."""

    kept: Kept
    acknowledged: dict[str, int]
    """What the program had said is stored, by id with its size, when the power went."""


def cuts(
    base: Path, calls: Sequence[Call], moments: Iterable[int], chance: random.Random, folder: Path
) -> Iterator[Cut]:
    """Cut the power at moments (numbers of calls), at each for every kind of what is kept: the state is in the folder
    until the next is asked for."""
    disk, said = Disk(base), b""
    wanted = set(moments)
    for number, call in enumerate(calls):
        disk.take(call)
        if call.name == "say":
            said += call.data
        if number in wanted:
            for kept in KEPT:
                disk.cut(kept, chance, folder)
                yield Cut(kept, acknowledgements(said))


def acknowledgements(said: bytes) -> dict[str, int]:
    """The lines of a writer (`adversity.torture.writer`): an append each, its id and its size."""
    lines = said.decode().splitlines(keepends=True)
    return {line.split()[0]: int(line.split()[1]) for line in lines if line.endswith("\n")}

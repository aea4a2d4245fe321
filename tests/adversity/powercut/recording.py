"""What a program does to a folder, call by call, as strace tells it.

Only calls that change files, or wait for the disk, become `Call`s; one that would change a file of the folder in a way
that is not understood here (a writable mapping, a link, synchronous files) is an error and no gap.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TRACED = (
    "open,openat,creat,write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync_file_range,lseek,"
    "truncate,ftruncate,fallocate,unlink,unlinkat,rename,renameat,renameat2,"
    "link,linkat,symlink,symlinkat,copy_file_range,sendfile,mmap,sync,syncfs"
)
HARMLESS = {"sync_file_range"}
"""Starts to write and promises nothing: as if it were not there."""
_TEXT = re.compile(r'"([^"]*)"')
_FILE = re.compile(r"^(-?\w+)<([^>]*)>(\(deleted\))?")
_RETURNED = re.compile(r"\)\s+= (-?\d+)(?:<([^>]*)>)?")


class NotUnderstood(Exception):
    """The traced program changed a file by a call that this recording cannot follow."""


@dataclass(frozen=True)
class Call:
    """One call that ended well. ``began`` and ``ended`` are lines of the trace: moments that can be compared."""

    name: str
    """write, truncate, extend, sync, create, rename, unlink, or say."""
    path: str
    began: int
    ended: int
    offset: int = 0
    data: bytes = b""
    target: str = ""
    """Where a rename leads."""


def record(
    command: Sequence[str], folder: Path, said: Path, ignore: Callable[[str], bool], strace: str
) -> list[Call]:
    """Run a program to its end; what it, and whatever it starts, did to the files below a folder.

    What it writes on standard output goes to the file ``said``, and into the recording as calls that ``say``: what it
    claims is in one order with what it does. Files that ``ignore`` picks by their path in the folder are left out.
    """
    trace = said.with_name("trace")
    options = ("-f", "-qq", "-y", "-xx", "-s", str(2**26), "-e", "signal=none", "-e", f"trace={TRACED}")
    with said.open("wb") as output:
        done = subprocess.run(
            [strace, *options, "-o", str(trace), "--", *command],
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=200,
            check=False,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    assert done.returncode == 0, done.stderr.decode()
    with trace.open(encoding="ascii") as lines:
        calls = list(_Reader(folder.resolve(), said.resolve(), ignore).read(lines))
    trace.unlink()
    return calls


@dataclass
class _Reader:
    folder: Path
    said: Path
    ignore: Callable[[str], bool]
    positions: dict[tuple[str, str], int] = field(default_factory=dict)
    """Where each open file of each process stands, for those that write without an offset."""

    def read(self, lines: Iterator[str]) -> Iterator[Call]:
        begun: dict[str, tuple[int, str]] = {}
        for number, line in enumerate(lines):
            process, _, text = line.rstrip("\n").partition(" ")
            text = text.lstrip()
            began = number
            if text.endswith("<unfinished ...>"):
                begun[process] = (number, text.removesuffix("<unfinished ...>").rstrip())
                continue
            if text.startswith("<... "):
                began, start = begun.pop(process)
                text = start + text.partition("resumed>")[2]
            name, _, arguments = text.partition("(")
            returned = _RETURNED.search(arguments, arguments.rfind(") ") if ") " in arguments else 0)
            if returned and int(returned[1]) >= 0:
                yield from self._understood(process, name, arguments, returned, began, number)

    def _understood(
        self, process: str, name: str, arguments: str, returned: re.Match[str], began: int, ended: int
    ) -> Iterator[Call]:
        result = int(returned[1])
        file = _FILE.match(arguments)
        descriptor, opened = (file[1], self._path(file[2])) if file and not file[3] else ("", None)
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments)]
        if name in ("open", "openat", "creat"):
            path = self._path(returned[2] or "")
            self.positions[process, returned[1]] = 0
            if path is None:
                return
            if re.search(r"\bO_(SYNC|DSYNC|DIRECT|TMPFILE)\b", arguments):
                raise NotUnderstood(arguments)
            if "O_CREAT" in arguments or name == "creat":
                yield Call("create", path, began, ended)
            if "O_TRUNC" in arguments or name == "creat":
                yield Call("truncate", path, began, ended)
        elif name in ("rename", "renameat", "renameat2", "unlink", "unlinkat"):
            paths = [self._named(text) for text in texts]
            if paths[0] is not None and "AT_REMOVEDIR" not in arguments:
                if "rename" in name:
                    if paths[1] is None:
                        raise NotUnderstood(f"{name}({arguments}")
                    yield Call("rename", paths[0], began, ended, target=paths[1])
                else:
                    yield Call("unlink", paths[0], began, ended)
        elif name == "lseek":
            self.positions[process, descriptor] = result
        elif name == "write" and file and _decoded(file[2]) == str(self.said):
            yield Call("say", "", began, ended, data=texts[0][:result])
        elif name in ("sync", "syncfs"):
            raise NotUnderstood(name)
        elif opened is None or name in HARMLESS:
            # A mapping names its file as the fifth of its arguments.
            if name == "mmap" and "MAP_SHARED" in arguments and "PROT_WRITE" in arguments:
                mapped = re.search(r"\d+<([^>]*)>", arguments)
                if mapped and self._path(mapped[1]) is not None:
                    raise NotUnderstood(_decoded(mapped[1]))
        else:
            yield from self._changed(
                process, name, arguments, descriptor, opened, texts, result, began, ended
            )

    def _changed(
        self, process: str, name: str, arguments: str, descriptor: str, path: str, texts: list[bytes],
        result: int, began: int, ended: int,
    ) -> Iterator[Call]:  # fmt: skip
        numbers = [int(number) for number in re.findall(r", (-?\d+)(?=[,)])", _TEXT.sub("", arguments))]
        if name in ("fsync", "fdatasync"):
            yield Call("sync", path, began, ended)
        elif name in ("write", "writev"):
            if (process, descriptor) not in self.positions:
                raise NotUnderstood(f"{name} to {path}, of which nobody knows where it stands")
            offset = self.positions[process, descriptor]
            self.positions[process, descriptor] += result
            yield Call("write", path, began, ended, offset, b"".join(texts)[:result])
        elif name in ("pwrite64", "pwritev"):
            yield Call("write", path, began, ended, numbers[-1], b"".join(texts)[:result])
        elif name == "ftruncate":
            yield Call("truncate", path, began, ended, numbers[0])
        elif name == "fallocate" and numbers[0] == 0:
            yield Call("extend", path, began, ended, numbers[1] + numbers[2])
        else:
            raise NotUnderstood(f"{name}({arguments[:200]}")

    def _path(self, hexadecimal: str) -> str | None:
        if not hexadecimal.startswith("\\x2f"):  # a pipe, a socket
            return None
        return self._named(os.fsencode(_decoded(hexadecimal)))

    def _named(self, path: bytes) -> str | None:
        """The path within the folder, if the file is one to be followed. A relative one begins in the folder."""
        full = self.folder / os.fsdecode(path)
        if not full.is_relative_to(self.folder):
            return None
        inside = str(full.relative_to(self.folder))
        return None if self.ignore(inside) else inside


def _decoded(hexadecimal: str) -> str:
    return os.fsdecode(bytes.fromhex(hexadecimal.replace("\\x", "")))

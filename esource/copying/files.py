"""Files of rows: JSON Lines, compressed if the name says so, with an end that tells whether all is there.

The first line says what the file is, the last one how many rows of each table are between them, with the
SHA-256 of everything before it. A file that was cut off or changed is found out before anything of it is used
for good. Reading and writing take memory for a page of rows, however large the file.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, cast

from esource.checks import CEILING, Limits, check_path
from esource.copying.lines import KIND, members, read_line, write_line
from esource.copying.rows import Relation, Row
from esource.errors import FileRefusedError, InvalidOptionError, MissingDriverError

FORMAT = 1
"""Version of the format, in the first line."""

BEGIN, END = "begin", "end"

BATCH_ROWS = 2000
"""Rows that are handed on together, at most."""

BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of lines that are handed on together, unless one line alone is longer."""

BESIDES_CHARACTERS = 2 * 1024 * 1024
"""Characters of a line beyond those of its JSON: names, errors with their tracebacks, escapes."""


class RowsWriter:
    """Writes rows to a file that is open for bytes."""

    def __init__(self, file: BinaryIO, header: Mapping[str, Any], source: str) -> None:
        self._file = file
        self._source = source
        self._digest = sha256()
        self.counts: Counter[str] = Counter()
        """Rows written so far, by table."""
        self._write(json.dumps({KIND: BEGIN, "format": FORMAT, **header}))

    def _write(self, text: str) -> None:
        data = f"{text}\n".encode()
        self._digest.update(data)
        self._file.write(data)

    def rows(self, relation: Relation, rows: Iterable[Row]) -> None:
        """Write rows of a table; at least one.

        Raises:
            ValueError: a row holds a value that is not an id, a moment or JSON.
        """
        lines = [write_line(relation, row, self._source) for row in rows]
        self._write("\n".join(lines))
        self.counts[relation.name] += len(lines)

    def end(self) -> None:
        """Write the last line."""
        digest = self._digest.hexdigest()
        self._write(json.dumps({KIND: END, "rows": dict(self.counts), "sha256": digest}))


class RowsReader:
    """Reads a file that `RowsWriter` made, in memory for a row as large as the limits allow, however large the file
    becomes when it is decompressed.

    Raises:
        FileRefusedError: the file is not one of these.
    """

    def __init__(self, file: BinaryIO, name: str, limits: Limits = CEILING) -> None:
        self._file = file
        self._name = name
        self._limits = limits
        self._longest = limits.payload_characters + BESIDES_CHARACTERS
        self._digest = sha256()
        self._line = 0
        self.counts: Counter[str] = Counter()
        """Rows read so far, by table."""
        first = self._next()
        try:
            header = {} if first is None or len(first) > BESIDES_CHARACTERS else json.loads(first)
        except (ValueError, RecursionError):
            header = {}
        if not isinstance(header, dict) or header.get(KIND) != BEGIN:
            raise self._refused("this is no file of rows that esource has written")
        if header.get("format") != FORMAT:
            raise self._refused(
                f"its format is {header.get('format')!r}, this esource reads {FORMAT}. Upgrade the package: "
                "pip install --upgrade esource"
            )
        self._digest.update(first or b"")
        self.header: dict[str, Any] = header
        """What the first line says."""

    def _refused(self, problem: str) -> FileRefusedError:
        return FileRefusedError(self._name, problem, line=self._line or None)

    def _next(self) -> bytes | None:
        try:
            # At most four bytes a character; one more shows that there is more.
            line = self._file.readline(4 * self._longest + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise FileRefusedError(self._name, f"it is damaged or cut off: {error}") from error
        except Exception as error:
            if type(error).__name__ != "ZstdError":
                raise
            raise FileRefusedError(self._name, f"it is damaged or cut off: {error}") from error
        self._line += 1
        return line or None

    def batches(self) -> Iterator[list[tuple[Relation, Row]]]:
        """All rows in the file's order, some at a time; after the last, the file was complete.

        Raises:
            FileRefusedError: a line cannot be used, or the file is cut off or was changed.
        """
        batch: list[tuple[Relation, Row]] = []
        size = 0
        while True:
            digest = self._digest.copy()
            line = self._next()
            if line is None or not line.endswith(b"\n"):
                if line is not None and len(line) > self._longest:
                    raise self._too_long(len(line))
                raise FileRefusedError(
                    self._name, f"it is cut off after line {self._line - 1}: its last line is missing"
                )
            try:
                text = line.decode()
                if len(text) > self._longest:
                    raise self._too_long(len(text))
                found = members(text)
                if KIND in found and found[KIND].value == END:
                    self._check_end(found, digest.hexdigest())
                    yield batch
                    return
                batch.append(read_line(found))
            except (ValueError, RecursionError, OverflowError) as error:
                raise self._refused(str(error)) from error
            self._digest.update(line)
            self.counts[batch[-1][0].name] += 1
            size += len(line)
            if len(batch) == BATCH_ROWS or size > BATCH_BYTES:
                yield batch
                batch, size = [], 0

    def _too_long(self, size: int) -> FileRefusedError:
        return self._refused(
            f"the line has {size} characters or more, the limit is {self._longest}. If the store that it comes from "
            f"had larger Limits.payload_characters than {self._limits.payload_characters}, pass those limits"
        )

    def _check_end(self, found: Mapping[str, Any], digest: str) -> None:
        said = {
            name: json.loads(found[name].text)
            for name in ("rows", "sha256")
            if name in found and len(found[name].text) <= BESIDES_CHARACTERS
        }
        if said != {"rows": dict(self.counts), "sha256": digest}:
            raise self._refused(
                f"what was read does not match it: the file was changed. It holds {dict(self.counts)}, "
                f"digest {digest}"
            )
        if self._next() is not None:
            raise self._refused("rows follow the last line")


OTHERS = (".7z", ".br", ".bz2", ".lz4", ".lzma", ".xz", ".zip")
"""Endings of other kinds of compression, which are refused."""


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise MissingDriverError("zstandard", "zstd") from error
    return zstandard


def _compressed(path: Path, file: BinaryIO, *, write: bool) -> BinaryIO:
    """A layer over an open file that compresses or decompresses, by the name's ending."""
    if path.suffix == ".gz":
        mode = "wb" if write else "rb"
        return cast("BinaryIO", gzip.GzipFile(path.stem if write else None, mode, 6, file, mtime=0))
    if path.suffix == ".zst":
        zstandard = _zstandard()
        if write:
            return cast("BinaryIO", zstandard.ZstdCompressor(level=6).stream_writer(file, closefd=False))
        reader = zstandard.ZstdDecompressor().stream_reader(file, closefd=False)
        return cast("BinaryIO", io.BufferedReader(reader, 1 << 20))
    return file


def path_of(file: object) -> Path:
    """The path of a file, with the home folder for ``~`` at its beginning.

    Raises:
        InvalidOptionError: it cannot be the path of a file.
    """
    return Path(check_path("the file", file))


@asynccontextmanager
async def new_file(path: Path) -> AsyncIterator[Path]:
    """Where to write a file that appears under its name complete and on the disk, or not at all. It is there and
    empty.

    Raises:
        InvalidOptionError: there is such a file already, or it cannot be made.
    """
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        await asyncio.to_thread(_begin, partial, path)
        yield partial
        await asyncio.to_thread(_keep, partial, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        await asyncio.to_thread(_drop, partial)


def _unwritable(path: Path, error: OSError) -> InvalidOptionError:
    problem, folder = error.strerror or error, path.absolute().parent
    return InvalidOptionError(f"{path} cannot be written: {problem}. Look at its folder, {folder}")


def _begin(partial: Path, path: Path) -> None:
    _refuse_existing(path)
    partial.open("xb").close()


def _keep(partial: Path, path: Path) -> None:
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    _refuse_existing(path)
    partial.rename(path)
    _sync_folder(path.parent)


def _drop(partial: Path) -> None:
    with suppress(OSError):  # what could not be made cannot be removed either
        partial.unlink(missing_ok=True)


@asynccontextmanager
async def written(path: Path) -> AsyncIterator[BinaryIO]:
    """A `new_file` that is open for bytes, and compressed if its name ends so.

    Raises:
        InvalidOptionError: there is such a file already, it cannot be made, or its name's ending stands for another
            kind of compression.
        MissingDriverError: the extra for this kind of compression is not installed.
    """
    if path.suffix == ".zst":
        _zstandard()
    elif path.suffix.lower() in OTHERS:
        raise InvalidOptionError(f"{path}: files are compressed as .gz or .zst. Choose one of these endings.")
    async with new_file(path) as partial:
        with partial.open("wb") as file:
            layer = _compressed(path, file, write=True)
            yield layer
            if layer is not file:
                layer.close()


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise InvalidOptionError(f"{path} is there already: it is not overwritten. Choose another name.")


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every system can; the file itself is on the disk
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def opened(path: Path, limits: Limits = CEILING) -> Iterator[RowsReader]:
    """A file that was `written`, for reading.

    Raises:
        FileRefusedError: the file is not one of these.
        InvalidOptionError: there is no such file, or it may not be read.
        MissingDriverError: the extra for this kind of compression is not installed.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidOptionError(f"{path}: {error.strerror or error}") from error
    with file:
        yield RowsReader(_compressed(path, file, write=False), str(path), limits)

"""Writes `esource/sync/`: for each class of the asynchronous side one with the same methods, which it drives.

Run it when an asynchronous signature has changed: ``python tests/support/synchronous.py``.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]

CLASSES = {
    "checkpoint": ("repositories.checkpoint", ["CheckpointRepository", "SQLiteCheckpointRepository", "PostgreSQLCheckpointRepository", "InMemoryCheckpointRepository"]),
    "dlq": ("repositories.dlq", ["DLQRepository", "SQLiteDLQRepository", "PostgreSQLDLQRepository", "InMemoryDLQRepository"]),
    "outbox": ("repositories.outbox", ["OutboxRepository", "SQLiteOutboxRepository", "PostgreSQLOutboxRepository", "InMemoryOutboxRepository"]),
    "snapshot": ("repositories.snapshot", ["SnapshotStore", "SQLiteSnapshotStore", "PostgreSQLSnapshotStore", "InMemorySnapshotStore"]),
    "lease": ("repositories.lease", ["Lease"]),
    "transaction": ("store.transaction", ["Transaction"]),
    "subscription": ("store.subscription", ["Subscription"]),
    "lifecycle": ("store.lifecycle", ["Lifecycle"]),
    "querying": ("store.querying", ["Queries"]),
    "deciding": ("store.deciding", ["Decisions"]),
    "waiting": ("store.waiting", ["Waits"]),
    "event_store": ("store.store", ["EventStore"]),
    "doors": ("store.doors", ["SQLiteEventStore", "PostgreSQLEventStore"]),
    "memory": ("store.memory", ["InMemoryEventStore"]),
    "repository": ("store.repository", ["AggregateRepository"]),
    "runner": ("projections.runner", ["ProjectionRunner"]),
    "relay": ("publishing.relay", ["OutboxRelay"]),
    "directory.upkeep": ("directory.upkeep", ["Upkeep"]),
    "directory.moving": ("directory.moving", ["Moves"]),
    "directory.keys": ("directory.keys", ["Keys"]),
    "directory.directory": ("directory.directory", ["Directory"]),
    "directory.crew": ("directory.crew", ["Crew"]),
}  # fmt: skip
HOME = {name: module for module, (_, names) in CLASSES.items() for name in names} | {
    "Connection": "connection"
}
OTHERS = {"AsyncConnection": "Connection", "Readable": "EventStore"}
"""Other names that a type has on this side."""
BY_HAND = {"Source": "driven", "Joinable": "connection", "Follow": "opening"}
"""Types that this side declares itself."""


def tree_of(module: str) -> ast.Module:
    return ast.parse((ROOT / "esource" / file_of(module)).read_text(encoding="utf-8"))


def class_of(module: str, name: str) -> ast.ClassDef:
    return next(n for n in tree_of(module).body if isinstance(n, ast.ClassDef) and n.name == name)


def imported(module: str) -> dict[str, str]:
    """Every name that a module has, with the import that brings it."""
    found: dict[str, str] = {}
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"from {node.module} import {ast.unparse(alias)}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name] = f"import {ast.unparse(alias)}"
    for node in tree_of(module).body:
        for target in getattr(node, "targets", [getattr(node, "target", node)]):
            name = getattr(target, "id", getattr(target, "name", None))
            if name and isinstance(node, ast.Assign | ast.AnnAssign | ast.ClassDef | ast.FunctionDef):
                found[name] = f"from esource.{module} import {name}"
    return found


def said(text: str) -> str:
    """A docstring for readers without `async`."""
    for old, new in {
        "async with": "with",
        "async for": "for",
        "``await ": "``",
        "await ": "",
        "One store belongs to one event loop; any number of tasks may share it": "Any number of threads may share it",
        "the running task": "the running thread",
        "from any task of the loop": "from any thread",
        "async sessionmaker": "async_sessionmaker",
        "It is one object for each log: close": "Close",
        "or a coroutine function that follows the log itself, and is cancelled at the end": "or a coroutine function that "
        "follows the log on the asynchronous side, from its store there, and is cancelled at the end",
    }.items():
        text = text.replace(old, new)
    return text


class Module:
    def __init__(self, name: str) -> None:
        self.name = name
        self.source, self.classes = CLASSES[name]
        self.imports: set[str] = {"from esource.sync.driven import Driven"}
        self.names = imported(self.source)

    def need(self, text: str) -> str:
        """The text of a type or a default with the names of this side; what it needs is imported."""
        text = re.sub(r"\b(AsyncIterator|AsyncGenerator)\[(.*?)(, None)?\]$", r"Iterator[\2]", text)
        for old, new in OTHERS.items():
            text = re.sub(rf"\b{old}\b", new, text)
        if "Iterator[" in text:
            self.imports.add("from collections.abc import Iterator")
        for name in set(re.findall(r"\b[A-Za-z_]\w*", re.sub(r"['\"].*?['\"]", "", text))):
            if name in BY_HAND:
                self.imports.add(f"from esource.sync.{BY_HAND[name]} import {name}")
            elif name in HOME:
                if HOME[name] != self.name:
                    self.imports.add(f"from esource.sync.{HOME[name]} import {name}")
            elif name in self.names:
                self.imports.add(self.names[name])
        return text

    def write(self) -> str:
        body = "\n\n".join(self.class_text(name) for name in self.classes)
        package, _, module = self.source.rpartition(".")
        self.imports.add(f"from esource.{package} import {module} as asynchronous")
        self.names.pop("annotations", None)
        imports = "\n".join(sorted(self.imports))
        return (
            f'"""`esource.{self.source}` for programs without an event loop."""\n\n'
            "# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.\n\n"
            f"from __future__ import annotations\n\n{imports}\n\n\n{body}\n"
        )

    def class_text(self, name: str) -> str:
        node = class_of(self.source, name)
        generic, target = "", f"asynchronous.{name}"
        bases = [self.need(text) for text in map(ast.unparse, node.bases) if text in HOME]
        base = ", ".join(bases) or "Driven"
        for found in node.bases:
            text = ast.unparse(found)
            if text.startswith("Generic"):
                generic = f", {self.need(text)}"
                target += text.removeprefix("Generic")
        if name in ("ProjectionRunner", "OutboxRelay", "Directory", "Crew"):
            target += "\n    _waits = True"
        lines = [f"class {name}({base}{generic}):", self.docstring(node, 1), f"    _target: {target}\n"]
        members: dict[str, ast.stmt] = {}
        members |= {n.name: n for n in node.body if hasattr(n, "name")}
        for member in members.values():
            if member.name in (
                "__init__",
                "__aenter__",
                "__aexit__",
                "__anext__",
                "__repr__",
            ) or not member.name.startswith("_"):
                lines.append(self.member(name, member))
        lines.append("") if len(lines) > 3 else lines.append("")
        return "\n".join(line for line in lines if line is not None)

    def docstring(self, node, depth: int) -> str | None:
        text = ast.get_docstring(node, clean=False)
        if text is None:
            return None
        return "    " * depth + '"""' + said(text) + '"""'

    def member(self, class_name: str, node) -> str:
        name = node.name
        if name == "__aenter__":
            self.imports.add("from typing_extensions import Self")
            return "    def __enter__(self) -> Self:\n        self._enter()\n        return self\n"
        if name == "__aexit__":
            self.imports.add("from types import TracebackType")
            return (
                "    def __exit__(\n        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None\n"
                "    ) -> None:\n        self._exit(kind, error, trace)\n"
            )
        if name == "__anext__":
            self.imports |= {
                "from typing_extensions import Self",
                "from esource.log.streams import StoredEvent",
            }
            return (
                "    def __iter__(self) -> Self:\n        return self\n\n"
                "    def __next__(self) -> StoredEvent:\n        try:\n            return self._following(self._target)\n"
                "        except StopAsyncIteration:\n            raise StopIteration from None\n"
            )
        if name == "__repr__":
            return "    def __repr__(self) -> str:\n        return repr(self._target)\n"
        decorators = [ast.unparse(d) for d in node.decorator_list]
        returned = "None" if node.returns is None else ast.unparse(node.returns)
        doc = self.docstring(node, 2)
        arguments = node.args
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            if argument.annotation is not None:
                text = ast.unparse(argument.annotation)
                text = (
                    re.sub(r"\bConnection\b", "Joinable", text)
                    if argument.arg == "connection" and "Async" not in text
                    else text
                )
                if argument.arg == "execution":
                    text = self.need(text)
                argument.annotation = ast.parse(self.need(text), mode="eval").body
        if arguments.vararg is not None and arguments.vararg.annotation is not None:
            self.need(ast.unparse(arguments.vararg.annotation))
        if arguments.kwarg is not None:
            self.need(ast.unparse(arguments.kwarg.annotation))
        for default in [*arguments.defaults, *filter(None, arguments.kw_defaults)]:
            self.need(ast.unparse(default))
        if class_name == "SQLiteEventStore" and name == "__init__":
            place = [a.arg for a in arguments.kwonlyargs].index("execution")
            arguments.kw_defaults[place] = ast.Constant("caller")
        # Everything by position that may be, so that mypy compares the two signatures.
        passed = [a.arg for a in [*arguments.posonlyargs, *arguments.args][1:]]
        if arguments.vararg:
            passed.append(f"*{arguments.vararg.arg}")
        passed += [f"{a.arg}={a.arg}" for a in arguments.kwonlyargs]
        if arguments.kwarg:
            passed.append(f"**{arguments.kwarg.arg}")
        passed = [
            re.sub(
                r"(^|=)(connection|event_store|store|database|snapshot_store|repository)$",
                r"\1unwrapped(\2)",
                p,
            )
            for p in passed
        ]
        given = ", ".join(passed)
        signature = ast.unparse(arguments)
        if name == "__init__":
            given = given.replace("unwrapped(", "(")
            made = f"asynchronous.{class_name}"
            if class_name == "Directory":  # in the caller's thread, as `open_store`
                given = given.replace("**options", "**{'execution': 'caller', **options}")
            if class_name == "Crew":
                self.imports.add("from esource.sync.opening import following")
                given = given.replace("follow", "following(follow)")
            return f"    def __init__({signature}) -> None:\n        self._hold({made}{', ' + given if given else ''})\n"
        if "unwrapped(" in given:
            self.imports.add("from esource.sync.driven import unwrapped")
        call = f"self._target.{name}({given})"
        if any("property" in d for d in decorators):
            body, decorator = self.wrapped(returned, f"self._target.{name}"), "    @property\n"
        elif "classmethod" in decorators:
            decorator = "    @classmethod\n"
            body = ast.unparse(node.body[-1])
        elif "asynccontextmanager" in decorators:
            inner = self.need(re.match(r"AsyncIterator\[(.*)\]", returned).group(1))
            self.imports.add("from contextlib import AbstractContextManager")
            returned, decorator = f"AbstractContextManager[{inner}]", ""
            body = f"return self._block({call}, {inner}._around)"
            if inner == "Self":
                body = f"return self._background({call})"
        elif returned.startswith(("AsyncGenerator", "AsyncIterator")):
            body, decorator = f"return self._iterate({call})", ""
        elif isinstance(node, ast.AsyncFunctionDef):
            body, decorator = self.wrapped(returned, f"self._call({call})"), ""
        elif name == "stop":
            body, decorator = f"self._tell(self._target.{name})", ""
            if class_name == "Subscription":  # at once: what is at hand is handed over without the loop
                body = f"self._target._stopping = True\n        {body}"
        else:
            body, decorator = self.wrapped(returned, call), ""
        returned = self.need(returned)
        return (
            f"{decorator}    def {name}({signature}) -> {returned}:\n"
            + (f"{doc}\n" if doc else "")
            + f"        {body}\n"
        )

    def wrapped(self, returned: str, call: str) -> str:
        if returned == "None":
            return call
        named = OTHERS.get(returned, returned)
        if named == "EventStore" and self.source.startswith("directory."):
            self.imports.add("from esource.sync.opening import opened")
            return f"return opened({call})"
        if returned == "Self":
            return f"return self._around({call}, self)"
        if named in HOME:
            return f"return {self.need(named)}._around({call}, self)"
        return f"return {call}"


INTRODUCTION = '''"""esource for programs without an event loop: the same names, without `async` and `await`.

    from esource.sync import AggregateRepository, SQLiteEventStore

    with SQLiteEventStore("events.db") as store:
        store.initialize()
        orders = AggregateRepository(store, Order)

Everything here drives the asynchronous code. A store may be shared between threads. What is no store, repository,
runner, relay or subscription is the same object as in `esource`. `esource.sync.directory` has many logs under one name, and
`fill_tags` is the one of `esource.copying`.
"""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.
'''


def introduction() -> str:
    """`esource.sync` itself: the names of this side, and those that are the same on both."""
    public = ast.literal_eval(
        next(
            n.value
            for n in tree_of("__init__").body
            if isinstance(n, ast.Assign) and n.targets[0].id == "__all__"
        )
    )
    homes = {
        **HOME,
        "open_store": "opening",
        "fill_tags": "filling",
        "Projection": "projection",
        "ProjectionContext": "projection",
    }
    names = sorted({*public, "Connection", "fill_tags"})
    lines = [
        f"from esource.sync.{homes[name]} import {name}" if name in homes else f"from esource import {name}"
        for name in names
    ]
    return "\n".join([INTRODUCTION, *lines, "", f"__all__ = {names!r}", ""])


def file_of(module: str) -> str:
    return module.replace(".", "/") + ".py"


def written() -> dict[Path, str]:
    """What each generated file should hold."""
    folder = ROOT / "esource" / "sync"
    folder.mkdir(exist_ok=True)
    found = {}
    with TemporaryDirectory(dir=folder) as place:  # where ruff finds the settings of the checkout
        for name in [*CLASSES, "__init__"]:
            text = introduction() if name == "__init__" else Module(name).write()
            file = Path(place) / file_of(name)
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        for command in (["check", "-q", "--select", "I,F401,RUF022,RUF100", "--fix"], ["format", "-q"]):
            subprocess.run([sys.executable, "-m", "ruff", *command, place], check=True)
        for name in [*CLASSES, "__init__"]:
            found[folder / file_of(name)] = (Path(place) / file_of(name)).read_text(encoding="utf-8")
    return found


if __name__ == "__main__":
    for path, text in written().items():
        path.write_text(text, encoding="utf-8")

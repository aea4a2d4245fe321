"""Asynchronous programs as they are written with `esource.sync`: by taking `async` and `await` out of them.

``python tests/support/without_async.py FILE ARGUMENT ...`` runs one of them so.
"""

from __future__ import annotations

import ast
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any


class _Without(ast.NodeTransformer):
    def visit(self, node: ast.AST) -> ast.AST:
        node = self.generic_visit(node)
        match node:
            case ast.AsyncFunctionDef() | ast.AsyncWith() | ast.AsyncFor():
                kind = getattr(ast, type(node).__name__.removeprefix("Async"))
                return ast.copy_location(kind(**dict(ast.iter_fields(node))), node)
            case ast.Await(value=value):
                return ast.copy_location(ast.Call(ast.Name("result_of", ast.Load()), [value], []), node)
            case ast.comprehension():
                node.is_async = 0
            case ast.Attribute(attr="__anext__"):
                node.attr = "__next__"
            case ast.ImportFrom(module="esource"):
                node.module = "esource.sync"
            case ast.alias(name="aclosing"):
                return ast.alias("closing", "aclosing")
            case ast.Call(func=ast.Attribute(attr="run", value=ast.Name("asyncio")), args=[main]):
                return main
            case ast.Call(func=ast.Attribute(attr="ensure_future" | "create_task"), args=[work]):
                node.args = [_later(work, [])]
            case ast.Call(
                func=ast.Attribute(attr="gather"), args=[ast.Starred(value=ast.GeneratorExp() as each)]
            ):
                names = [g.target.id for g in each.generators if isinstance(g.target, ast.Name)]
                each.elt = _later(each.elt, names)
        return node


def _later(work: ast.expr, names: list[str]) -> ast.Lambda:
    arguments = ast.arguments(
        [],
        [ast.arg(name) for name in names],
        None,
        [],
        [],
        None,
        [ast.Name(name, ast.Load()) for name in names],
    )
    return ast.copy_location(ast.Lambda(arguments, work), work)


def without_async(source: str) -> str:
    """The program with the names of `esource.sync`."""
    return ast.unparse(ast.fix_missing_locations(_Without().visit(ast.parse(source))))


def result_of(value: Any) -> Any:
    return value.result() if isinstance(value, Future) else value


class Threads:
    """What `asyncio` does with tasks, with threads."""

    def gather(self, *works: Callable[[], Any], return_exceptions: bool = False) -> list[Any]:
        with ThreadPoolExecutor(len(works)) as pool:
            futures = [pool.submit(work) for work in works]
        return [
            future.exception() if return_exceptions and future.exception() else future.result()
            for future in futures
        ]

    def ensure_future(self, work: Callable[[], Any]) -> Future[Any]:
        return ThreadPoolExecutor(1).submit(work)

    create_task = ensure_future
    CancelledError = CancelledError
    sleep = staticmethod(time.sleep)


def module_without_async(name: str, path: Path, others: dict[str, str]) -> ModuleType:
    """A module of the same content; where it imports one of the others, by its new name."""
    source = path.read_text(encoding="utf-8")
    for old, new in others.items():
        source = source.replace(f"from {old} import", f"from {new} import")
    module = ModuleType(name)
    sys.modules[name] = module
    module.__file__ = str(path)
    code = without_async(source).replace("import asyncio\n", "").replace("@pytest.mark.asyncio\n", "")
    module.__dict__.update({"result_of": result_of, "asyncio": Threads()})
    exec(compile(code, str(path), "exec"), module.__dict__)  # noqa: S102 - our own text
    return module


def program(file: Path) -> list[str]:
    """The command that runs a program of the tests as this run drives its stores."""
    if os.environ.get("ESOURCE_TEST_EXECUTION") == "sync":
        return [sys.executable, __file__, str(file)]
    return [sys.executable, str(file)]


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    module_without_async("__main__", Path(sys.argv[0]), {})

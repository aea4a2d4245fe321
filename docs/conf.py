"""How the documentation is built: `nox -s docs`, or `sphinx-build -W docs build/docs`. Needs no network."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring

import esource

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

project = "esource"
version = release = esource.__version__
copyright = "the esource authors, MIT licence"  # noqa: A001 - Sphinx's word

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns: list[str] = []
nitpicky = True

# -- Markdown, written so that a forge shows it as well ------------------------------------------------

myst_heading_anchors = 4
myst_links_external_new_tab = False
suppress_warnings = ["myst.xref_missing"]  # files of the repository, which become links to it below

NAVIGATION = {
    "Begin": ["first-contact", "tutorial", "courses", "less-to-write"],
    "How to": [
        "how-to/append",
        "how-to/decide",
        "how-to/follow",
        "how-to/project",
        "how-to/read-what-you-wrote",
        "how-to/publish",
        "how-to/snapshot",
        "how-to/upcast",
        "how-to/synchronous",
        "how-to/fastapi",
        "how-to/celery",
        "how-to/flask",
        "how-to/django",
        "how-to/scripts",
        "how-to/separate-tenants",
        "how-to/several-logs",
        "how-to/many-logs",
        "how-to/test",
        "how-to/migrate",
        "moving",
        "privacy",
        "deployment",
        "growth",
        "how-to/observe",
    ],
    "Understand": [
        "explanation/group-commit",
        "explanation/order",
        "explanation/conditions",
        "explanation/sqlite",
        "explanation/alembic",
        "explanation/storage",
        "explanation/rooms",
        "promises",
        "security",
        "benchmarks",
        "coming-from",
    ],
    "Look up": [
        "reference/options",
        "reference/errors",
        "reference/schema",
        "reference/tags",
        "cli",
        "inspect",
        "reference/api/index",
    ],
}
"""The side bar. It is added to index.md here: there, a directive would show as code on a forge."""


def add_navigation(app: Sphinx, name: str, content: list[str]) -> None:
    """Append the tables of contents to the first page."""
    if name == "index":
        for caption, pages in NAVIGATION.items():
            listed = "\n".join(pages)
            content[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"


# -- the API, from docstrings ---------------------------------------------------------------------------

default_role = "py:obj"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "exclude-members": "model_config, model_post_init, row",
}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

DOCSTRINGS = Config(napoleon_use_rtype=False)


def read_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Sections such as ``Args:``. Not by the extension: it takes the first colon of any attribute's text for the
    end of a type."""
    kind = "object" if what in ("attribute", "data", "property") else what
    lines[:] = GoogleDocstring(lines, DOCSTRINGS, app, kind, name, obj, options).lines()


MADE_BY_US = {
    f"esource.{name}"
    for name in ("EventStore", "Transaction", "Subscription", "StoredEvent", "ProjectionContext")
}
"""Classes whose objects users are given: how they are made is not theirs to know."""


def read_signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    arguments: str | None,
    returned: str | None,
) -> tuple[str | None, str | None]:
    """What a dataclass makes for each object is shown as `...`: its own `<factory>` is no Python."""
    if name in MADE_BY_US:
        return "", None
    return arguments and arguments.replace("<factory>", "..."), returned


ELSEWHERE = {
    "sqlalchemy.ext.asyncio.": "https://docs.sqlalchemy.org/en/20/orm/extensions/asyncio.html#{name}",
    "sqlalchemy.": "https://docs.sqlalchemy.org/en/20/search.html?q={last}",
    "pydantic.BaseModel": "https://docs.pydantic.dev/latest/api/base_model/",
    "pydantic.": "https://docs.pydantic.dev/latest/errors/errors/",
    "aiosqlite.": "https://aiosqlite.omnilib.dev/en/stable/api.html",
    "alembic.": "https://alembic.sqlalchemy.org/en/latest/api/index.html",
}
"""Where other libraries describe what our signatures name, by the beginning of that name."""

UNQUALIFIED = {
    "AsyncConnection": "sqlalchemy.ext.asyncio.AsyncConnection",
    "AsyncEngine": "sqlalchemy.ext.asyncio.AsyncEngine",
    "async_sessionmaker": "sqlalchemy.ext.asyncio.async_sessionmaker",
    "create_async_engine": "sqlalchemy.ext.asyncio.create_async_engine",
    "Executable": "sqlalchemy.Executable",
    "ValidationError": "pydantic.ValidationError",
    "Config": "alembic.config.Config",
}
"""Names that are imported for type checkers only, which autodoc finds without their module."""

# Ours, but not for users, or a type variable.
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(.*\.)?(T[A-Z][a-z]\w+|_Step|_Method|Tracer|Mark|Row|Keys|Database|Unit|Writes|CloudEvent|File)",
    ),
    (
        "py:.*",
        r"(.*\.)?(Source|Opened|DriverConnection|LentConnection|Readable|LogReader|LogWriter|Named|Driven|Joinable|T|Parameters|Codec|Unpack|Views)",
    ),
    ("py:.*", r"esource\.(testing|dialect|projections)\..*"),
    ("py:.*", r"_pytest\..*"),
]


def link_elsewhere(app: Sphinx, env: Any, node: Any, content: nodes.TextElement) -> nodes.Node | None:
    """A reference that no page of ours answers: a name under its module's path, or another library's."""
    from docutils import nodes
    from sphinx.util.nodes import make_refnode

    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].lstrip(".")
    target = UNQUALIFIED.get(target, target)
    objects = env.get_domain("py").objects
    # A class is described where it is imported from, `esource.EventStore`; annotations name where it is written.
    last = target.rsplit(".", 1)[-1]
    for known in (target, ".".join(target.rsplit(".", 2)[-2:]), last):
        found = sorted((name for name in objects if name.endswith(f".{known}")), key=len)
        if found:
            there = objects[found[0]]
            return make_refnode(app.builder, node["refdoc"], there.docname, there.node_id, content, found[0])
    url = _url_of(target)
    if url is None:
        return None
    return nodes.reference("", "", content, internal=False, refuri=url)


def _url_of(target: str) -> str | None:
    module = next((name for name in ELSEWHERE if target.startswith(name)), None)
    if module is not None:
        return ELSEWHERE[module].format(name=target, last=target.rsplit(".", 1)[-1])
    home, name = _home_of(target)
    if home is None:
        return None
    page = {"builtins": "functions", "_contextvars": "contextvars"}.get(home, home)
    anchor = name if home == "builtins" else f"{home}.{name}"
    if home == "builtins":
        value = getattr(sys.modules["builtins"], name.split(".")[0])
        page = "exceptions" if isinstance(value, type) and issubclass(value, BaseException) else "functions"
        page = "constants" if value is None else page
    return f"https://docs.python.org/3/library/{page}.html#{anchor}"


def _home_of(target: str) -> tuple[str | None, str]:
    """The module of the standard library that describes a name, and the name in it."""
    first = target.split(".", maxsplit=1)[0]
    if hasattr(sys.modules["builtins"], first):
        return "builtins", target
    for module in ("collections.abc", "datetime", "uuid", "typing", "pathlib", "os", "contextlib", "enum"):
        home: ModuleType = importlib.import_module(module)
        name = target.removeprefix(f"{module}.")
        if hasattr(home, name.split(".")[0]):
            return module, name
    return None, target


# -- how it looks -----------------------------------------------------------------------------------------

html_theme = "furo"
html_title = "esource"
html_static_path = ["_static"]
html_css_files = ["esource.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f6f54", "color-brand-content": "#1b6b8f"},
    "dark_css_variables": {"color-brand-primary": "#7fd1ae", "color-brand-content": "#7cc4ea"},
}
pygments_style = "default"
pygments_dark_style = "github-dark"
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", read_signature)
    app.connect("missing-reference", link_elsewhere)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

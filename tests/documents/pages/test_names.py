"""What the README and the documentation name exists: links, options, errors, columns, methods, sessions of nox."""

import ast
import importlib.util
import inspect
import pkgutil
import re

import pytest
from support.documents import PAGES, ROOT, blocks, name_of

import esource
from esource import EventStore, PostgreSQLEventStore, SQLiteEventStore, errors
from esource.checks import Limits
from esource.tables import metadata

DOCS = ROOT / "docs"


@pytest.fixture(params=PAGES, ids=name_of)
def page(request):
    return request.param


@pytest.fixture
def document(page):
    return page.read_text(encoding="utf-8")


def read(name):
    return (DOCS / name).read_text(encoding="utf-8")


def heading(line):
    return re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")


def test_every_link_inside_the_project_leads_somewhere(page, document):
    prose = re.sub(r"^```.*?^```$", "", document, flags=re.MULTILINE | re.DOTALL)
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", prose):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if anchor:
            lines = target.read_text(encoding="utf-8").splitlines()
            assert anchor in {heading(line) for line in lines if line.startswith("#")}, anchor


def test_every_option_that_code_passes_to_a_store_exists(document):
    options = set(parameters())
    for block in blocks(document, "python"):
        tree = compile(block, "block", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "open_store",
                "PostgreSQLEventStore",
            ):
                assert {keyword.arg for keyword in node.keywords} <= options


def test_every_session_and_test_file_that_is_named_exists(document):
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    for session in re.findall(r"nox -s (\w+)", document):
        assert f"def {session}(" in noxfile
    for path in re.findall(r"`(tests/[\w/.]+)`", document):
        assert (ROOT / path).exists()


def test_every_method_of_the_store_that_is_named_exists(document):
    for name in re.findall(r"store\.(\w+)\(", document):
        assert hasattr(EventStore, name)


def test_every_command_that_is_named_exists(document):
    known = set(re.findall(r"^### `esource ([a-z -]+)`$", read("cli.md"), flags=re.MULTILINE))
    groups = {command.split()[0] for command in known}
    for named in re.findall(r"`esource ([a-z][a-z-]*(?: [a-z-]+)?)", document):
        assert named in known or named.split()[0] in known or (named in groups), named


def parameters():
    return {
        name: parameter.default
        for door in (PostgreSQLEventStore, SQLiteEventStore)
        for name, parameter in inspect.signature(door).parameters.items()
        if name not in ("database", "engine_options")
    }


def test_every_option_in_the_table_exists_with_its_default():
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", read("reference/options.md"), flags=re.MULTILINE)
    rows = [(name, default) for name, default in rows if not name.isupper()]
    assert {name for name, _ in rows} == set(parameters())
    for name, default in rows:
        if name == "limits":
            assert parameters()[name] == Limits()
        elif name != "event_registry":
            stated = None if default == "none" else ast.literal_eval(default.strip("`"))
            assert stated == parameters()[name]


def test_the_tree_of_errors_is_the_one_in_the_code():
    [tree] = blocks(read("reference/errors.md"), "text")
    assert (
        tree
        == inspect.cleandoc(errors.__doc__)
        .split("::\n\n")[1]
        .split("\n\n")[0]
        .replace("\n    ", "\n")
        .strip()
        + "\n"
    )


def test_every_error_in_the_table_exists():
    named = set(re.findall(r"`(\w+Error)`", read("reference/errors.md")))
    assert len(named) > 8
    assert all(issubclass(getattr(errors, name), errors.EventSourceError) for name in named)


def test_every_column_is_described():
    sections = dict(
        re.findall(r"^## `(\w+)`.*?\n(.*?)(?=^## )", read("reference/schema.md"), re.MULTILINE | re.DOTALL)
    )
    assert set(sections) == set(metadata.tables)
    for name, section in sections.items():
        assert set(metadata.tables[name].columns.keys()) <= set(re.findall(r"`(\w+)`", section))


def test_the_picture_of_the_tables_is_drawn_from_them_as_they_are():
    specification = importlib.util.spec_from_file_location("schema_diagram", DOCS / "schema_diagram.py")
    diagram = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(diagram)
    assert diagram.PICTURE.read_text(encoding="utf-8") == diagram.svg(), "run python docs/schema_diagram.py"


def test_every_public_name_is_in_the_reference():
    reference = "".join(
        path.read_text(encoding="utf-8") for path in (DOCS / "reference" / "api").glob("*.rst")
    )
    described = set(re.findall(r"^\.\. auto\w+:: (\w+)$", reference, flags=re.MULTILINE)) | set(
        errors.__dict__
    )
    assert set(esource.__all__) - {"SQLITE_AVAILABLE", "POSTGRESQL_AVAILABLE"} <= described


def test_every_page_is_in_the_side_bar():
    navigation = (DOCS / "conf.py").read_text(encoding="utf-8")
    for page in PAGES[:]:
        if DOCS in page.parents and page != DOCS / "index.md":
            assert f'"{page.relative_to(DOCS).with_suffix("").as_posix()}"' in navigation


OBSERVE = DOCS / "how-to" / "observe.md"
"""It names spans and metrics, in the same form as modules."""

NAMING = [
    *(page for page in PAGES if page != OBSERVE),
    *(
        ROOT / name
        for name in ("CONTRIBUTING.md", "bench/README.md", "examples/README.md", "examples/shop/README.md")
    ),
    *sorted((DOCS / "reference" / "api").glob("*.rst")),
]
"""Pages that may name modules and source files of the package."""

SOURCES = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "esource").rglob("*.py"))


@pytest.mark.parametrize("naming", NAMING, ids=name_of)
def test_every_module_that_is_named_can_be_imported_and_has_what_is_named_with_it(naming):
    for named in re.findall(r"(?<![\w./-])esource(?:\.[A-Za-z]\w*)+", naming.read_text(encoding="utf-8")):
        is_stored_name = f'"{named}"' in SOURCES  # such as the type of an event
        assert is_stored_name or pkgutil.resolve_name(named)


@pytest.mark.parametrize("naming", NAMING, ids=name_of)
def test_every_file_and_folder_of_the_package_that_is_named_exists(naming):
    for named in re.findall(r"(?<![\w./:-])esource/(?:[\w/]+(?:\.py)?)?", naming.read_text(encoding="utf-8")):
        assert named == "esource/migrations" or (ROOT / named).exists(), named

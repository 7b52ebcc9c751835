"""The house rules, read from the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
APP = ROOT / "allocations"

# Each may import those before it and its own kind.
LAYERS = [
    {"words", "hosts", "errors", "tokens"},
    {"querysets"},
    {"models"},
    {"listeners", "probes", "restarts", "running"},
    {"sql"},
    {"access"},
    {"audit", "importers", "portmap"},
    {"ports"},
    {"payloads", "exporters"},
    {"pages", "credentials", "forms", "templatetags"},
    {"views", "admin", "management", "api", "mcp", "metrics"},
    {"urls", "apps", "migrations"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
DOORS = (
    *("views", "admin", "management", "api", "mcp", "metrics.py"),
    *("pages.py", "credentials.py", "forms.py", "templatetags"),
)
WRITES = {
    *("save", "create", "update", "delete", "get_or_create", "update_or_create", "raw"),
    *("bulk_create", "bulk_update", "create_user", "create_superuser", "set_password"),
    *("set", "clear", "remove", "set_rollback"),  # also those of many-to-many
}
SQL = {"cursor", "execute", "executemany", "atomic"}
# A door mentions no other method of such a name, called or handed on; each of these is something else.
NO_WRITE = {
    ("api/owning.py", "router.delete"): "the HTTP method of an address",
    ("api/ports.py", "router.delete"): "the HTTP method of an address",
    ("api/paging.py", "asked.cursor"): "the place in a list, a parameter of the address",
    ("management/command.py", "super().execute"): "Django's own way into a command",
    ("management/commands/mcp.py", "asking.set"): "a context variable: who asks",
    ("mcp/http.py", "asking.set"): "a context variable: who asks",
    ("mcp/http.py", "answer.update"): "the dict of the answer that is being put together",
    ("mcp/tools.py", "ports.update"): "the operation of PortManager",
}


def modules() -> list[Path]:
    return sorted(p for p in APP.rglob("*.py") if "migrations" not in p.parts)


def layer_of(path: Path) -> str:
    return path.relative_to(APP).parts[0].removesuffix(".py")


def imports(path: Path, *, runtime_only: bool = True) -> Iterator[tuple[str, int]]:
    """The layers of this app that a module imports, with the line."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or (runtime_only and id(node) in guarded):
            continue
        base = [*package[: len(package) - node.level]] if node.level else []
        target = [*base, *(node.module.split(".") if node.module else [])]
        if target[:1] != ["allocations"]:
            continue
        for name in [target[1]] if len(target) > 1 else [alias.name for alias in node.names]:
            yield name, node.lineno


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(APP)))
def test_imports_only_go_down(path: Path) -> None:
    own = layer_of(path)
    if own == "__init__":
        return
    assert own in LEVEL, f"{own} has no place in the layers"
    for name, line in imports(path):
        assert LEVEL[name] <= LEVEL[own], f"{path.relative_to(ROOT)}:{line} imports {name}, which lies above {own}"


def hidden_imports(path: Path) -> list[int]:
    """The lines of imports inside a function."""
    functions = (
        n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return [n.lineno for f in functions for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(APP)))
def test_no_import_hides_in_a_function(path: Path) -> None:
    assert hidden_imports(path) == []


def mentions(path: Path, names: set[str]) -> Iterator[tuple[str, int]]:
    """Every attribute of these names, or of their twins for coroutines: as it is written, and the line.

    Called or not: `form.attempt(found.delete)` and `@transaction.atomic` do what they say as well.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and {node.attr, node.attr.removeprefix("a")} & names:
            yield ast.unparse(node), node.lineno


def doors() -> list[Path]:
    return [p for p in modules() if p.relative_to(APP).parts[0] in DOORS]


def breaches(path: Path, known_as: str) -> list[str]:
    """What a door mentions that is for PortManager to do."""
    found = mentions(path, WRITES | SQL)
    return [f"{known_as}:{line} {text}" for text, line in found if (known_as, text) not in NO_WRITE]


@pytest.mark.parametrize("path", doors(), ids=lambda p: str(p.relative_to(APP)))
def test_doors_hold_no_write_no_cursor_and_no_transaction(path: Path) -> None:
    assert breaches(path, path.relative_to(APP).as_posix()) == []


def test_every_exception_is_needed() -> None:
    written = {(p.relative_to(APP).as_posix(), text) for p in doors() for text, _ in mentions(p, WRITES | SQL)}
    assert set(NO_WRITE) <= written


@pytest.mark.parametrize("path", doors(), ids=lambda p: str(p.relative_to(APP)))
def test_doors_do_not_import_one_another(path: Path) -> None:
    kinds = {"views", "admin", "management", "api", "mcp", "metrics"}
    if path.relative_to(APP).as_posix() == "management/commands/mcp.py":
        kinds = kinds - {"mcp"}  # the other end of the same door
    own = layer_of(path)
    assert not {name for name, _ in imports(path)} & (kinds - {own})


def test_sql_text_stands_in_one_module() -> None:
    for path in modules():
        if "sql" in path.parts:
            continue
        for text, line in mentions(path, {"executemany", "cursor", "raw", "extra"}):
            assert (path.relative_to(APP).as_posix(), text) in NO_WRITE, f"{path.name}:{line} {text}"


@pytest.mark.parametrize("path", [*modules(), *sorted((ROOT / "portal").rglob("*.py"))], ids=str)
def test_a_module_that_grows_becomes_a_package(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("path", sorted((ROOT / "templates").rglob("*.html")), ids=lambda p: p.name)
def test_a_template_that_grows_is_split(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 110
    assert "|safe" not in text
    assert " style=" not in text
    assert "onclick=" not in text


def test_portal_knows_nothing_of_ports() -> None:
    for path in sorted((ROOT / "portal").rglob("*.py")):
        if path.name == "urls.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("allocations"), path


@pytest.mark.parametrize(
    "wrong",
    [
        "a.objects.update(x=1)",
        "found.delete()",
        "found.save()",
        "kept.update(x=1)",
        "said.save()",
        "form.save()",
        "ports.update(x=1)",  # an exception of another file
        "user.groups.set([])",
        "await found.asave()",
        "form.attempt(found.delete)",
        "transaction.atomic",
        "connection.cursor()",
    ],
)
def test_the_rules_see_a_breach(wrong: str, tmp_path: Path) -> None:
    view = tmp_path / "wrong.py"
    view.write_text(f"async def f(a):\n    {wrong}\n")
    assert len(breaches(view, "views/wrong.py")) == 1


def test_the_rules_see_a_hidden_import(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f(a):\n    import os\n")
    assert hidden_imports(wrong) == [2]

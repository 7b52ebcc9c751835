"""Test the architecture: layers, imports and what a door may do, read from the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
APP = ROOT / "allocations"

# The layers, lowest first. A module may import from its own layer and from lower ones. The modules of the package
# `auth` belong to different layers.
LAYERS = [
    {"validators", "text", "errors", "hosts", "observer.client"},
    {"auth.roles", "auth.tokens", "auth"},
    {"models"},
    {"migrations"},
    {"allocation_spec", "containers", "listeners", "probes", "restarts", "runner", "observer"},
    {"audit", "importers", "portmap"},
    {"sql"},
    {"auth.lookup", "auth.authentication"},
    {"ports"},
    {"schemas", "exporters"},
    {"pages", "forms", "templatetags"},
    {"logins"},
    {"views", "admin", "admin_site", "management", "api", "mcp", "metrics"},
    {"urls", "apps"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
DOORS = (
    *("views", "admin", "management", "api", "mcp", "metrics.py"),
    *("pages.py", "forms.py", "logins.py", "admin_site.py", "templatetags"),
)
WRITE_METHODS = {
    *("save", "create", "update", "delete", "get_or_create", "update_or_create", "raw"),
    *("bulk_create", "bulk_update", "create_user", "create_superuser", "set_password"),
    *("set", "clear", "remove", "set_rollback"),  # also the methods of many-to-many managers
}
SQL_METHODS = {"cursor", "execute", "executemany", "atomic"}
# Attributes with such a name that doors may use, each with the reason why it is not a write.
EXCEPTIONS = {
    ("api/pagination.py", "query.cursor"): "the position in a list, a query parameter",
    ("api/ports.py", "router.delete"): "the HTTP method of a route",
    ("api/projects.py", "router.delete"): "the HTTP method of a route",
    ("api/ranges.py", "router.delete"): "the HTTP method of a route",
    ("management/command.py", "super().execute"): "Django's entry point of a command",
    ("management/command.py", "progress.update"): "a progress bar",
    ("management/commands/dbshell.py", "os.environ.update"): "the environment of psql",
    ("management/commands/mcp.py", "current_context.set"): "a context variable with the caller",
    ("mcp/transport.py", "current_context.set"): "a context variable with the caller",
}


def modules() -> list[Path]:
    return sorted(p for p in APP.rglob("*.py") if "migrations" not in p.parts)


def layer_of(path: Path) -> str:
    """Return the layer that a module belongs to."""
    name = ".".join(path.relative_to(APP).with_suffix("").parts).removesuffix(".__init__")
    return layer_named(name)


def layer_named(name: str) -> str:
    """Return the layer of a module, given its dotted name within the app."""
    parts = name.split(".")
    return ".".join(parts[:2]) if ".".join(parts[:2]) in LEVEL else parts[0]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each layer of the app that a module imports from, with the line. Imports for type checkers count too."""
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = [*package[: len(package) - node.level]] if node.level else []
        target = [*base, *(node.module.split(".") if node.module else [])]
        if target[:1] != ["allocations"]:
            continue
        for alias in node.names:
            yield layer_named(".".join([*target[1:], alias.name])), node.lineno


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(APP)))
def test_modules_import_only_from_their_own_layer_and_below(path: Path) -> None:
    layer = layer_of(path)
    if layer == "__init__":
        return
    assert layer in LEVEL, f"add {layer} to LAYERS"
    for name, line in imports(path):
        assert LEVEL[name] <= LEVEL[layer], (
            f"{path.relative_to(ROOT)}:{line} imports {name}, which is in a layer above {layer}"
        )


def hidden_imports(path: Path) -> list[int]:
    """Return the line numbers of imports inside functions."""
    functions = (
        n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return [n.lineno for f in functions for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(APP)))
def test_no_import_inside_a_function(path: Path) -> None:
    assert hidden_imports(path) == []


def mentions(path: Path, names: set[str]) -> Iterator[tuple[str, int]]:
    """Yield every attribute with one of these names or its async variant: its source text and its line.

    It need not be called: `form.attempt(allocation.delete)` and `@transaction.atomic` count as well.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and {node.attr, node.attr.removeprefix("a")} & names:
            yield ast.unparse(node), node.lineno


def doors() -> list[Path]:
    return [p for p in modules() if p.relative_to(APP).parts[0] in DOORS]


def operation_modules(path: Path) -> set[str]:
    """Return the names under which a module imports operations. Calling those is not a write in the door itself."""
    return {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "allocations.ports"
        for alias in node.names
    }


def breaches(path: Path, name: str) -> list[str]:
    """Return the lines of a door that use what only operations may use."""
    operations = operation_modules(path)
    return [
        f"{name}:{line} {text}"
        for text, line in mentions(path, WRITE_METHODS | SQL_METHODS)
        if (name, text) not in EXCEPTIONS and text.partition(".")[0] not in operations
    ]


@pytest.mark.parametrize("path", doors(), ids=lambda p: str(p.relative_to(APP)))
def test_doors_do_not_write_or_open_cursors_and_transactions(path: Path) -> None:
    assert breaches(path, path.relative_to(APP).as_posix()) == []


def test_every_exception_is_needed() -> None:
    mentioned = {
        (p.relative_to(APP).as_posix(), text) for p in doors() for text, _ in mentions(p, WRITE_METHODS | SQL_METHODS)
    }
    assert set(EXCEPTIONS) <= mentioned


@pytest.mark.parametrize("path", doors(), ids=lambda p: str(p.relative_to(APP)))
def test_doors_do_not_import_one_another(path: Path) -> None:
    kinds = {"views", "admin", "admin_site", "management", "api", "mcp", "metrics"}
    if path.relative_to(APP).as_posix() == "management/commands/mcp.py":
        kinds = kinds - {"mcp"}  # it serves the door mcp over standard input and output
    layer = layer_of(path)
    assert not {name for name, _ in imports(path)} & (kinds - {layer})


def test_only_the_sql_package_runs_sql() -> None:
    for path in modules():
        if "sql" in path.parts:
            continue
        for text, line in mentions(path, {"executemany", "cursor", "raw", "extra"}):
            assert (path.relative_to(APP).as_posix(), text) in EXCEPTIONS, f"{path.name}:{line} {text}"


@pytest.mark.parametrize("path", [*modules(), *sorted((ROOT / "portal").rglob("*.py"))], ids=str)
def test_modules_have_at_most_500_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("path", sorted((ROOT / "templates").rglob("*.html")), ids=lambda p: p.name)
def test_templates_are_short_and_without_inline_code(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 110
    assert "|safe" not in text
    assert " style=" not in text
    assert "onclick=" not in text


def test_portal_does_not_import_allocations() -> None:
    for path in sorted((ROOT / "portal").rglob("*.py")):
        if path.name == "urls.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("allocations"), path


@pytest.mark.parametrize(
    "violation",
    [
        "a.objects.update(x=1)",
        "allocation.delete()",
        "allocation.save()",
        "project.update(x=1)",
        "token.save()",
        "form.save()",
        "ports.update(x=1)",  # allowed in other files only
        "user.groups.set([])",
        "await allocation.asave()",
        "form.attempt(allocation.delete)",
        "transaction.atomic",
        "connection.cursor()",
    ],
)
def test_breaches_are_found(violation: str, tmp_path: Path) -> None:
    view = tmp_path / "violation.py"
    view.write_text(f"async def f(a):\n    {violation}\n")
    assert len(breaches(view, "views/violation.py")) == 1


def test_imports_inside_functions_are_found(tmp_path: Path) -> None:
    violation = tmp_path / "violation.py"
    violation.write_text("def f(a):\n    import os\n")
    assert hidden_imports(violation) == [2]

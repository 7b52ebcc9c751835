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
DOORS = ("views", "admin", "management", "api", "mcp", "metrics.py", "pages.py", "forms.py", "templatetags")
WRITES = {
    "save",
    "create",
    "update",
    "delete",
    "bulk_create",
    "bulk_update",
    "get_or_create",
    "update_or_create",
    "raw",
}
# What else has a method of that name.
HARMLESS_OWNERS = {
    "ports",
    "answer",
    "router",
    "context",
    "values",
    "found",
    "kept",
    "cleaned_data",
    "said",
    "form",
    "writer",
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


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(APP)))
def test_no_import_hides_in_a_function(path: Path) -> None:
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            hidden = [n.lineno for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not hidden, f"{path.name}:{hidden}"


def calls(path: Path) -> Iterator[tuple[str, str, int]]:
    """Every call of a method: the name of its owner, as far as it has one, its own, and the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            yield name, node.func.attr, node.lineno


def doors() -> list[Path]:
    return [p for p in modules() if p.relative_to(APP).parts[0] in DOORS]


@pytest.mark.parametrize("path", doors(), ids=lambda p: str(p.relative_to(APP)))
def test_doors_hold_no_write_no_cursor_and_no_transaction(path: Path) -> None:
    for owner, method, line in calls(path):
        written = method in WRITES and owner not in HARMLESS_OWNERS
        assert not written, f"{path.name}:{line} {owner}.{method}()"
        assert method not in {"cursor", "atomic", "executemany"}, f"{path.name}:{line} {method}"


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
        for _, method, line in calls(path):
            assert method not in {"executemany", "cursor", "raw", "extra"}, f"{path.name}:{line}"


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


def test_the_rules_see_a_breach(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from django.db import connection\ndef f(a):\n    import os\n    a.objects.update(x=1)\n")
    assert ("objects", "update", 4) in set(calls(wrong))

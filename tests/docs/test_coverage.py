"""The documentation against the code, both ways: all that exists is documented, and all that is documented exists."""

from __future__ import annotations

import argparse
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.core.management import find_commands, get_commands, load_command_class
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from prometheus_client.parser import text_string_to_metric_families

from allocations import errors, importers
from allocations.api.docs import description
from allocations.importers.lists import KEYS
from allocations.mcp.tools import server
from allocations.models import Health, Mode, Status
from portal.environment import VARIABLES
from tests import make
from tests.loops import in_a_loop_of_its_own
from tests.users import client_of, superuser

from .pages import (
    AGENTS,
    API,
    BLOCKS,
    COMMANDS,
    CONTRIBUTING,
    DASHBOARD,
    GLOSSARY,
    MIGRATING,
    OPERATIONS,
    PAGES,
    ROOT,
    Page,
    names,
)

# Read by the programs that the documentation shows, not by Portal itself.
OF_CLIENTS = {"PORTAL_TOKEN", "PORTAL_URL"}
# Set by `run` for the command that it runs.
SET_BY_RUN = {"PORTAL_PROJECT", "PORTAL_SERVICE"}


def first_cells(page: Page, heading: str) -> list[str]:
    """Return the code in the first cells of the tables under a heading."""
    return names([row[0] for row in page.rows(heading)])


# Commands


OURS = sorted(name for name, app in get_commands().items() if app == "allocations")
NOT_A_COMMAND = {"What all commands have in common", "make"}


@cache
def options_of(command: str) -> dict[str, argparse.Action]:
    """The options of a command that --help shows; of one that extends a command of Django's, those that it adds."""
    own = _options("allocations", command)
    inherited = _options("django.core", command) if _has_command("django.core", command) else {"--help": None}
    return {name: action for name, action in own.items() if name not in inherited}


def _has_command(app: str, command: str) -> bool:
    return command in find_commands(str(Path(import_module(app).__path__[0]) / "management"))


def _options(app: str, command: str) -> dict[str, argparse.Action]:
    parser = load_command_class(app, command).create_parser("manage.py", command)
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    return {name: action for action in shown for name in action.option_strings if name.startswith("--")}


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    sections = set(re.findall(r"^## (.+)$", COMMANDS.prose, re.MULTILINE))
    assert sections - NOT_A_COMMAND == set(OURS)


@pytest.mark.parametrize("command", OURS)
def test_every_option_has_a_row_and_every_row_an_option(command: str) -> None:
    def written(name: str, action: argparse.Action) -> str:
        if action.nargs == 0:
            return name
        choices = "{" + ",".join(action.choices) + "}" if action.choices else ""
        return f"{name} {action.metavar or choices or action.dest.upper()}"

    rows = [cell for cell in first_cells(COMMANDS, command) if cell.startswith("--")]
    assert sorted(rows) == sorted(written(name, action) for name, action in options_of(command).items())


@pytest.mark.parametrize("command", OURS)
def test_every_command_says_what_it_exits_with(command: str) -> None:
    assert "\nExit status: " in COMMANDS.section(command)


def test_every_command_line_that_is_shown_can_be_parsed() -> None:
    """In every block and every piece of code: the command exists, and so do its options."""
    lines = [(str(block), line) for block in BLOCKS if block.language in ("sh", "text") for line in _joined(block.text)]
    lines += [(page.name, span) for page in PAGES for span in page.code_spans]
    wrong, seen = [], set[str]()
    for place, line in lines:
        for command, arguments in _calls(line):
            seen.add(command)
            if command not in get_commands():
                wrong.append(f"{place}: there is no command {command}")
            elif command in OURS:
                wrong += [f"{place}: {command} has no {name}" for name in arguments if name not in options_of(command)]
    assert wrong == []
    assert set(OURS) <= seen


def _joined(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


def _calls(line: str) -> list[tuple[str, list[str]]]:
    """The calls of manage.py in a line of shell, each with the names of its options."""
    found = []
    for call in re.findall(r"manage\.py ([a-z_]+)\b([^|;&)`>]*)", line):
        arguments = call[1].partition(" -- ")[0]
        found.append((call[0], re.findall(r"(?<![\w-])--[a-z][a-z-]*", arguments)))
    return found


def test_every_option_in_the_prose_exists() -> None:
    """Written alone, such as `--dry-run`, or behind the name of its command, such as `audit --quiet`."""
    wrong = []
    everywhere = {name for command in OURS for name in options_of(command)} | {"--help"}
    for page in PAGES:
        for span in page.code_spans:
            words = span.split()
            of_command = options_of(words[0]) if words[0] in OURS else everywhere
            if words[0].startswith("--") or words[0] in OURS:
                used = [word for word in words if word.startswith("--") and word != "--"]
                wrong += [f"{page}: `{span}`" for name in used if name not in of_command]
    assert wrong == []


def test_every_make_target_has_a_row_and_every_row_a_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    rows = first_cells(COMMANDS, "make") + first_cells(CONTRIBUTING, "Contributing")
    documented = {words[1] for words in map(str.split, rows) if words[0] == "make"}
    assert documented == targets


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    spans = [span for page in PAGES for span in page.code_spans]
    code = "\n".join([*(block.text for block in BLOCKS if block.language in ("sh", "ini")), *spans])
    assert set(re.findall(r"(?<!git )\bmake ([a-z-]+)", code)) <= targets


# Configuration


def test_every_variable_has_a_row_and_every_row_a_variable() -> None:
    assert sorted(first_cells(OPERATIONS, "Configuration")) == sorted(VARIABLES)


def test_every_variable_that_is_named_exists() -> None:
    named = {name for page in PAGES for name in re.findall(r"\b(?:PORTAL_[A-Z_]+|DATABASE_URL)\b", page.text)}
    assert named - set(VARIABLES) - OF_CLIENTS - SET_BY_RUN == set()


# Pages


def routes(resolver: URLResolver, before: str = "") -> dict[str, URLPattern | URLResolver]:
    """Return every address, but those of the admin and of the API, which are documented as a whole."""
    found: dict[str, URLPattern | URLResolver] = {}
    for pattern in resolver.url_patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLPattern) or route == "admin/":
            found[route] = pattern
        elif pattern.app_name != "ninja":
            found |= routes(pattern, route)
    return found


ROUTES = routes(get_resolver())
NAMES = {pattern.name for pattern in ROUTES.values() if isinstance(pattern, URLPattern)}


def as_written(route: str) -> str:
    """Return a route as the documentation writes it."""
    return re.sub(r"<[^>]+>", lambda m: "NAME" if "name" in m[0] else "ID", route).strip("/")


def documented_pages() -> set[str]:
    """The addresses in the tables of docs/dashboard.md."""
    cells = [cell for row in DASHBOARD.rows("Pages") for cell in row]
    return {name.strip("/") for name in names(cells) if name.startswith("/")}


def is_below_another(route: str) -> bool:
    """Whether it is reached from a page that it is below in its address (ranges/add) or its name (project-add)."""
    parts = route.strip("/").split("/")
    above = {"/".join(parts[:n]) for n in range(1, len(parts))}
    name = getattr(ROUTES[route], "name", None) or ""
    return bool(above & set(ROUTES)) or name.partition("-")[0] in NAMES - {name}


def is_of_the_login(route: str) -> bool:
    """Whether it is one of Django's own: login, logout, password."""
    view = getattr(getattr(ROUTES[route], "callback", None), "view_class", object)
    return any(base.__module__ == "django.contrib.auth.views" for base in view.__mro__)


def is_a_button(route: str, admin: Client) -> bool:
    """Whether it is a change that people make on another page: by POST alone, with their session."""
    for_programs = getattr(getattr(ROUTES[route], "callback", None), "login_required", True) is False
    return not for_programs and "<" not in route and admin.get("/" + route).status_code == 405


def test_every_page_in_the_tables_exists() -> None:
    assert documented_pages() <= {as_written(route) for route in ROUTES}


@pytest.mark.django_db
def test_every_page_that_one_can_look_at_is_in_the_tables() -> None:
    """By the URL map: what is no form or button of another page, nor of the login, has its row."""
    admin = client_of(superuser())
    pages = {r for r in ROUTES if not is_below_another(r) and not is_of_the_login(r) and not is_a_button(r, admin)}
    assert {as_written(route) for route in pages} - documented_pages() == set()


def test_every_address_that_is_named_exists() -> None:
    known = {re.sub(r"<[^>]+>|\{[^}]+\}", "*", path).strip("/") for path in [*ROUTES, *description()["paths"]]}
    patterns = [re.compile(re.escape(path).replace(r"\*", "[^/]+")) for path in known]
    named = [span for page in PAGES for span in page.code_spans if re.match(r"(?:[A-Z]+ )?/[a-z]", span)]
    named += re.findall(r"localhost:3000(/[\w/.$-]+)", "\n".join(block.text for block in BLOCKS))
    here = re.compile(r"/(?:etc|srv|var|path|tmp|opt|root)(?:/|$)|/api/$")  # directories of the machine; the whole API
    paths = {re.sub(r"^[A-Z]+ |[?].*|[{}$]", "", name).strip("/") for name in named if not here.match(name)}
    assert {path for path in paths if not any(pattern.fullmatch(path) for pattern in patterns)} == set()


# The API


def operations() -> dict[str, dict[str, Any]]:
    """`GET /api/ports` and its like, as OpenAPI describes them."""
    return {
        f"{method.upper()} {path}": operation
        for path, methods in description()["paths"].items()
        for method, operation in methods.items()
    }


def test_every_operation_has_a_row_and_every_row_an_operation() -> None:
    assert sorted(first_cells(API, "Operations")) == sorted(operations())


def test_the_roles_of_the_operations_are_roles() -> None:
    assert {row[2] for row in API.rows("Operations")} <= {"viewer", "operator", "admin"}


def test_every_operation_that_is_named_exists() -> None:
    spans = [span for page in PAGES for span in page.code_spans]
    named = {span for span in spans if re.match(r"(?:GET|POST|PATCH|PUT|DELETE) /", span)}
    assert named - set(operations()) == set()


def test_every_list_has_its_parameters() -> None:
    def is_list(operation: dict[str, Any]) -> bool:
        return any(parameter["name"] == "cursor" for parameter in operation["parameters"])

    rows = {
        names([row[0]])[0]: set(re.findall(r"`([a-z]+)`", re.sub(r"\([^)]*\)", "", row[1])))
        for row in API.rows("Lists and pages")
    }
    assert rows == {
        name: {parameter["name"] for parameter in operation["parameters"]} - {"limit", "cursor"}
        for name, operation in operations().items()
        if is_list(operation)
    }


def test_every_error_has_a_row_and_every_row_an_error() -> None:
    def tree(error: type[errors.PortError]) -> set[tuple[str, str]]:
        return {(error.code, str(error.status))}.union(*(tree(child) for child in error.__subclasses__()))

    raised = tree(errors.PortError) - {("port_error", "400")}
    # What is answered on the way to an operation.
    plain = {401: "unauthorized", 405: "method_not_allowed", 500: "internal_server_error"}
    plain |= {413: "body_too_large", 415: "not_json"}
    rows = {(names([row[0]])[0], row[1]) for row in API.rows("Errors")}
    assert rows == raised | {(code, str(status)) for status, code in plain.items()}


# Agents


def tools() -> dict[str, dict[str, Any]]:
    """The schema of each tool's arguments. The URL map above has registered resources and prompt, too."""
    return {tool.name: tool.input_schema for tool in in_a_loop_of_its_own(server.list_tools())}


def test_every_tool_has_a_section_and_every_section_a_tool() -> None:
    assert sorted(re.findall(r"^### (.+)$", AGENTS.section("Tools"), re.MULTILINE)) == sorted(tools())


@pytest.mark.parametrize("tool", sorted(tools()))
def test_every_parameter_has_a_row_and_every_row_a_parameter(tool: str) -> None:
    rows = {names([row[0]])[0]: row[1].startswith("required") for row in AGENTS.rows(tool)}
    schema = tools()[tool]
    assert rows == {name: name in schema.get("required", ()) for name in schema["properties"]}


def test_every_tool_that_is_named_exists() -> None:
    spans = {span for page in PAGES for span in page.code_spans}
    text = " ".join(block.text for block in BLOCKS if block.language == "markdown")
    named = {span for span in spans | set(re.findall(r"`([^`]+)`", text)) if re.fullmatch(r"[a-z]+-ports?", span)}
    assert named - set(tools()) == set()


def test_every_resource_and_the_prompt_are_described() -> None:
    resources = {str(resource.uri) for resource in in_a_loop_of_its_own(server.list_resources())}
    templates = {template.uri_template for template in in_a_loop_of_its_own(server.list_resource_templates())}
    assert set(first_cells(AGENTS, "Resources")) == resources | templates
    prompts = in_a_loop_of_its_own(server.list_prompts())
    arguments = {argument.name for prompt in prompts for argument in prompt.arguments or ()}
    assert set(names([AGENTS.section("The prompt")])) == {prompt.name for prompt in prompts} | arguments


# Metrics, imports, words


@pytest.mark.django_db
def test_every_metric_has_a_row_and_every_row_a_metric() -> None:
    make.allocation()
    make.manager().audit(hostname="localhost")
    make.manager().audit()
    admin = client_of(superuser())
    families = text_string_to_metric_families(admin.get("/metrics").content.decode())
    rows = [name for name in first_cells(OPERATIONS, "Prometheus") if name.startswith("portal_")]
    assert sorted(rows) == sorted(family.name for family in families)


def test_every_format_and_field_of_an_import_has_a_row() -> None:
    rows = first_cells(MIGRATING, "Formats")
    assert sorted(rows) == sorted([*importers.FORMATS, *KEYS])


def test_the_glossary_knows_every_status_verdict_and_mode() -> None:
    assert set(first_cells(GLOSSARY, "Allocation")) == set(Status.values)
    assert set(first_cells(GLOSSARY, "Verdict")) == set(Health.values)
    assert set(names([GLOSSARY.section("Mode")])) == set(Mode.values)


def test_nobody_uses_the_words_that_the_glossary_warns_of() -> None:
    """Neither the documentation nor the pages nor the help of the commands."""
    avoided = first_cells(GLOSSARY, "Words that Portal does not use")
    texts = {page.name: page.prose for page in PAGES if page != GLOSSARY}
    texts |= {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "templates").rglob("*.html")}
    texts |= {f"help of {name}": str(load_command_class("allocations", name).help) for name in OURS}
    used = [
        f"{name}: {word}" for name, text in texts.items() for word in avoided if re.search(rf"\b{word}\b", text, re.I)
    ]
    assert len(avoided) > 5
    assert used == []

"""The documents say what is there, and all of it."""

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import get_commands, load_command_class
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from portal.environment import VARIABLES

ROOT = Path(settings.BASE_DIR)
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(name for name, app in get_commands().items() if app == "allocations")


def section(heading: str) -> str:
    """The text under a heading of the README."""
    return README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def named_commands() -> dict[str, str]:
    """What the table of commands says of each."""
    cells = [line.split(" | ", 1)[0] for line in section("Commands").splitlines() if line.startswith("| `")]
    usages = [usage for cell in cells for usage in re.findall(r"`([^`]+)`", cell)]
    told: dict[str, str] = {}
    for usage in usages:
        told[usage.split()[0]] = told.get(usage.split()[0], "") + " " + usage
    return told


def test_every_command_is_told_and_every_told_one_exists() -> None:
    assert sorted(named_commands()) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_that_is_told_exists(name: str) -> None:
    known = load_command_class("allocations", name).create_parser("manage.py", name)._option_string_actions
    told = set(re.findall(r"--[a-z-]+", named_commands()[name]))
    assert told <= set(known)


def test_every_variable_is_told_and_every_told_one_exists() -> None:
    table = [line.split("|")[1] for line in section("Configuration").splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`([A-Z_]+)`", " ".join(table))) == sorted(VARIABLES)


def test_every_setting_that_is_named_anywhere_exists() -> None:
    named = set(re.findall(r"\b(?:PORTAL_[A-Z_]+|DATABASE_URL)\b", README))
    of_clients = {"PORTAL_TOKEN", "PORTAL_URL"}  # read by the programs that the README shows, not by Portal
    assert named <= set(VARIABLES) | of_clients


def routes(resolver: URLResolver, before: str = "") -> dict[str, URLPattern | URLResolver]:
    """Every address but the admin's and the API's own, which are told of as a whole: `admin/`, and the OpenAPI file."""
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


def shown(route: str) -> str:
    """A route as the README writes it."""
    return re.sub(r"<[^>]+>", lambda m: "NAME" if "name" in m[0] else "ID", route).strip("/")


def told_pages() -> set[str]:
    """The addresses that the table of pages names."""
    table = [line for line in section("The dashboard").splitlines() if line.startswith("| `")]
    return {page.strip("/") for page in re.findall(r"`(/[^`]*)`", " ".join(table))}


def is_beside_another(route: str) -> bool:
    """Whether it is reached from a page that it stands below in its address (ranges/add) or name (project-add)."""
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


def test_every_page_that_is_told_exists() -> None:
    assert told_pages() <= {shown(route) for route in ROUTES}


@pytest.mark.django_db
def test_every_page_that_one_can_look_at_is_told() -> None:
    """By the URL map: what is no form or button of another page, nor of the login, has its row."""
    admin = Client()
    admin.force_login(User.objects.create_superuser("admin"))
    pages = {r for r in ROUTES if not is_beside_another(r) and not is_of_the_login(r) and not is_a_button(r, admin)}
    assert {shown(route) for route in pages} - told_pages() == set()


def test_every_make_target_that_is_named_exists_and_the_other_way_round() -> None:
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    documents = README + (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"\bmake ([a-z]+)\b(?! (?:it|the|people|sure))", documents)) - {"people"}
    assert named <= targets
    assert targets - named <= {"help", "bench", "clean"}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_file_that_is_linked_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), target


def test_contributing_names_modules_that_exist() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().split("| --- | --- |", 1)[1].split("\n\n", 1)[0]
    for row in table.strip().splitlines():
        names = re.findall(r"`([a-z_/.]+)`", row.split("|")[1])
        for found in names:
            assert (ROOT / found).exists() or (ROOT / "allocations" / found).exists(), found

"""Every command that a refusal, an explanation or an empty page proposes works as it is pasted.

The proposals are read from the source, so that a new one has to be added to CASES. Each is run in a real shell against
a real Portal, with a name of somebody's own in place of what is in capitals.
"""

from __future__ import annotations

import ast
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import get_commands, load_command_class

from .conftest import Portal

ROOT = Path(settings.BASE_DIR)
SOURCES = [*(ROOT / "allocations").rglob("*.py"), *(ROOT / "portal").rglob("*.py"), ROOT / "manage.py"]
TEMPLATES = list((ROOT / "templates").rglob("*.html"))
ASSIGNMENTS = r"(?:[A-Z_]+=\S+ )*"
TARGETS = "|".join(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PROPOSAL = re.compile(
    rf"{ASSIGNMENTS}(?:\./manage\.py \w[^`\".,;|]*|\bmake (?:{TARGETS})\b(?:-[a-z]+)?(?: [A-Z]+=[\w.]+)?)"
)

# Each proposal, and the shell commands that are run for it; `-n` for what would serve or replace a database.
CASES = {
    "./manage.py add_project NAME": "./manage.py add_project shop",
    "./manage.py allocate PROJECT SERVICE": "./manage.py allocate shop web",
    "./manage.py allocate {} SERVICE --port {}{} --adopt": "./manage.py explain 3600",  # pasted below
    "./manage.py import_ports --scan": "./manage.py import_ports --scan --dry-run || [ $? -le 2 ]",
    "./manage.py migrate": "./manage.py migrate",
    "./manage.py migrate --no-backup": "./manage.py migrate --no-backup",
    "./manage.py create_token": "./manage.py create_token deploy",
    "PORTAL_PORT={} make up": "PORTAL_PORT=3001 make -n up",
    "make up": "make -n up",
    "make clean-old": "make -n clean-old",
    "make backup FILE=portal.dump": "make -n backup FILE=portal.dump",
    "make restore FILE=portal.dump": "make -n restore FILE=portal.dump",
}


def texts(path: Path) -> Iterator[str]:
    """Return the strings of a module, without docstrings and the examples of commands, with {} for what varies."""
    if path.suffix == ".html":
        yield path.read_text()
        return
    tree = ast.parse(path.read_text())
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Assign) and _is_example(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value


def _is_example(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "example" for target in node.targets)


def proposals() -> set[str]:
    return {
        match[0].strip()
        for path in SOURCES + TEMPLATES
        if "migrations" not in path.parts
        for text in texts(path)
        for match in PROPOSAL.finditer(text)
    }


def test_every_proposal_is_tried() -> None:
    assert proposals() == set(CASES)


def test_options_that_sentences_name_exist() -> None:
    """An option in a sentence, such as "name one with --project", is one of a command."""
    known = {"--header", "--transport"} | {  # of `claude mcp add`
        option
        for name, app in get_commands().items()
        for action in load_command_class(app, name).create_parser("manage.py", name)._actions
        for option in action.option_strings
    }
    named = {
        option
        for path in (ROOT / "allocations").rglob("*.py")
        if not {"migrations", "importers"} & set(path.parts)
        for text in texts(path)
        if " " in text and not text.startswith("-")
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)
    }
    assert named - known == set()


def paste(portal: Portal, command: str) -> str:
    """Run a command in a shell of the user of a Portal; return what it printed."""
    where = {"cwd": portal.checkout, "env": portal.environment}
    done = subprocess.run(["bash", "-c", command], **where, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.slow
@pytest.mark.xdist_group("docs")
def test_proposals_work_as_pasted(portal: Portal) -> None:
    portal.reset()
    for command in CASES.values():
        paste(portal, command)


@pytest.mark.slow
@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_listener_is_adopted_as_explained(portal: Portal, protocol: str) -> None:
    portal.reset()
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(type=kind) as listener:
        listener.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            listener.listen()
        port = listener.getsockname()[1]
        paste(portal, f"./manage.py add_project shop --start {port} --size 1")
        explained = paste(portal, f"./manage.py explain {port} --protocol {protocol}")
        proposal = PROPOSAL.search(explained)
        assert proposal, explained
        paste(portal, proposal[0].replace("SERVICE", "web"))
    assert f"{port}/{protocol} on localhost is held by shop/web" in paste(
        portal, f"./manage.py explain {port} --protocol {protocol}"
    )

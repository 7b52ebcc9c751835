"""Connect an agent: a token for one project, and lines that work as pasted."""

from __future__ import annotations

import html
import json
import re
import shlex
import tomllib

import pytest
from django.conf import settings
from django.test import Client

from allocations import errors
from allocations.access import Caller
from allocations.ports import PortManager
from allocations.views.connect import GUIDE

from .reading import HTMX, text

pytestmark = pytest.mark.django_db
TOKEN = re.compile(r"ptl_\w{20,}")


def pasted(shown: str) -> list[str]:
    """What stands on the page to be copied, in its order."""
    return [html.unescape(code) for code in re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", shown, re.DOTALL)]


def test_before_there_is_a_token(operator: Client, ports: PortManager) -> None:
    page = operator.get("/connect")
    assert TOKEN.search(page.content.decode()) is None
    assert len(pasted(page.content.decode())) == 11
    assert "shop" in text(page)


@pytest.mark.parametrize(
    ("database", "in_file", "told"),
    [("", False, False), ("postgres://x@db/portal", False, True), ("postgres://x@db/portal", True, False)],
)
def test_where_stdio_needs_more_it_is_said(
    operator: Client,
    monkeypatch: pytest.MonkeyPatch,
    database: str,
    in_file: bool,
    told: bool,
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setattr(settings, "ENV_FILE_NAMES", {"DATABASE_URL"} if in_file else set())
    shown = operator.get("/connect").content.decode()
    assert ("<code>DATABASE_URL</code>" in shown) is told
    assert "postgres://" not in shown


def test_a_long_name_is_no_obstacle(operator: Client, ports: PortManager) -> None:
    long = "p" * 255
    ports.add_project(long, size=20, start=20600)
    assert TOKEN.search(operator.post("/connect", {"project": long}, headers=HTMX).content.decode())


def test_the_token_stands_in_every_line_this_once(operator: Client, ports: PortManager) -> None:
    ports.add_project("bank", size=20, start=20600)
    shown = operator.post("/connect", {"project": "shop"}, headers=HTMX).content.decode()
    assert operator.get("/connect").content.decode().count("ptl_…") > 5
    *snippets, guide = pasted(shown)
    assert guide == GUIDE
    claude, claude_here, codex, codex_here, cursor, cursor_here, *shared = snippets
    (secret,) = {TOKEN.search(s)[0] for s in (claude, claude_here, codex, codex_here, cursor, cursor_here)}  # type: ignore[index]
    assert not any(TOKEN.search(s) for s in shared), "files of a project are seen by others"
    assert shown.count(f"It is {secret}") == shown.count(f"export PORTAL_TOKEN={secret}") == 1
    caller = Caller.of_token(secret)
    assert caller is not None
    agent = PortManager(actor=caller.name, source="mcp", caller=caller)
    assert agent.get_or_allocate("shop", "web").created
    with pytest.raises(errors.NotFound):
        agent.get_or_allocate("bank", "web")

    address = "http://testserver/mcp"
    manage = str(settings.BASE_DIR / "manage.py")
    bearer = {"Authorization": f"Bearer {secret}"}
    assert shlex.split(claude) == [
        *("claude", "mcp", "add", "--transport", "http", "portal", address, "--header"),
        f"Authorization: Bearer {secret}",
    ]
    words = shlex.split(claude_here)
    assert words[:5] == ["claude", "mcp", "add", "--env", f"PORTAL_TOKEN={secret}"]
    # Behind --env and its values another option has to come: it takes all words up to there.
    assert words[-6:] == ["--transport", "stdio", "portal", "--", manage, "mcp"]
    assert tomllib.loads(codex) == {"mcp_servers": {"portal": {"url": address, "http_headers": bearer}}}
    here = tomllib.loads(codex_here)["mcp_servers"]["portal"]
    assert (here["command"], here["args"], here["env"]["PORTAL_TOKEN"]) == (manage, ["mcp"], secret)
    files = (
        (cursor, cursor_here, "mcpServers", secret),
        (*shared[:2], "servers", "${input:portal-token}"),
        (*shared[2:], "mcpServers", "${PORTAL_TOKEN}"),
    )
    for over_http, over_stdio, member, token in files:
        server = json.loads(over_http)[member]["portal"]
        assert (server["url"], server["headers"]) == (address, {"Authorization": f"Bearer {token}"})
        server = json.loads(over_stdio)[member]["portal"]
        assert (server["command"], server["env"]) == (manage, here["env"] | {"PORTAL_TOKEN": token})
    (asked,) = json.loads(shared[0])["inputs"]
    assert (asked["id"], asked["password"]) == ("portal-token", True)


def test_where_portal_lies_elsewhere_than_usual(
    operator: Client, ports: PortManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent starts manage.py without the environment of the server."""
    monkeypatch.setenv("PORTAL_HOME", str(settings.PORTAL_HOME))
    shown = pasted(operator.get("/connect").content.decode())
    assert f"PORTAL_HOME={settings.PORTAL_HOME}" in shlex.split(shown[1])
    monkeypatch.delenv("PORTAL_HOME")
    assert "PORTAL_HOME" not in operator.get("/connect").content.decode()


def test_who_may_only_look_makes_no_token_that_changes(viewer: Client, ports: PortManager) -> None:
    assert "<select" not in viewer.get("/connect").content.decode()
    assert viewer.post("/connect", {"project": "shop"}).status_code == 403


def test_a_project_that_is_none(operator: Client, ports: PortManager) -> None:
    refused = operator.post("/connect", {"project": "shpo"})
    assert refused.status_code == 422
    assert TOKEN.search(refused.content.decode()) is None


def test_the_readme_tells_agents_the_same() -> None:
    assert GUIDE in (settings.BASE_DIR / "README.md").read_text()
    assert len(GUIDE.splitlines()) == 10

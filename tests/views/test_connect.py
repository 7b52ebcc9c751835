"""The page that connects an agent: a token for one project, and snippets to paste."""

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
from allocations.auth.lookup import caller_for_token
from allocations.ports import PortManager, projects
from allocations.views.connect import GUIDE
from tests.make import FIRST

from .helpers import HTMX, text

pytestmark = pytest.mark.django_db
TOKEN = re.compile(r"ptl_\w{20,}")


def snippets_of(content: str) -> list[str]:
    """Return the snippets of the page in order, as they are copied to the clipboard."""
    return [html.unescape(code) for code in re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", content, re.DOTALL)]


def test_the_page_has_no_token_until_one_is_created(operator: Client, ports: PortManager) -> None:
    page = operator.get("/connect")
    assert TOKEN.search(page.content.decode()) is None
    assert len(snippets_of(page.content.decode())) == 11
    assert "shop" in text(page)


@pytest.mark.parametrize(
    ("database", "in_file", "expected"),
    [("", False, False), ("postgres://x@db/portal", False, True), ("postgres://x@db/portal", True, False)],
)
def test_settings_that_are_missing_in_the_env_file_are_named(
    operator: Client,
    monkeypatch: pytest.MonkeyPatch,
    database: str,
    in_file: bool,
    expected: bool,
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setattr(settings, "ENV_FILE_NAMES", {"DATABASE_URL"} if in_file else set())
    content = operator.get("/connect").content.decode()
    assert ("<code>DATABASE_URL</code>" in content) is expected
    assert "postgres://" not in content


def test_a_project_with_a_long_name_gets_a_token(operator: Client, ports: PortManager) -> None:
    long = "p" * 255
    projects.add(ports.context, long, size=20, start_port=FIRST + 100)
    assert TOKEN.search(operator.post("/connect", {"project": long}, headers=HTMX).content.decode())


def test_the_snippets_contain_the_new_token(operator: Client, ports: PortManager) -> None:
    projects.add(ports.context, "bank", size=20, start_port=FIRST + 100)
    content = operator.post("/connect", {"project": "shop"}, headers=HTMX).content.decode()
    assert operator.get("/connect").content.decode().count("ptl_…") > 5
    *snippets, guide = snippets_of(content)
    assert guide == GUIDE
    claude, claude_stdio, codex, codex_stdio, cursor, cursor_stdio, *shared = snippets
    (secret,) = {TOKEN.search(s)[0] for s in (claude, claude_stdio, codex, codex_stdio, cursor, cursor_stdio)}  # type: ignore[index]
    assert not any(TOKEN.search(s) for s in shared), "a shared file contains the token"
    assert content.count(f"It is {secret}") == content.count(f"export PORTAL_TOKEN={secret}") == 1
    caller = caller_for_token(secret)
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
    words = shlex.split(claude_stdio)
    assert words[:5] == ["claude", "mcp", "add", "--env", f"PORTAL_TOKEN={secret}"]
    # --env takes all words up to the next option.
    assert words[-6:] == ["--transport", "stdio", "portal", "--", manage, "mcp"]
    assert tomllib.loads(codex) == {"mcp_servers": {"portal": {"url": address, "http_headers": bearer}}}
    entry = tomllib.loads(codex_stdio)["mcp_servers"]["portal"]
    assert (entry["command"], entry["args"], entry["env"]["PORTAL_TOKEN"]) == (manage, ["mcp"], secret)
    files = (
        (cursor, cursor_stdio, "mcpServers", secret),
        (*shared[:2], "servers", "${input:portal-token}"),
        (*shared[2:], "mcpServers", "${PORTAL_TOKEN}"),
    )
    for over_http, over_stdio, member, token in files:
        server = json.loads(over_http)[member]["portal"]
        assert (server["url"], server["headers"]) == (address, {"Authorization": f"Bearer {token}"})
        server = json.loads(over_stdio)[member]["portal"]
        assert (server["command"], server["env"]) == (manage, entry["env"] | {"PORTAL_TOKEN": token})
    (prompt,) = json.loads(shared[0])["inputs"]
    assert (prompt["id"], prompt["password"]) == ("portal-token", True)


def test_snippets_set_portal_home_unless_it_is_the_default(
    operator: Client, ports: PortManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent starts manage.py without the environment of the server."""
    monkeypatch.setenv("PORTAL_HOME", str(settings.PORTAL_HOME))
    snippets = snippets_of(operator.get("/connect").content.decode())
    assert f"PORTAL_HOME={settings.PORTAL_HOME}" in shlex.split(snippets[1])
    monkeypatch.delenv("PORTAL_HOME")
    assert "PORTAL_HOME" not in operator.get("/connect").content.decode()


def test_a_viewer_cannot_create_a_token_that_allocates(viewer: Client, ports: PortManager) -> None:
    assert "<select" not in viewer.get("/connect").content.decode()
    assert viewer.post("/connect", {"project": "shop"}).status_code == 403


def test_an_unknown_project_is_refused(operator: Client, ports: PortManager) -> None:
    response = operator.post("/connect", {"project": "shpo"})
    assert response.status_code == 422
    assert TOKEN.search(response.content.decode()) is None


def test_the_documentation_contains_the_guide() -> None:
    assert GUIDE in (settings.BASE_DIR / "docs" / "agents.md").read_text()
    assert len(GUIDE.splitlines()) == 10

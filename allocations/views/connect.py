"""How an agent is connected: the lines to paste, with this Portal's address and a token of its own."""

from __future__ import annotations

import json
import os
import shlex

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from allocations.forms import ConnectForm
from allocations.pages import caller_of, door, page, ports_of, posted

PLACEHOLDER = "ptl_…"
ASKED = {"type": "promptString", "id": "portal-token", "description": "Portal token (ptl_…)", "password": True}
GUIDE = """\
## Ports

Ports on this machine are given out by Portal (MCP server `portal`).
- Before you start or configure a service, call `get-port` with its project and name; bind exactly that port.
- Read the port from `PORT` in the environment; do not write 3000, 5000 or 8080 into code or configuration.
- `get-port` is safe to repeat: it answers the same port. For a further instance call `allocate-port`.
- "Address already in use" is no bug in the code: call `explain-port` and do what it says.
- Never stop a process that you did not start, and never change another project's port.
- After a deployment call `audit-ports`: your service must not be among the conflicts.
- Release a port with `release-port` only when its service is gone for good.
"""


@door("GET", "POST", doing="connect agents")
def connect(request: HttpRequest) -> HttpResponseBase:
    """The snippets; after the button was pressed, with the token in them, this once."""
    form = ConnectForm(posted(request), caller=caller_of(request))
    made = None
    if request.method == "POST":
        made = form.attempt(
            lambda project: ports_of(request).create_token(
                f"agent of {project}"[:100], role="operator", projects=[project]
            )
        )
    token = made[1] if made else PLACEHOLDER
    context = {
        **{"form": form, "made": made, "snippets": _snippets(request, token), "guide": GUIDE},
        "is_database_here_alone": _is_here_alone("DATABASE_URL"),
    }
    return page(request, "allocations/connect.html", "connect", context, form.status if form.errors else 200)


def _is_here_alone(name: str) -> bool:
    """Whether this server has a variable from elsewhere than `.env`: an agent starts manage.py without it."""
    return bool(os.environ.get(name)) and name not in settings.ENV_FILE_NAMES


def _http(url: str, token: str) -> dict[str, object]:
    return {"type": "http", "url": url, "headers": {"Authorization": f"Bearer {token}"}}


def _snippets(request: HttpRequest, token: str) -> list[dict[str, str]]:
    url, manage = request.build_absolute_uri("/mcp"), str(settings.BASE_DIR / "manage.py")
    bearer = {"Authorization": f"Bearer {token}"}
    variables = {"PORTAL_TOKEN": token}
    if _is_here_alone("PORTAL_HOME"):
        variables["PORTAL_HOME"] = str(settings.PORTAL_HOME)
    over_stdio = {"command": manage, "args": ["mcp"], "env": variables}
    # Files of a project are shared with others: they name the token, and it stands elsewhere.
    shared_stdio = over_stdio | {"env": variables | {"PORTAL_TOKEN": "${PORTAL_TOKEN}"}}
    asked_stdio = over_stdio | {"env": variables | {"PORTAL_TOKEN": "${input:portal-token}"}}

    # Another option ends --env, which would take the name of the server for a further variable.
    given = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    given += ["--transport", "stdio"]

    def written(value: object) -> str:
        return json.dumps(value, indent=2, ensure_ascii=False)

    return [
        {
            "name": "Claude Code",
            "http": f'claude mcp add --transport http portal {url} --header "Authorization: Bearer {token}"',
            "stdio": shlex.join(["claude", "mcp", "add", *given, "portal", "--", manage, "mcp"]),
        },
        {
            "name": "Codex: ~/.codex/config.toml",
            "http": f'[mcp_servers.portal]\nurl = "{url}"\nhttp_headers = {{ Authorization = "Bearer {token}" }}',
            "stdio": f'[mcp_servers.portal]\ncommand = {json.dumps(manage)}\nargs = ["mcp"]\n'
            f"env = {{ {', '.join(f'{name} = {json.dumps(value)}' for name, value in variables.items())} }}",
        },
        {
            "name": "Cursor: ~/.cursor/mcp.json",
            "http": written({"mcpServers": {"portal": {"url": url, "headers": bearer}}}),
            "stdio": written({"mcpServers": {"portal": over_stdio}}),
        },
        {
            "name": "VS Code: .vscode/mcp.json",
            "note": f"The file can be shared: VS Code asks for the token once, and keeps it. It is {token}",
            "http": written({"inputs": [ASKED], "servers": {"portal": _http(url, "${input:portal-token}")}}),
            "stdio": written({"inputs": [ASKED], "servers": {"portal": {"type": "stdio", **asked_stdio}}}),
        },
        {
            "name": "Others, and Claude Code for a whole project: .mcp.json",
            "note": f"The file can be shared: the token stands in the environment, export PORTAL_TOKEN={token}",
            "http": written({"mcpServers": {"portal": _http(url, "${PORTAL_TOKEN}")}}),
            "stdio": written({"mcpServers": {"portal": shared_stdio}}),
        },
    ]

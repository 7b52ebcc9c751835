"""Connect an agent: the lines to paste, with the address of this Portal and a token of the agent's own."""

from __future__ import annotations

import json
import os
import shlex

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from allocations.forms import ConnectForm
from allocations.pages import FORM_METHODS, caller_of, context_of, form_data, page, require_role
from allocations.ports import tokens

PLACEHOLDER = "ptl_…"
TOKEN_PROMPT = {"type": "promptString", "id": "portal-token", "description": "Portal token (ptl_…)", "password": True}
GUIDE = """\
## Ports

Portal assigns the ports on this machine (MCP server `portal`).
- Before you start or configure a service, call `get-port` with its project and name, and bind exactly that port.
- Read the port from `PORT` in the environment. Do not write 3000, 5000 or 8080 into code or configuration.
- `get-port` is safe to repeat: it returns the same port. For another instance, call `allocate-port`.
- "Address already in use" is not a bug in the code: call `explain-port` and do what it says.
- Never stop a process that you did not start, and never change another project's port.
- After a deployment, call `audit-ports`: your service must not be among the conflicts.
- Release a port with `release-port` only when its service is gone for good.
"""


@require_role(action="connect agents", methods=FORM_METHODS)
def index(request: HttpRequest) -> HttpResponseBase:
    """Show the lines to paste. Only the response that makes a token shows the lines with it."""
    form = ConnectForm(form_data(request), caller=caller_of(request))
    new_token, secret = None, PLACEHOLDER
    if request.method == "POST":
        pair = form.attempt(
            lambda project: tokens.create(
                context_of(request), f"agent of {project}"[:100], role="operator", projects=[project]
            )
        )
        if pair is not None:
            new_token, secret = pair
    context = {
        "form": form,
        "new_token": new_token,
        "snippets": _snippets(request, secret),
        "guide": GUIDE,
        "needs_env_file": _is_only_in_environment("DATABASE_URL"),
    }
    return page(request, "allocations/connect.html", "connect", context, form.status)


def _is_only_in_environment(name: str) -> bool:
    """Return whether a variable is set for this server but not in `.env`: an agent starts manage.py without it."""
    return bool(os.environ.get(name)) and name not in settings.ENV_FILE_NAMES


def _http(url: str, token: str) -> dict[str, object]:
    return {"type": "http", "url": url, "headers": {"Authorization": f"Bearer {token}"}}


def _dump(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _snippets(request: HttpRequest, token: str) -> list[dict[str, str]]:
    """Return the lines for each client, over HTTP and over stdio."""
    url, manage = request.build_absolute_uri("/mcp"), str(settings.BASE_DIR / "manage.py")
    bearer = {"Authorization": f"Bearer {token}"}
    variables = {"PORTAL_TOKEN": token}
    if _is_only_in_environment("PORTAL_HOME"):
        variables["PORTAL_HOME"] = str(settings.PORTAL_HOME)
    stdio = {"command": manage, "args": ["mcp"], "env": variables}
    # The files of a project are shared with others, so they refer to the token, which is kept elsewhere.
    shared_stdio = stdio | {"env": variables | {"PORTAL_TOKEN": "${PORTAL_TOKEN}"}}
    prompting_stdio = stdio | {"env": variables | {"PORTAL_TOKEN": "${input:portal-token}"}}

    # --env takes all words up to the next option, so --transport keeps it from taking the name of the server.
    options = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    options += ["--transport", "stdio"]
    return [
        {
            "name": "Claude Code",
            "http": f'claude mcp add --transport http portal {url} --header "Authorization: Bearer {token}"',
            "stdio": shlex.join(["claude", "mcp", "add", *options, "portal", "--", manage, "mcp"]),
        },
        {
            "name": "Codex: ~/.codex/config.toml",
            "http": f'[mcp_servers.portal]\nurl = "{url}"\nhttp_headers = {{ Authorization = "Bearer {token}" }}',
            "stdio": f'[mcp_servers.portal]\ncommand = {json.dumps(manage)}\nargs = ["mcp"]\n'
            f"env = {{ {', '.join(f'{name} = {json.dumps(value)}' for name, value in variables.items())} }}",
        },
        {
            "name": "Cursor: ~/.cursor/mcp.json",
            "http": _dump({"mcpServers": {"portal": {"url": url, "headers": bearer}}}),
            "stdio": _dump({"mcpServers": {"portal": stdio}}),
        },
        {
            "name": "VS Code: .vscode/mcp.json",
            "note": f"You can share this file: VS Code asks for the token once and keeps it. It is {token}",
            "http": _dump({"inputs": [TOKEN_PROMPT], "servers": {"portal": _http(url, "${input:portal-token}")}}),
            "stdio": _dump({"inputs": [TOKEN_PROMPT], "servers": {"portal": {"type": "stdio", **prompting_stdio}}}),
        },
        {
            "name": "Others, and Claude Code for a whole project: .mcp.json",
            "note": f"You can share this file: the token is in the environment, export PORTAL_TOKEN={token}",
            "http": _dump({"mcpServers": {"portal": _http(url, "${PORTAL_TOKEN}")}}),
            "stdio": _dump({"mcpServers": {"portal": shared_stdio}}),
        },
    ]

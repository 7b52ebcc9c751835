"""Every block of shell, Python and TypeScript is run, as it is pasted, in a real shell before a real Portal.

The blocks of a page run one after another in one shell, so that a variable or a job of one is there in the next, and
each page begins with a new registry. A comment before a block says if it is not run, and why; see CONTRIBUTING.md.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from contextlib import suppress

import pytest

from tests.node import NODE

from .conftest import Portal
from .pages import COMMANDS, PAGES, Block, Page, names

RUN = {"sh", "python", "typescript"}
# A status of 400 or more ends a block, as a command that fails does.
BEGIN = """set -euo pipefail
curl() { command curl --fail-with-body "$@"; }
"""
TIME_LIMIT = 600  # seconds for a page

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docs")]


def runnable(page: Page) -> list[Block]:
    """The blocks of a page that are to be run."""
    return [block for block in page.blocks if block.language in RUN and "not run" not in block.comments]


def script(page: Page, portal: Portal) -> str:
    """Return a script that runs the blocks of a page, and says before each which it is."""
    return BEGIN + "".join(f"echo '== {block}' >&2\n{_commands(block, portal)}" for block in runnable(page))


def _commands(block: Block, portal: Portal) -> str:
    # The port is the one thing that cannot be as pasted: another Portal may serve on this machine.
    code = block.text.replace("localhost:3000", f"localhost:{portal.port}")
    if block.language == "sh":
        status = block.comments.get("exit status")
        return code if status is None else f"set +e\n{code}ended=$?\nset -e\n[ $ended = {int(status)} ]\n"
    program, ending = (".venv/bin/python", "py") if block.language == "python" else (shlex.quote(NODE), "mts")
    file = portal.checkout / f"line-{block.line}.{ending}"
    file.write_text(code)
    return f"{program} {shlex.quote(file.name)}\n"


@pytest.mark.parametrize("document", [page for page in PAGES if runnable(page)], ids=str)
def test_every_block_works_as_pasted(document: Page, portal: Portal) -> None:
    portal.reset()
    shell = subprocess.Popen(
        ["bash", "-c", script(document, portal)],
        cwd=portal.checkout,
        env=portal.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate(timeout=TIME_LIMIT)
    finally:
        with suppress(ProcessLookupError):  # whatever a block left behind
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, output
    assert re.search(r"^(?:ERROR|Traceback)\b", output, re.MULTILINE) is None, output
    assert output.count("== ") >= len(runnable(document))


def test_the_first_projects_are_listed(portal: Portal) -> None:
    portal.reset()
    command = [".venv/bin/python", "manage.py", "port_summary", "--json"]
    done = subprocess.run(command, cwd=portal.checkout, env=portal.environment, capture_output=True, check=True)
    rows = [row for row in COMMANDS.rows("up") if re.match(r"[0-9]+-[0-9]+", row[1])]
    documented = {names([row[0]])[0]: re.split(r"[;,]", row[1])[0] for row in rows}
    assert documented == {name: f"{s['rangeStart']}-{s['rangeEnd']}" for name, s in json.loads(done.stdout).items()}

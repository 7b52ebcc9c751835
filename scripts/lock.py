"""Pin requirements.txt and requirements-dev.txt: what pyproject.toml asks for, and all that pulls in.

Each direct dependency keeps its comment of pyproject.toml, which says what it is for; each other one says who needs it.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Pinned by `make lock` from pyproject.toml, where the direct dependencies stand.\n"


def purposes(pyproject: str) -> dict[str, str]:
    """Return the comment beside each direct dependency, by its name."""
    return dict(re.findall(r'^    "([a-z0-9-]+)[^"]*",\s*# (.+)$', pyproject, re.MULTILINE))


def compiled(*options: str) -> str:
    """Return the pinned requirements with their comments; `options` choose the extras."""
    command = ["uv", "pip", "compile", "-q", "--system-certs", "--universal", "--python-version", "3.11", "--no-header"]
    layout = ["--annotation-style", "line", "--no-emit-index-url", "--no-emit-find-links"]
    done = subprocess.run(
        [sys.executable, "-m", *command, *layout, *options, "pyproject.toml"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    what_for = purposes((ROOT / "pyproject.toml").read_text())
    lines = []
    for line in done.stdout.splitlines():
        requirement, _, via = line.partition("  # via ")
        comment = what_for.get(re.split("[=[]", requirement)[0].strip(), f"via {via}")
        lines.append(f"{requirement.strip()}  # {comment}\n")
    return HEADER + "".join(lines)


def main() -> None:
    """Write both files."""
    (ROOT / "requirements.txt").write_text(compiled())
    (ROOT / "requirements-dev.txt").write_text(compiled("--extra", "dev"))


if __name__ == "__main__":
    main()

"""Pin the dependencies in pyproject.toml, and theirs, in requirements.txt and requirements-dev.txt.

Each direct dependency has the comment from pyproject.toml that says what it is for. Each other dependency has a comment
that says which package requires it.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Pinned by `make lock`. The direct dependencies are listed in pyproject.toml.\n"


def purposes(pyproject: str) -> dict[str, str]:
    """Return the comment of each direct dependency, by name."""
    return dict(re.findall(r'^    "([a-z0-9-]+)[^"]*",\s*# (.+)$', pyproject, re.MULTILINE))


def compile_requirements(*options: str) -> str:
    """Return the pinned requirements with their comments.

    Args:
        options: further options of `uv pip compile`, such as those that select extras.
    """
    command = ["uv", "pip", "compile", "-q", "--system-certs", "--universal", "--python-version", "3.11", "--no-header"]
    layout = ["--annotation-style", "line", "--no-emit-index-url", "--no-emit-find-links"]
    completed = subprocess.run(
        [sys.executable, "-m", *command, *layout, *options, "pyproject.toml"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    comments = purposes((ROOT / "pyproject.toml").read_text())
    lines = []
    for line in completed.stdout.splitlines():
        requirement, _, via = line.partition("  # via ")
        comment = comments.get(re.split("[=[]", requirement)[0].strip(), f"via {via}")
        lines.append(f"{requirement.strip()}  # {comment}\n")
    return HEADER + "".join(lines)


def main() -> None:
    """Write requirements.txt and requirements-dev.txt."""
    (ROOT / "requirements.txt").write_text(compile_requirements())
    (ROOT / "requirements-dev.txt").write_text(compile_requirements("--extra", "dev"))


if __name__ == "__main__":
    main()

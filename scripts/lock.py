"""Pin the dependencies in pyproject.toml, and theirs, in requirements.txt and requirements-dev.txt, with their hashes.

Each direct dependency has the comment from pyproject.toml that says what it is for. Each other dependency has a comment
that says which package requires it. requirements-uv.txt pins uv, which installs the others.
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


def compile_requirements(source: str, *options: str) -> str:
    """Return the pinned requirements, each with its comment above it and its hashes below it.

    Args:
        source: the file that names the direct dependencies, relative to the checkout; `-` is uv alone.
        options: further options of `uv pip compile`, such as those that select extras.
    """
    command = ["uv", "pip", "compile", "-q", "--system-certs", "--universal", "--python-version", "3.11", "--no-header"]
    layout = ["--generate-hashes", "--annotation-style", "line", "--no-emit-index-url", "--no-emit-find-links"]
    completed = subprocess.run(
        [sys.executable, "-m", *command, *layout, *options, source],
        cwd=ROOT,
        input="uv",
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    comments = {"uv": "installs the other packages"} | purposes((ROOT / "pyproject.toml").read_text())
    blocks = re.split(r"^(?=\S)", completed.stdout, flags=re.MULTILINE)
    return HEADER + "".join(_with_comment(block, comments) for block in blocks if block)


def _with_comment(block: str, comments: dict[str, str]) -> str:
    """Return a requirement of uv's output with a comment above it: what it is for, or else what requires it."""
    requirement, _, via = block.partition("  # via ")
    name = re.split(r"[=\[ ]", requirement)[0]
    return f"# {comments.get(name, f'via {via.strip()}')}\n{requirement.rstrip()}\n"


def main() -> None:
    """Write requirements.txt, requirements-dev.txt and requirements-uv.txt."""
    texts = {
        "requirements.txt": compile_requirements("pyproject.toml"),
        "requirements-dev.txt": compile_requirements("pyproject.toml", "--extra", "dev"),
        "requirements-uv.txt": compile_requirements("-"),
    }
    for name, text in texts.items():
        (ROOT / name).write_text(text)


if __name__ == "__main__":
    main()

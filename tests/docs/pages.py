"""The pages of the documentation, taken apart: blocks of code, tables, sections and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from django.conf import settings

ROOT = Path(settings.BASE_DIR)
COMMENT = re.compile(r"<!--\s*(?P<name>[a-z ]+?)\s*:\s*(?P<text>.*?)\s*-->")


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    `line` is the line of its first line of code. `comments` are the comments right before it, by name.
    """

    page: str
    line: int
    language: str
    text: str
    comments: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Page:
    """A Markdown file; `name` is its path in the repository."""

    name: str

    def __str__(self) -> str:
        return self.name

    @property
    def path(self) -> Path:
        return ROOT / self.name

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def blocks(self) -> list[Block]:
        """The fenced blocks, in order."""
        return list(_blocks(self.name, self.text))

    @cached_property
    def prose(self) -> str:
        """The page without its blocks."""
        return re.sub(r"^```.*?^```$", "", self.text, flags=re.MULTILINE | re.DOTALL)

    @cached_property
    def headings(self) -> list[str]:
        """The text of every heading."""
        return re.findall(r"^#{1,6} (.+)$", self.prose, re.MULTILINE)

    @cached_property
    def anchors(self) -> set[str]:
        """What a link to a heading of this page can end with, as GitHub makes it."""
        return {self.anchor_of(heading) for heading in self.headings}

    @staticmethod
    def anchor_of(heading: str) -> str:
        """Return what GitHub makes of a heading."""
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")

    def section(self, heading: str) -> str:
        """Return what stands under a heading, up to the next one of the same level or a higher one."""
        found = re.search(rf"^(#+) {re.escape(heading)}\n", self.text, re.MULTILINE)
        assert found, f"{self.name} has no heading {heading!r}"
        rest = self.text[found.end() :]
        end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
        return rest[: end.start()] if end else rest

    def rows(self, heading: str) -> list[list[str]]:
        """Return the cells of the tables under a heading, without the tables' own headings."""
        return _rows(self.section(heading))

    @cached_property
    def code_spans(self) -> list[str]:
        """Every `piece of code` in the prose."""
        return re.findall(r"`([^`\n]+)`", self.prose)


def names(cells: list[str]) -> list[str]:
    """Return the pieces of code in cells: ["`--type TYPE`"] is ["--type TYPE"]."""
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def _blocks(page: str, text: str) -> Iterator[Block]:
    comments: dict[str, str] = {}
    language, start, code = "", 0, list[str]()
    is_inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        if is_inside and line == "```":
            yield Block(page, start, language, "\n".join(code) + "\n", comments)
            is_inside, comments = False, {}
        elif is_inside:
            code.append(line)
        elif line.startswith("```"):
            is_inside, language, start, code = True, line.removeprefix("```"), number + 1, []
        elif found := COMMENT.fullmatch(line):
            comments[found["name"]] = found["text"]
        elif line.strip():
            comments = {}
    assert not is_inside, f"{page}: the block from line {start} has no end"


def _rows(text: str) -> list[list[str]]:
    found: list[list[str]] = []
    lines = text.splitlines()
    for index, line in enumerate(lines):
        is_heading = index + 1 < len(lines) and re.fullmatch(r"(\| -+ )+\|", lines[index + 1])
        if line.startswith("| ") and not is_heading and not re.fullmatch(r"(\| -+ )+\|", line):
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


README, CONTRIBUTING, CHANGELOG = Page("README.md"), Page("CONTRIBUTING.md"), Page("CHANGELOG.md")
COMMANDS, API, AGENTS = Page("docs/commands.md"), Page("docs/api.md"), Page("docs/agents.md")
MIGRATING, OPERATIONS, DASHBOARD = Page("docs/migrating.md"), Page("docs/operations.md"), Page("docs/dashboard.md")
ARCHITECTURE, GLOSSARY = Page("docs/architecture.md"), Page("docs/glossary.md")
PAGES = [README, CONTRIBUTING, *(Page(f"docs/{path.name}") for path in sorted((ROOT / "docs").glob("*.md")))]
BLOCKS = [block for page in PAGES for block in page.blocks]

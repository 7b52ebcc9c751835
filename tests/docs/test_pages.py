"""Form: lengths, links, and what kinds of blocks there are."""

from __future__ import annotations

import re

import pytest

from .pages import ARCHITECTURE, BLOCKS, CHANGELOG, CONTRIBUTING, GLOSSARY, PAGES, README, ROOT, Page, names

LANGUAGES = {"sh", "text", "json", "yaml", "toml", "ini", "nginx", "markdown", "python", "typescript", "sql"}
COMMENTS = {"not run", "exit status", "answer"}


def test_the_readme_is_short() -> None:
    assert len(README.text.splitlines()) <= 150


@pytest.mark.parametrize("document", PAGES, ids=str)
def test_every_page_is_reached_from_the_readme(document: Page) -> None:
    assert document is README or f"]({document.name})" in README.text


@pytest.mark.parametrize("document", [*PAGES, CHANGELOG], ids=str)
def test_every_link_leads_somewhere(document: Page) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", document.prose)
    targets += re.findall(r"(?:src|srcset|href)=\"([^\"]+)\"", document.prose)
    broken = []
    for target in targets:
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        found = (document.path.parent / path).resolve() if path else document.path
        if not found.exists() or (anchor and anchor not in Page(str(found.relative_to(ROOT))).anchors):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("document", [page for page in PAGES if "- [" in page.text], ids=str)
def test_the_table_of_contents_has_every_section(document: Page) -> None:
    contents = document.text.partition("\n## ")[0]
    sections = set(re.findall(r"^## (.+)$", document.prose, re.MULTILINE))
    linked = {heading for heading in sections if f"](#{Page.anchor_of(heading)})" in contents}
    assert linked == sections


@pytest.mark.parametrize("document", PAGES, ids=str)
def test_all_code_is_in_fenced_blocks(document: Page) -> None:
    """An indented block has no language, and nothing would run it."""
    assert [line for line in document.prose.splitlines() if re.match(r"(?: {4}|\t)\S", line)] == []


def test_every_block_has_a_known_language() -> None:
    assert {str(block): block.language for block in BLOCKS if block.language not in LANGUAGES} == {}


def test_every_comment_before_a_block_has_a_meaning() -> None:
    assert {str(block): set(block.comments) - COMMENTS for block in BLOCKS if set(block.comments) - COMMENTS} == {}
    for block in BLOCKS:
        assert len(block.comments.get("not run", "because")) > 5, f"{block} does not say why it is not run"
    explained = names([row[0] for row in CONTRIBUTING.rows("Documentation")])
    assert {text.split(":")[0].removeprefix("<!-- ") for text in explained} == COMMENTS


@pytest.mark.parametrize("document", [CONTRIBUTING, ARCHITECTURE], ids=str)
def test_every_file_that_is_named_exists(document: Page) -> None:
    paths = {span for span in document.code_spans if re.fullmatch(r"[\w/.-]+(?:/|\.(?:py|sql|md|txt|toml))", span)}
    missing = [path for path in paths if not any((ROOT / base / path).exists() for base in ("", "allocations"))]
    assert sorted(missing) == []


def test_the_glossary_defines_each_word_once() -> None:
    assert len(GLOSSARY.headings) == len(set(GLOSSARY.headings))

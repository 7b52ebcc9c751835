"""Parse Caddyfiles for the ports on which Caddy listens and those to which it passes requests.

The grammar is that of https://caddyserver.com/docs/caddyfile/concepts; no package for Python reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from .rows import ParsedInput, Row, RowError, UnreadableInputError, excerpt
from .upstreams import ConfigurationRows, Site, Upstream, parse_upstreams

PROXIES = {"reverse_proxy", "php_fastcgi", "forward_auth"}
# Directives that show that a text is a Caddyfile, although none of them leads to another port.
OTHERS = {"file_server", "respond", "redir", "root", "encode", "handle", "handle_path", "route", "tls", "import"}
TOKEN = re.compile(
    r"""(?P<heredoc><<(?P<marker>[\w-]+)\n.*?\n[ \t]*(?P=marker)(?=\s|\Z))
    |(?P<quoted>"(?:[^"\\]|\\.)*")
    |(?P<raw>`[^`]*`)
    |(?P<comment>\#[^\n]*)
    |(?P<space>(?:[^\S\n]|\\\n)+)
    |(?P<newline>\n)
    |(?P<word>\S+)
    """,
    re.VERBOSE | re.DOTALL,
)
ENVIRONMENT = re.compile(r"\{\$[^}:]+:([^}]*)\}")
ARGUMENT = re.compile(r"\{args[.\[](\d+)\]?\}")
DIRECTIVES = PROXIES | OTHERS
MAX_DEPTH = 50


@dataclass(slots=True)
class Directive:
    """One line of a Caddyfile, with the lines between its braces."""

    line: int
    words: list[str]
    block: list[Directive] = field(default_factory=list)
    has_block: bool = False


def caddyfile(text: str) -> ParsedInput:
    """Parse a Caddyfile. Files that it imports aren't read, but its snippets are.

    A service is named after the first address of its site and the path of its matcher.
    """
    directives = _directives(text)
    snippets = {d.words[0][1:-1]: d.block for d in directives if re.fullmatch(r"\(.+\)", d.words[0] if d.words else "")}
    sites = _Sites(snippets)
    for directive in directives:
        if directive.words and not directive.words[0].startswith(("(", "&(")):
            sites.add_site(directive)
    if not sites.rows.is_recognized:
        raise UnreadableInputError("not a Caddyfile: no site has `reverse_proxy` or another directive of Caddy")
    return sites.rows.parsed


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Return the words of each line; a line ends where no quoted word or backslash continues it."""
    words: list[str] = []
    line = first = 1
    for match in TOKEN.finditer(text):
        kind, token = match.lastgroup, match[0]
        if match["heredoc"]:
            kind = "heredoc"
        if kind == "newline":
            if words:
                yield first, words
            words = []
        elif kind not in ("space", "comment"):
            first = first if words else line
            words.append(token[1:-1] if kind in ("quoted", "raw") else token)
        line += token.count("\n")
    if words:
        yield first, words


def _directives(text: str) -> list[Directive]:
    top = Directive(0, [])
    open_blocks = [top]
    for line, words in _joined(_lines(text)):
        if words == ["}"]:
            if len(open_blocks) == 1:
                raise UnreadableInputError(f"not a Caddyfile: line {line} closes a block that is not open")
            open_blocks.pop()
            continue
        opens = words[-1] == "{"
        directive = Directive(line, words[:-1] if opens else words, has_block=opens)
        open_blocks[-1].block.append(directive)
        if opens:
            open_blocks.append(directive)
        if len(open_blocks) > MAX_DEPTH:
            raise UnreadableInputError("not a Caddyfile: its blocks are nested too deeply")
    if len(open_blocks) > 1:
        raise UnreadableInputError(f"not a Caddyfile: the block of line {open_blocks[-1].line} is not closed")
    if top.block and not any(d.has_block for d in top.block[:1]):  # a single site without braces
        return [Directive(top.block[0].line, top.block[0].words, top.block[1:], has_block=True)]
    return top.block


def _joined(lines: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    """Join a line that ends with a comma, as addresses of sites do, with the next one."""
    first, joined = 0, list[str]()
    for line, words in lines:
        first = first if joined else line
        joined += words
        if not joined[-1].endswith(","):
            yield first, joined
            joined = []
    if joined:
        yield first, joined


class _Sites:
    def __init__(self, snippets: dict[str, list[Directive]]) -> None:
        self.snippets = snippets
        self.rows = ConfigurationRows(ParsedInput("caddyfile"))

    def add_site(self, directive: Directive) -> None:
        addresses = [a for word in directive.words for a in word.split(",") if a]
        self.rows.add(directive.line, directive.words, partial(_listeners, directive.line, addresses))
        self.add_directives(directive.block, Site(_public_name(addresses)), 0)

    def add_directives(self, directives: list[Directive], site: Site, depth: int) -> None:
        """Add the rows of the directives, which are those of `site`."""
        for directive in directives:
            name, args = (directive.words or [""])[0], directive.words[1:]
            self.rows.is_recognized |= name in DIRECTIVES
            matcher = args[0] if args and args[0].startswith(("/", "@", "*")) else ""
            here = replace(site, path=matcher.strip("@*") or site.path)
            if name in PROXIES:
                self.rows.add(directive.line, directive.words, partial(_passed, directive, here))
            elif name == "import" and args and args[0] in self.snippets and depth < MAX_DEPTH:
                self.add_directives(_with_arguments(self.snippets[args[0]], args[1:]), site, depth + 1)
            else:
                self.add_directives(directive.block, here, depth)


def _with_arguments(directives: list[Directive], args: list[str]) -> list[Directive]:
    """Return the lines of a snippet with the arguments of the line that imports it."""

    def argument(match: re.Match[str]) -> str:
        return args[int(match[1])] if int(match[1]) < len(args) else match[0]

    return [
        replace(d, words=[ARGUMENT.sub(argument, word) for word in d.words], block=_with_arguments(d.block, args))
        for d in directives
    ]


def _public_name(addresses: list[str]) -> str:
    hosts = [re.sub(r"^https?://|(:\d+)?(/.*)?$", "", address) for address in addresses]
    return next((host for host in hosts if "." in host and not re.fullmatch(r"[\d.]+", host)), "")


def _listeners(line: int, addresses: list[str]) -> Iterator[Row]:
    """Return the ports of the addresses of a site: 443 if an address names none, or 80 if it begins with `http://`."""
    for address in addresses:
        address = ENVIRONMENT.sub(r"\1", address)
        scheme, _, rest = address.rpartition("://")
        host = rest.partition("/")[0]
        port = re.search(r":(\d{1,5})$", host)
        if "{" in address:
            raise RowError(f"{excerpt(address)} is a variable without a default")
        if port and not 1 <= int(port[1]) <= 65535:
            raise RowError(f"{excerpt(address)} has no port from 1 to 65535")
        number = int(port[1]) if port else 80 if scheme == "http" else 443
        yield Row(line, port=number, process="caddy")


def _passed(directive: Directive, site: Site) -> list[Row]:
    addresses = [word for word in directive.words[1:] if not word.startswith(("/", "@", "*"))]
    addresses += [word for d in directive.block if d.words[:1] == ["to"] for word in d.words[1:]]
    return site.rows(directive.line, [upstream for address in addresses for upstream in _upstreams(address)])


def _upstreams(address: str) -> list[Upstream]:
    address = ENVIRONMENT.sub(r"\1", address)
    if "{" in address:
        raise RowError(f"{excerpt(address)} is a variable without a default")
    return list(parse_upstreams(address, 80))

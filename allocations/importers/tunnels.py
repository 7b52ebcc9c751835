"""Parse the configuration of cloudflared, which says which public host name leads to which port."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .positions import ListWithLines, load_yaml
from .rows import ParsedInput, Row, RowError, UnreadableInputError
from .upstreams import Site, parse_upstreams


def cloudflared(text: str) -> ParsedInput:
    """Parse the `ingress` of cloudflared's config.yml.

    The service is named after the first label of its public host name.
    """
    content = load_yaml(text)
    if not isinstance(content, dict) or not isinstance(content.get("ingress"), ListWithLines):
        raise UnreadableInputError("not a configuration of cloudflared: it has no list `ingress`")
    parsed = ParsedInput("cloudflared")
    for line, rule in content["ingress"].with_lines():
        try:
            rows = _rows(line, rule)
        except RowError as error:
            parsed.skip(line, str(rule), error)
            continue
        parsed.rows += rows
        parsed.ignored += not rows
    return parsed


def _rows(line: int, rule: Any) -> list[Row]:
    if not isinstance(rule, dict) or "service" not in rule:
        raise RowError("not a rule with hostname and service")
    name, address = str(rule.get("hostname", "")), str(rule["service"])
    if not name or "://" not in address:  # the last rule, such as http_status:404, and services of cloudflared itself
        return []
    rows = Site(name).rows(line, list(parse_upstreams(address)))
    return [replace(row, description="", cloudflare_hostname=name) for row in rows]

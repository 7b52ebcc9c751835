"""Parse the configuration of cloudflared, which says which public host name leads to which port."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from .positions import ListWithLines, load_yaml
from .rows import ParsedInput, Row, RowError, UnreadableInputError, excerpt

THIS_HOST = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}  # noqa: S104 as people write it


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
            row = _row(line, rule)
        except RowError as error:
            parsed.skip(line, str(rule), error)
            continue
        if row is None:
            parsed.ignored += 1
        else:
            parsed.rows.append(row)
    return parsed


def _row(line: int, rule: Any) -> Row | None:
    if not isinstance(rule, dict) or "service" not in rule:
        raise RowError("not a rule with hostname and service")
    name, address = str(rule.get("hostname", "")), str(rule["service"])
    if not name or "://" not in address:  # the last rule, such as http_status:404, and services of cloudflared itself
        return None
    try:
        place = urlsplit(address)
        port = place.port
    except ValueError:
        raise RowError(f"{excerpt(address)} has no port from 1 to 65535") from None
    if place.scheme == "unix" or place.scheme.startswith("unix+"):
        return None
    port = port or {"http": 80, "https": 443, "ssh": 22}.get(place.scheme)
    if port is None:
        raise RowError(f"{excerpt(address)} has no port")
    host = place.hostname or "localhost"
    return Row(
        line,
        service=name.removeprefix("*.").partition(".")[0].lower(),
        port=port,
        hostname="localhost" if host in THIS_HOST else host,
        cloudflare_hostname=name,
        service_is_hint=True,
    )

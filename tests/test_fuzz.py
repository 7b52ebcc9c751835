"""No request makes Portal crash: pages, forms, the API and the admin get what nobody would send on purpose."""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import httpx2
import pytest
from django.conf import settings
from django.contrib.admin import site
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from hypothesis import HealthCheck, given, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from allocations import forms
from portal.asgi import application
from tests import make
from tests.loops import in_a_loop_of_its_own
from tests.users import client_of, superuser

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
]

STRANGE = [
    *("", " ", "\0", "a\0b", "%00", "zzz", "(", "[", "{", "'", '"', "\\", "%", "../..", "null", "true", "\u202e"),
    *("0", "-1", "1e999", "NaN", "٣", "9999", "99999999999999999999", "1" * 5000, "x" * 5000, "😀", "[" * 3000),
    *('{"a": "\\ud800"}', '{"a": "\\u0000"}', '{"a": 1e999}', '{"a":' * 2000, "1,2", "2001-01-01", "9999-12-31"),
]
VALUES = st.sampled_from(STRANGE) | st.text(max_size=30)
LOOKUPS = ("", "__exact", "__regex", "__year", "__in", "__isnull", "__range", "__gt", "__unaccent", "__nothing")
CONTENT_TYPES = (
    *("multipart/form-data; boundary=B", "application/x-www-form-urlencoded", "application/json", "text/plain", ""),
    *(f"multipart/form-data; boundary=B; charset={name}" for name in ("hex", "rot13", "idna", "undefined", "utf-7")),
    "multipart/form-data",
)
# What ends the session of the test, or takes long because it looks at the whole machine.
LEFT_OUT = ("logout", "admin/logout/", "mcp", "admin/jsi18n/")


class Request(NamedTuple):
    method: str
    path: str
    query: list[tuple[str, str]]
    form: list[tuple[str, str]] | None  # without it, the body is raw
    body: bytes
    content_type: str


def routes(resolver: URLResolver, before: str = "") -> list[str]:
    found = []
    for pattern in resolver.url_patterns:
        route = before + str(pattern.pattern)
        found += routes(pattern, route) if isinstance(pattern, URLResolver) else [route]
        assert isinstance(pattern, (URLResolver, URLPattern))
    return [route for route in found if route not in LEFT_OUT]


def form_fields() -> list[str]:
    """Return the names of the fields of every form, and those that Django's admin adds."""
    found = {"_selected_action", "action", "_save", "post", "select_across", "next", "q"}
    for form in vars(forms).values():
        found |= set(getattr(form, "base_fields", ()))
    for model in site._registry:
        found |= {field.name for field in model._meta.get_fields()}
    return sorted(found)


def query_names() -> list[str]:
    found = {"q", "o", "p", "e", "all", "page", "port", "term", "field_name", "app_label", "model_name", "_popup"}
    for model_admin in site._registry.values():
        for item in model_admin.list_filter:
            found.add(str(item[0] if isinstance(item, (list, tuple)) else item))
        if model_admin.date_hierarchy:
            found.add(model_admin.date_hierarchy)
    return sorted(found | {"project__name", "limit", "cursor", "hostname", "protocol", "service", "sort"})


def pairs(names: Any) -> Any:
    return st.lists(st.tuples(names, VALUES), max_size=4)


@st.composite
def requests(draw: st.DrawFn, keys: list[str]) -> Request:
    route = draw(st.sampled_from(sorted(routes(get_resolver()))))
    value = VALUES | st.sampled_from(keys)
    path = re.sub(r"<[^>]+>|\(\?P<[^)]*\)", lambda _: quote(draw(value), safe="", errors="replace") or "x", route)
    lookups = st.builds(str.__add__, st.sampled_from(query_names()), st.sampled_from(LOOKUPS))
    has_form = draw(st.booleans())
    return Request(
        draw(st.sampled_from(["GET", "GET", "POST", "PUT", "PATCH", "DELETE"])),
        "/" + re.sub(r"[\^$?()|]|\\Z", "", path),
        draw(pairs(lookups)),
        draw(pairs(st.sampled_from(form_fields()))) if has_form else None,
        draw(st.binary(max_size=40) | VALUES.map(lambda text: text.encode("utf-8", "replace"))),
        draw(st.sampled_from(CONTENT_TYPES)),
    )


def send(client: Client, request: Request) -> int:
    """Send a request through the ASGI application with the session of a client, and return the status."""
    headers = {"Host": "localhost", "Content-Type": request.content_type}
    if session := client.cookies.get(settings.SESSION_COOKIE_NAME):
        headers["Cookie"] = f"{settings.SESSION_COOKIE_NAME}={session.value}"
    body = request.body
    if request.form is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        body = urlencode(request.form, errors="replace").encode()
    address = f"http://localhost{request.path}?{urlencode(request.query, errors='replace')}"[:60_000]  # httpx's limit

    async def run() -> int:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=application)) as web:
            return int((await web.request(request.method, address, content=body, headers=headers)).status_code)

    return int(in_a_loop_of_its_own(run()))


@pytest.fixture
def keys() -> list[str]:
    """Create a service and a superuser, and return the keys that addresses can contain."""
    superuser("fuzz")
    return [str(make.allocation().pk), "shop", "1"]


def fuzz(keys: list[str], examples: int, number: int) -> None:
    """Send requests that are generated from a number, and fail if one of them makes Portal crash."""
    hypothesis_settings.register_profile(
        "fuzz", max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )

    @seed(number)
    @hypothesis_settings(hypothesis_settings.get_profile("fuzz"))
    @given(requests(keys), st.booleans())
    def check(request: Request, with_login: bool) -> None:
        # An earlier request may have changed the user.
        client = client_of(User.objects.get(username="fuzz")) if with_login else Client()
        assert send(client, request) not in (500, 502, 504), request

    check()


def test_no_request_crashes(keys: list[str]) -> None:
    fuzz(keys, 250, number=1)


@pytest.mark.fuzz
def test_no_request_crashes_in_ten_minutes(keys: list[str]) -> None:
    end, number = time.monotonic() + 600, time.time_ns()
    while time.monotonic() < end:
        fuzz(keys, 500, number)
        number += 1


@pytest.mark.parametrize(
    "cookie", ["abcdefgh\0ijklmnop", "\0" * 32, "x" * 5000, "\xc3\x80"], ids=["nul", "nuls", "long", "latin"]
)
@pytest.mark.parametrize("address", ["/", "/login", "/api/ports", "/admin/", "/metrics"])
def test_a_strange_session_is_no_session(cookie: str, address: str) -> None:
    client = Client()
    client.cookies[settings.SESSION_COOKIE_NAME] = cookie
    assert client.get(address).status_code in (200, 302, 401)

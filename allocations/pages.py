"""What every page shares: who asks, page or fragment, and how a refusal is shown."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.contrib import messages
from django.core.paginator import Page, Paginator
from django.db import Error as DatabaseFault
from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_http_methods

from .access import Caller, Role
from .errors import NotFound, PortError, Unavailable
from .ports import PortManager
from .ports.refusals import refusal_of

PER_PAGE = 100
UNWANTED = 400
View = Callable[..., HttpResponseBase]


def caller_of(request: HttpRequest) -> Caller:
    """Whose rights apply; looked up once per request."""
    found: Caller | None = getattr(request, "caller", None)
    if found is None:
        found = Caller.of_user(request.user)
        request.caller = found  # type: ignore[attr-defined]
    return found


def ports_of(request: HttpRequest) -> PortManager:
    """The manager in the name of who asks."""
    caller = caller_of(request)
    return PortManager(actor=caller.name, source="web", caller=caller)


def wants_fragment(request: HttpRequest) -> bool:
    """Whether htmx asks for a part of the page: not for a boosted link, nor to restore its history."""
    htmx = request.htmx  # type: ignore[attr-defined]
    return bool(htmx) and not htmx.boosted and not htmx.history_restore_request


def page(
    request: HttpRequest, template: str, partial: str = "", context: Mapping[str, Any] | None = None, status: int = 200
) -> HttpResponse:
    """The partial of the template to htmx, the page to anyone else.

    Args:
        partial: its name, which is the name of the DOM id that it replaces, too; empty: always the page.
    """
    is_fragment = bool(partial) and wants_fragment(request)
    name = f"{template}#{partial}" if is_fragment else template
    shown = {"caller": caller_of(request), "is_fragment": is_fragment, **(context or {})}
    response = render(request, name, shown, status=status)
    if is_fragment and (request.method == "POST" or messages.get_messages(request)):
        said = render_to_string("_messages.html", request=request)
        response.write(f'<hx-partial hx-target="#messages">{said}</hx-partial>')
    patch_vary_headers(response, ["HX-Request", "HX-Boosted", "HX-History-Restore-Request"])
    return response


def elsewhere(response: HttpResponse, target: str) -> HttpResponse:
    """Have htmx put a refusal into the element of that id, not into what the change would have replaced."""
    if response.status_code >= UNWANTED:
        response["HX-Retarget"], response["HX-Reswap"] = f"#{target}", "innerHTML"
    return response


def posted(request: HttpRequest) -> QueryDict | None:
    """What a form is bound to: nothing, unless it was sent."""
    return request.POST if request.method == "POST" else None


def door(*methods: str, role: Role = Role.VIEWER, doing: str = "look at ports") -> Callable[[View], View]:
    """Make a function a view: its methods, the least role that may open it, and a page for every refusal."""

    def decorate(view: View) -> View:
        @require_http_methods(list(methods) or ["GET", "HEAD"])
        @functools.wraps(view)
        def run(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            try:
                caller_of(request).require(role, doing)
                return view(request, *args, **kwargs)
            except PortError as refusal:
                return refused(request, refusal)
            except DatabaseFault as fault:
                known = refusal_of(fault)
                if known is None:
                    raise
                return refused(request, known)

        return run

    return decorate


def refused(request: HttpRequest, refusal: PortError) -> HttpResponse:
    """The page of a refusal. What one may not see looks like what does not exist."""
    if wants_fragment(request):
        messages.error(request, refusal.sentence)
        response = elsewhere(render(request, "_messages.html", status=refusal.status), "messages")
    else:
        template = "404.html" if isinstance(refusal, NotFound) else "refused.html"
        response = render(
            request, template, {"refusal": refusal, "caller": getattr(request, "caller", None)}, status=refusal.status
        )
    if isinstance(refusal, Unavailable):
        response["Retry-After"] = str(refusal.details.get("retry_after", 2))
    return response


def broken(request: HttpRequest) -> HttpResponse:
    """What nobody foresaw; and the database that was gone before the view began, in its session or login."""
    fault = sys.exc_info()[1]
    refusal = refusal_of(fault) if isinstance(fault, DatabaseFault) else None
    is_unavailable = isinstance(refusal, Unavailable)
    # Without the request: what the page would look up in it may be what is broken.
    response = HttpResponse(render_to_string("500.html", {"refusal": refusal}), status=503 if is_unavailable else 500)
    if is_unavailable:
        response["Retry-After"] = "2"
    return response


def done(request: HttpRequest, sentence: str, to: Any, **kwargs: Any) -> HttpResponse:
    """After a change: say it, and send the browser on with a 303."""
    messages.success(request, sentence)
    target: HttpResponse = redirect(to, **kwargs)
    target.status_code = 303
    return target


def paged(request: HttpRequest, rows: Any, per_page: int = PER_PAGE) -> Page[Any]:
    """The page of `rows` that `?page=` names; nonsense is the first, too far is the last."""
    return Paginator(rows, per_page).get_page(request.GET.get("page"))


def without_page(request: HttpRequest, names: Iterable[str]) -> str:
    """The query string of those parameters, for the links to other pages of a list."""
    kept = request.GET.copy()
    for name in list(kept):
        if name not in set(names):
            del kept[name]
    return kept.urlencode()

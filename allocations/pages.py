"""Functions that all pages use: for the caller, for whole pages and parts of them, and for refusals."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.core.paginator import Page, Paginator
from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.middleware.csrf import get_token
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_http_methods

from portal.postgresql.base import release_session

from .auth.lookup import caller_for_user
from .auth.roles import Caller, Role
from .errors import NotFound, NotPermitted, PortError, Unavailable
from .ports import Context, db_errors
from .ports.rate_limits import count_request

MOST_DIGITS = 18  # of a key
PER_PAGE = 100
FORM_METHODS = ("GET", "POST")
View = Callable[..., HttpResponseBase]


# Who sends the request


def caller_of(request: HttpRequest) -> Caller:
    """Return who is logged in, for the dashboard and for the admin. The rights are looked up once per request."""
    caller: Caller | None = getattr(request, "caller", None)
    if caller is None:
        caller = caller_for_user(request.user)
        request.caller = caller  # type: ignore[attr-defined]
    return caller


def context_of(request: HttpRequest) -> Context:
    """Return the context in which the dashboard runs operations for whoever is logged in."""
    return Context.of(caller_of(request), "web")


def count_post(request: HttpRequest, *, is_audit: bool = False) -> None:
    """Count a POST towards the rate limit of whoever is logged in, as the API counts changes and audits.

    Raises:
        TooManyRequests: there were too many.
    """
    if request.method == "POST":
        count_request(context_of(request), "audit" if is_audit else "change", request.META.get("REMOTE_ADDR", ""))


def require_role(
    role: Role = Role.VIEWER,
    action: str = "look at ports",
    methods: Sequence[str] = ("GET", "HEAD"),
    *,
    is_audit: bool = False,
) -> Callable[[View], View]:
    """Turn a function into a view that requires a role, and shows a page for every PortError and database error.

    Every POST counts towards the rate limit.

    Args:
        role: the lowest role that may open it.
        action: what the view does, as the refusal words it, such as "release ports".
        methods: the HTTP methods that it accepts.
        is_audit: whether it runs an audit.
    """

    def decorate(view: View) -> View:
        @require_http_methods(list(methods))
        @functools.wraps(view)
        def run(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            try:
                with db_errors.translated():
                    caller_of(request).require(role, action)
                    count_post(request, is_audit=is_audit)
                    return view(request, *args, **kwargs)
            except PortError as error:
                return error_page(request, error)

        return run

    return decorate


# Pages


def wants_fragment(request: HttpRequest) -> bool:
    """Return whether htmx requests a part of the page, not a whole one for a boosted link or for its history."""
    htmx = request.htmx  # type: ignore[attr-defined]
    return bool(htmx) and not htmx.boosted and not htmx.history_restore_request


def page(
    request: HttpRequest, template: str, partial: str = "", context: Mapping[str, Any] | None = None, status: int = 200
) -> HttpResponse:
    """Return the partial of the template to htmx, and the whole page to everybody else.

    Args:
        partial: the name of the partial, which is also the id of the element that it replaces; empty to always return
            the whole page.
    """
    is_fragment = bool(partial) and wants_fragment(request)
    name = f"{template}#{partial}" if is_fragment else template
    context = {"caller": caller_of(request), "is_fragment": is_fragment, **(context or {})}
    response = render(request, name, context, status=status)
    if is_fragment and (request.method == "POST" or messages.get_messages(request)):
        html = render_to_string("_messages.html", request=request)
        response.write(f'<hx-partial hx-target="#messages">{html}</hx-partial>')
    patch_vary_headers(response, ["HX-Request", "HX-Boosted", "HX-History-Restore-Request"])
    return response


def retarget_refusal(response: HttpResponse, element: str) -> HttpResponse:
    """Make htmx show a refusal in the element with this id, and keep what the change would have replaced."""
    if response.status_code >= 400:
        response["HX-Retarget"], response["HX-Reswap"] = f"#{element}", "innerHTML"
    return response


def redirect_with_message(request: HttpRequest, message: str, to: Any) -> HttpResponse:
    """Report a change, and redirect the browser with a 303, so that reloading does not repeat the change."""
    messages.success(request, message)
    response: HttpResponse = redirect(to)
    response.status_code = 303
    return response


def form_data(request: HttpRequest) -> QueryDict | None:
    """Return the data to bind a form to, or None if the form was not submitted."""
    return request.POST if request.method == "POST" else None


def paginate(request: HttpRequest, rows: Any, per_page: int = PER_PAGE) -> Page[Any]:
    """Return the page of `rows` that `?page=` names: the first if it is not a number, the last if it is too high."""
    return Paginator(rows, per_page).get_page(request.GET.get("page"))


@dataclass(frozen=True, slots=True)
class KeyPage:
    """A page of a list that only grows, newest first, and what the links to its neighbors name."""

    rows: list[Any]
    before: int | None = None  # the key of the oldest row, if there are older ones
    after: int | None = None  # the key of the newest row, if there are newer ones

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def paginate_by_key(request: HttpRequest, rows: Any, per_page: int) -> KeyPage:
    """Return the rows before the key `?before=`, or after `?after=`; without either, or if there are none, the newest.

    Nothing is counted or skipped, so that the last of a million rows is found as fast as the first.
    """
    before, after = (_key(request, name) for name in ("before", "after"))
    if after is not None:
        newer = list(rows.filter(pk__gt=after).order_by("pk")[: per_page + 1])
        if len(newer) > per_page:
            found = newer[:per_page][::-1]
            return KeyPage(found, before=found[-1].pk, after=found[0].pk)
    elif before is not None:
        older = list(rows.filter(pk__lt=before).order_by("-pk")[: per_page + 1])
        if older:
            found = older[:per_page]
            return KeyPage(found, found[-1].pk if len(older) > per_page else None, found[0].pk)
    newest = list(rows.order_by("-pk")[: per_page + 1])
    found = newest[:per_page]
    return KeyPage(found, found[-1].pk if len(newest) > per_page else None)


def _key(request: HttpRequest, name: str) -> int | None:
    """Return a key in the address, or None if it cannot be one."""
    value = request.GET.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= MOST_DIGITS else None


def query_string(request: HttpRequest, names: Iterable[str]) -> str:
    """Return the query string with only these parameters, for the links to the other pages of a list."""
    names, parameters = set(names), request.GET.copy()
    for name in list(parameters):
        if name not in names:
            del parameters[name]
    return parameters.urlencode()


# Errors


def error_page(request: HttpRequest, error: PortError) -> HttpResponse:
    """Return the page for an error. What the caller may not see looks as if it did not exist."""
    if wants_fragment(request):
        messages.error(request, error.sentence)
        response = retarget_refusal(render(request, "_messages.html", status=error.status), "messages")
    else:
        template = "404.html" if isinstance(error, NotFound) else "refused.html"
        context = {"refusal": error, "caller": getattr(request, "caller", None)}
        response = render(request, template, context, status=error.status)
    for name, value in error.headers.items():
        response[name] = value
    return response


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Return the page for a form whose token is not that of the browser's cookie, and give htmx a fresh token.

    It happens to honest people: somebody has logged in again in another tab, or has deleted the cookies.
    """
    if not wants_fragment(request):
        return render(request, "403_csrf.html", {"caller": getattr(request, "caller", None)}, status=403)
    request.fresh_token = get_token(request)  # type: ignore[attr-defined]
    return error_page(
        request, NotPermitted("This page was older than your login, so nothing was changed. Send it again.")
    )


def releasing_session(handler: Callable[[HttpRequest, Exception], HttpResponse]) -> Callable[..., HttpResponse]:
    """Release the session of PostgreSQL that rendering an error page may have opened.

    Under ASGI, Django calls the handlers of errors in a thread for which it never closes connections.
    """

    @functools.wraps(handler)
    def releasing(request: HttpRequest, exception: Exception) -> HttpResponse:
        try:
            return handler(request, exception)
        finally:
            release_session()

    return releasing


@releasing_session
def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the page for a request that Django cannot read, with the reason if Portal gave it."""
    # Not rendered with the request: the user and the messages may be what cannot be read.
    reason = str(exception) if isinstance(exception, BadRequest) else ""
    return HttpResponse(render_to_string("400.html", {"reason": reason}), status=400)


@releasing_session
def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the page for a request that requires another role."""
    return render(request, "403.html", status=403)


@releasing_session
def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the page for an address that does not exist, or whose project is not visible to the caller."""
    return render(request, "404.html", status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    """Return the page for an unexpected error, or for a database that did not answer before the view started."""
    error = _unavailable(sys.exc_info()[1])
    # Rendered without the request, because a context processor may be what has failed.
    html = render_to_string("500.html", {"refusal": error})
    return HttpResponse(html, status=error.status if error else 500, headers=error.headers if error else {})


def _unavailable(error: BaseException | None) -> Unavailable | None:
    """Return the refusal for a database that does not answer, or None for any other error."""
    if not isinstance(error, DatabaseError):
        return None
    try:
        refusal = db_errors.port_error_for(error)
    except DatabaseError:
        return None
    return refusal if isinstance(refusal, Unavailable) else None

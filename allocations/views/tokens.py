"""One's own tokens: made, shown once, revoked."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from allocations.errors import PortError, UnknownToken
from allocations.forms import TokenForm
from allocations.models import Token
from allocations.pages import caller_of, done, door, page, paged, ports_of, posted


@door("GET", "POST", doing="make tokens")
def tokens(request: HttpRequest) -> HttpResponseBase:
    """The list, the form, and after it the token: it is in this answer and in no other."""
    caller = caller_of(request)
    form = TokenForm(posted(request), caller=caller)
    made = None
    if request.method == "POST":
        made = form.attempt(ports_of(request).create_token)
        if made is not None:
            form = TokenForm(None, caller=caller)
    rows = Token.objects.of_user(caller).prefetch_related("projects")
    context = {"form": form, "tokens": paged(request, rows), "made": made}
    return page(request, "allocations/tokens.html", "tokens", context, form.status if form.errors else 200)


@door("GET", "POST", doing="revoke tokens")
def revoke(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Close a token for good, after asking."""
    found, refusal = Token.objects.of_user(caller_of(request)).filter(pk=pk).first(), None
    if found is None:
        raise UnknownToken("There is no such token.")
    if request.method == "POST":
        try:
            ports_of(request).revoke_token(pk)
            return done(request, f"Revoked {found.name}.", reverse("tokens"))
        except PortError as error:
            refusal = error
    context = {
        "heading": f"Revoke {found.name}?",
        "sentence": "Whatever uses it is locked out at once, and it never works again.",
        "button": "Revoke the token",
        "back": reverse("tokens"),
        "refusal": refusal,
    }
    return page(request, "allocations/confirm.html", "confirm", context, refusal.status if refusal else 200)

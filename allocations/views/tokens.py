"""The caller's own tokens."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from allocations.errors import PortError, UnknownToken
from allocations.forms import TokenForm
from allocations.models import Token
from allocations.pages import (
    FORM_METHODS,
    caller_of,
    context_of,
    form_data,
    page,
    paginate,
    redirect_with_message,
    require_role,
)
from allocations.ports import tokens


@require_role(action="create tokens", methods=FORM_METHODS)
def index(request: HttpRequest) -> HttpResponseBase:
    """List the caller's tokens, and make new ones. Only the response that makes a token shows it."""
    caller = caller_of(request)
    form = TokenForm(form_data(request), caller=caller)
    new_token, secret = None, ""
    if request.method == "POST" and (pair := form.attempt(tokens.create, context_of(request))):
        new_token, secret = pair
        form = TokenForm(None, caller=caller)
    rows = Token.objects.belonging_to(caller).prefetch_related("projects")
    context = {"form": form, "tokens": paginate(request, rows), "new_token": new_token, "secret": secret}
    return page(request, "allocations/tokens.html", "tokens", context, form.status)


@require_role(action="revoke tokens", methods=FORM_METHODS)
def revoke(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Revoke a token for good. Ask for confirmation first."""
    token, refusal = Token.objects.belonging_to(caller_of(request)).filter(pk=pk).first(), None
    if token is None:
        raise UnknownToken("There is no such token.")
    if request.method == "POST":
        try:
            tokens.revoke(context_of(request), pk)
            return redirect_with_message(request, f"Revoked {token.name}.", reverse("tokens"))
        except PortError as error:
            refusal = error
    context = {
        "heading": f"Revoke {token.name}?",
        "sentence": "Every program that uses it loses access at once, and the token never works again.",
        "button": "Revoke the token",
        "back": reverse("tokens"),
        "refusal": refusal,
    }
    return page(request, "allocations/confirm.html", "confirm", context, refusal.status if refusal else 200)

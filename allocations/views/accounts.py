"""The login page."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import views as auth
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import method_decorator

from allocations.forms import LoginForm
from allocations.logins import limit_logins
from allocations.pages import wants_fragment


@method_decorator([login_not_required, limit_logins], name="dispatch")
class Login(auth.LoginView):
    """The login page.

    When the session has ended, a request for a part of a page is redirected here. The whole page is then reloaded,
    because the login page would not fit into the part.
    """

    authentication_form = LoginForm
    redirect_authenticated_user = True

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if wants_fragment(request):
            return HttpResponse(status=204, headers={"HX-Refresh": "true"})
        return super().dispatch(request, *args, **kwargs)

"""The middleware that requires a login. Not in `middleware`, which the logging needs before the models are there."""

from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.utils.http import url_has_allowed_host_and_scheme

SAFE_METHODS = {"GET", "HEAD"}


class LoginMiddleware(LoginRequiredMiddleware):
    """Send a form whose session has ended back to its page after the login: its own address may not have a page."""

    def handle_no_permission(
        self, request: HttpRequest, view_func: Callable[..., HttpResponseBase]
    ) -> HttpResponseRedirect:
        referrer = request.headers.get("Referer", "")
        if request.method in SAFE_METHODS or not _is_own(request, referrer):
            return super().handle_no_permission(request, view_func)
        page = urlunsplit(urlsplit(referrer)._replace(scheme="", netloc="", fragment=""))
        return redirect_to_login(page, self.get_login_url(view_func), self.get_redirect_field_name(view_func))


def _is_own(request: HttpRequest, address: str) -> bool:
    hosts = {request.get_host()}
    return url_has_allowed_host_and_scheme(address, hosts, require_https=request.is_secure())

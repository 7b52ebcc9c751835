"""The site of the Django admin, with rules for every page, whoever registered it: Portal, Django or django-axes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import BadRequest, ValidationError
from django.db import DataError, models
from django.forms.fields import InvalidJSONInput
from django.http import HttpRequest, HttpResponseRedirect
from django.utils.decorators import method_decorator

from allocations.errors import TooManyRequests
from allocations.forms import AdminLoginForm
from allocations.logins import limit_logins
from allocations.pages import count_post, error_page
from allocations.validators import is_storable

SEARCHES = {"q", "term"}  # searched without NULs
# What Django's own filters and date hierarchies put into addresses.
LOOKUPS = {"", "exact", "id", "pk", "in", "isnull", "gte", "lt", "year", "month", "day"}


class JSONField(forms.JSONField):
    """A JSON field that also refuses what Python or PostgreSQL cannot hold, such as a number of 5,000 digits."""

    def to_python(self, value: Any) -> Any:
        try:
            decoded = super().to_python(value)
            if is_storable(decoded):
                return decoded
        except (ValueError, RecursionError):
            pass
        raise ValidationError(self.error_messages["invalid"], code="invalid", params={"value": value})

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            shown = super().bound_data(data, initial)
            json.dumps(shown, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            return InvalidJSONInput(data)
        return shown


class StrictAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Refuse filters that the list does not offer, and selected rows that are no rows.

    Django lets the address of a list filter by any field with any lookup, such as a regular expression.
    """

    formfield_overrides = {models.JSONField: {"form_class": JSONField}}

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        filters = self.get_list_filter(request)
        fields = {item[0] if isinstance(item, (list, tuple)) else item for item in filters}
        fields |= {self.date_hierarchy} if self.date_hierarchy else set()
        offered = any(
            isinstance(field, str) and lookup.startswith(field) and set(lookup[len(field) :].split("__")) <= LOOKUPS
            for field in fields
        )
        return offered and super().lookup_allowed(lookup, value, request)

    def get_search_results(self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str) -> Any:
        return super().get_search_results(request, queryset, search_term.replace("\0", ""))

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().changelist_view(request, *args, **kwargs)
        except (IncorrectLookupParameters, DataError, ValueError, OverflowError, ValidationError):
            if ERROR_FLAG in request.GET:  # the list itself is broken
                raise
            messages.warning(request, "The address or the selection was not valid, so this is the whole list.")
            return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")


class PortalAdminSite(admin.AdminSite):
    """The admin site, whose lists and forms are strict about what they are sent."""

    site_header = site_title = "Portal"
    index_title = "Registry"
    site_url = "/"
    login_form = AdminLoginForm

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        admin_class = admin_class or admin.ModelAdmin
        strict = type(admin_class.__name__, (StrictAdmin, admin_class), {"__module__": admin_class.__module__})
        super().register(model_or_iterable, strict, **options)

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Any:
        return super().admin_view(refuse_unstorable(count_posts(view)), cacheable)

    @method_decorator([login_not_required, limit_logins])
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return super().login(request, extra_context)


def count_posts(view: Callable[..., Any]) -> Callable[..., Any]:
    """Count the changes that are made in the admin towards the user's rate limit, as those in the dashboard."""

    @functools.wraps(view)
    def counted_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            count_post(request)
        except TooManyRequests as error:
            return error_page(request, error)
        return view(request, *args, **kwargs)

    return counted_view


def refuse_unstorable(view: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse a query string that contains a NUL or half of a surrogate pair. Forms check their own fields."""

    @functools.wraps(view)
    def strict_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        sent = [text for name, values in request.GET.lists() if name not in SEARCHES for text in (name, *values)]
        sent += [*map(str, args), *map(str, kwargs.values()), *request.POST.getlist("_selected_action")]
        if not all(is_storable(value) for value in sent):
            raise BadRequest("The address contains a character that cannot be stored, such as a NUL.")
        return view(request, *args, **kwargs)

    return strict_view

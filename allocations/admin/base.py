"""The base classes of the admin's forms and lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponseRedirect

from allocations.errors import PortError
from allocations.forms import StaleMixin
from allocations.models import Project
from allocations.pages import caller_of
from allocations.ports import Context, db_errors


def context_of(request: HttpRequest) -> Context:
    """Return the context in which the admin runs operations for whoever is logged in."""
    return Context.of(caller_of(request), "admin")


class RefusalMixin:
    """Show the refusal of an operation or of the database as a message, on the page that sent the request."""

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return self._with_refusals(request, super().changelist_view, *args, **kwargs)  # type: ignore[misc]

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return self._with_refusals(request, super().changeform_view, *args, **kwargs)  # type: ignore[misc]

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return self._with_refusals(request, super().delete_view, *args, **kwargs)  # type: ignore[misc]

    def _with_refusals(self, request: HttpRequest, view: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        try:
            with db_errors.translated():
                return view(request, *args, **kwargs)
        except PortError as error:
            messages.error(request, error.sentence)
            return HttpResponseRedirect(request.get_full_path())


class VisibleProjects(admin.RelatedFieldListFilter):
    """Filter by project, offering only the projects that the caller may see."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        projects = Project.objects.visible_to(caller_of(request)).order_by("name")
        return [(str(project.pk), project.name) for project in projects]


class OperationForm(StaleMixin, forms.ModelForm):  # type: ignore[type-arg]
    """A form that runs an operation when it is validated, and shows the operation's refusal as a form error.

    Subclasses call the operation in `operate()`. `save()` does nothing, because the operation has saved the row. A form
    that edits a row with a version passes `expected` to the operation, which refuses to overwrite what somebody else
    has changed since the form was opened.
    """

    # Set by OperationAdmin for each request.
    context: Context
    expected: set[str] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding and hasattr(self.instance, "version"):
            self.fields["version"] = forms.CharField(required=False, widget=forms.HiddenInput)
            self.initial["version"] = self.instance.version

    def operate(self, values: dict[str, Any]) -> Model:
        """Run the operation with the form's values and return the resulting row."""
        raise NotImplementedError

    def _post_clean(self) -> None:
        # Skip Django's validation against the model, which would report the same errors in other words.
        if self.errors:
            return
        version = self.cleaned_data.pop("version", "")
        self.expected = {version} if version else None
        try:
            self.instance = self.operate(self.cleaned_data)
        except PortError as error:
            self.add_refusal(error)

    def save(self, commit: bool = True) -> Any:
        return self.instance

    def save_m2m(self) -> None:
        """Do nothing: the operation has saved everything."""


class Autocomplete(AutocompleteSelect):
    """Django's autocomplete widget, without its failure on a value that is not a key of the related model."""

    def optgroups(self, name: str, value: Any, attr: Any = None) -> Any:
        key = self.field.remote_field.model._meta.pk

        def is_key(value: object) -> bool:
            try:
                key.to_python(value)
            except ValidationError:
                return False
            return True

        return super().optgroups(name, [item for item in value if is_key(item)], attr)


class VisibleAdmin(RefusalMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """List and search only the rows that the caller may see."""

    list_per_page = 100
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: Any = self.model._default_manager.visible_to(caller_of(request))
        ordering = self.get_ordering(request)
        return rows.order_by(*ordering) if ordering else rows  # type: ignore[no-any-return]

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in self.get_autocomplete_fields(request):
            kwargs["widget"] = Autocomplete(db_field, self.admin_site)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


class OperationAdmin(VisibleAdmin):
    """Save through the form's operation, and delete through `delete_model()`. Nothing can be deleted in bulk."""

    actions_on_bottom = True

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        return type(form.__name__, (form,), {"context": context_of(request)})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Do nothing: the form's operation has saved the row."""

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Return only the rows: the operation decides what may be deleted, and its refusal says what prevents it."""
        return [str(obj) for obj in objs], {}, set(), []


class ReadOnlyAdmin(VisibleAdmin):
    """A read-only admin for rows that triggers and audits write."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

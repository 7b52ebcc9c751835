"""What the admin's forms and lists share."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse

from allocations.access import Caller
from allocations.errors import PortError
from allocations.models import Project
from allocations.ports import PortManager


def ports_of(request: HttpRequest) -> PortManager:
    """The manager in the name of who is logged in."""
    caller = Caller.of_user(request.user)
    return PortManager(actor=caller.name, source="admin", caller=caller)


class VisibleProjects(admin.RelatedFieldListFilter):
    """Filters by a project; who is limited to some reads of no other."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        visible = Project.objects.visible_to(Caller.of_user(request.user)).order_by("name")
        return [(str(project.pk), project.name) for project in visible]


class OperationForm(forms.ModelForm):  # type: ignore[type-arg]
    """A form whose `clean` runs the operation: what is refused is an error of the form, and nothing was changed.

    Subclasses say in `operate` which operation it is. Django's own save is left out: the row is written already.
    """

    # Set by the ModelAdmin for each request.
    ports: PortManager
    renames: dict[str, str] = {}

    def operate(self, values: dict[str, Any]) -> Model:
        """Run the operation; the row as it is now."""
        raise AssertionError("each form says what it does")

    def _post_clean(self) -> None:
        # In place of Django's validation against the model, which would ask the same questions in other words.
        if self.errors:
            return
        try:
            self.instance = self.operate(self.cleaned_data)
        except PortError as refusal:
            field = self.renames.get(refusal.field, refusal.field)
            self.add_error(field if field in self.fields else None, refusal.sentence)

    def save(self, commit: bool = True) -> Any:
        return self.instance

    def save_m2m(self) -> None:
        """Nothing here is many-to-many."""


class Autocomplete(AutocompleteSelect):
    """Django's, which breaks on a key that is none."""

    def optgroups(self, name: str, value: Any, attr: Any = None) -> Any:
        key = self.field.remote_field.model._meta.pk

        def is_key(given: object) -> bool:
            try:
                key.to_python(given)
            except ValidationError:
                return False
            return True

        return super().optgroups(name, [given for given in value if is_key(given)], attr)


class VisibleAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Lists and finds what who asks may see."""

    list_per_page = 100
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: Any = self.model._default_manager.visible_to(Caller.of_user(request.user))
        ordering = self.get_ordering(request)
        return rows.order_by(*ordering) if ordering else rows  # type: ignore[no-any-return]

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> Any:
        return super().get_search_results(request, queryset, search_term.replace("\0", ""))

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in self.get_autocomplete_fields(request):
            kwargs["widget"] = Autocomplete(db_field, self.admin_site)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


class OperationAdmin(VisibleAdmin):
    """Saves through its form's operation, deletes through `delete`; nothing is deleted in bulk."""

    actions_on_bottom = True

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        return type(form.__name__, (form,), {"ports": ports_of(request)})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """The form's operation wrote it."""

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Django's page asks; a refusal comes back to the row with its sentence."""
        try:
            return super().delete_view(request, object_id, extra_context)
        except PortError as refusal:
            self.message_user(request, refusal.sentence, messages.ERROR)
            return self.response_post_save_change(request, None)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """The operation decides what may go, and says what stands in the way: Django's own look is not needed."""
        return [str(obj) for obj in objs], {}, set(), []


class ReadOnlyAdmin(VisibleAdmin):
    """Rows that triggers and audits write."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

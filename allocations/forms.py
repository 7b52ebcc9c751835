"""What people type, parsed. The rules stand in words.py and in PortManager; a refusal comes back on its field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django import forms

from . import words
from .access import Caller, Role
from .errors import PortError
from .models import Mode, Project, Status

R = TypeVar("R")
UNPROCESSABLE = 422


class PortField(forms.CharField):
    """A port in ASCII digits; int() would take digits of every script, underscores and signs."""

    def __init__(self, **kwargs: Any) -> None:
        attributes = {"inputmode": "numeric", "pattern": "[0-9]{1,5}", "maxlength": 5, "autocomplete": "off"}
        super().__init__(widget=forms.TextInput(attrs=attributes), **kwargs)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        if not text:
            return None
        try:
            return words.port_text(text)
        except PortError as refusal:
            raise forms.ValidationError(refusal.sentence, code=refusal.code) from None


class ExpiryField(forms.CharField):
    """`7d`, or a date; empty is never."""

    def clean(self, value: Any) -> Any:
        try:
            return words.expiry_text(super().clean(value) or "")
        except PortError as refusal:
            raise forms.ValidationError(refusal.sentence, code=refusal.code) from None


def _text(rows: int = 2) -> forms.Textarea:
    return forms.Textarea(attrs={"rows": rows})


class PortForm(forms.Form):
    """A form whose last word has PortManager.

    `renames` maps the names that refusals use for a field to this form's.
    """

    renames: dict[str, str] = {}
    # What to answer when the form is shown again.
    status = UNPROCESSABLE

    def attempt(self, operation: Callable[..., R], *args: Any, **extra: Any) -> R | None:
        """Run the operation with the cleaned values; None where it is refused, and the form says why.

        Raises:
            NotPermitted, NotFound, Unavailable: no value of the form is to blame.
        """
        if not self.is_valid():
            return None
        try:
            return operation(*args, **(self.cleaned_data | extra))
        except PortError as refusal:
            if refusal.status in (403, 404, 503) and refusal.field not in self._names():
                raise
            self.status = 409 if refusal.status == 409 else UNPROCESSABLE
            field = self.renames.get(refusal.field, refusal.field)
            self.add_error(field if field in self.fields else None, refusal.sentence)
            return None

    def _names(self) -> set[str]:
        return {*self.fields, *self.renames}


class PlaceForm(PortForm):
    """Where: host and protocol."""

    hostname = forms.CharField(label="Host", initial=words.LOCALHOST, required=False, max_length=255)
    protocol = forms.ChoiceField(choices=[(p, p) for p in words.PROTOCOLS], initial=words.TCP, required=False)
    renames = {"host": "hostname", "service": "service_name", "range": "range_name", "type": "service_type"}


class AllocateForm(PlaceForm):
    """A port for a service."""

    service_name = forms.CharField(label="Service", max_length=255)
    port = PortField(required=False, help_text="Empty: the lowest free one.")
    service_type = forms.CharField(label="Type", required=False, max_length=100, help_text="api, web, database, …")
    description = forms.CharField(required=False, widget=_text())
    cloudflare_hostname = forms.CharField(label="Cloudflare hostname", required=False, max_length=253)
    range_name = forms.CharField(
        label="Range", required=False, max_length=255, help_text="Empty: the project's own. Or a shared one."
    )
    field_order = ("service_name", "port", "service_type", "description", "cloudflare_hostname", "range_name")


class ReserveForm(PlaceForm):
    """Ports held for later."""

    first = PortField(label="From port")
    last = PortField(label="To port", required=False, help_text="Empty: only the one.")
    note = forms.CharField(required=False, widget=_text())
    expires_at = ExpiryField(
        label="Expires", required=False, help_text="7d, or a date such as 2027-01-31. Empty: never."
    )
    field_order = ("first", "last", "note", "expires_at")
    renames = PlaceForm.renames | {"port": "first", "start port": "first", "end port": "last"}

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        if values.get("last") is None:
            values["last"] = values.get("first")
        return values


class EditForm(PortForm):
    """What an allocation says of itself."""

    new_name = forms.CharField(label="Service", max_length=255)
    service_type = forms.CharField(label="Type", required=False, max_length=100)
    description = forms.CharField(required=False, widget=_text())
    cloudflare_hostname = forms.CharField(label="Cloudflare hostname", required=False, max_length=253)
    renames = {"service": "new_name", "type": "service_type"}


class EditReservationForm(PortForm):
    """What a reservation says of itself."""

    description = forms.CharField(label="Note", required=False, widget=_text())
    expires_at = ExpiryField(label="Expires", required=False, help_text="7d, or a date. Empty: never.")


class RangeForm(PortForm):
    """A range of a project."""

    project = forms.CharField(max_length=255, widget=forms.TextInput(attrs={"list": "projects", "autocomplete": "off"}))
    range_name = forms.CharField(label="Name", max_length=255)
    start = PortField(label="From port")
    end = PortField(label="To port")
    description = forms.CharField(required=False, widget=_text())
    shared = forms.BooleanField(required=False, help_text="Other projects may name it.")
    active = forms.BooleanField(required=False, initial=True, help_text="Ports are given out from it.")
    renames = {"range": "range_name", "start port": "start", "end port": "end"}


class ProjectForm(PortForm):
    """A new project."""

    name = forms.CharField(max_length=255)
    description = forms.CharField(required=False, widget=_text())
    size = PortField(label="Ports", initial=str(words.DEFAULT_RANGE_SIZE), help_text="How many its range has.")
    start = PortField(label="From port", required=False, help_text="Empty: the next free block.")
    shared = forms.BooleanField(required=False, help_text="Other projects may name its range.")
    renames = {"project": "name", "start port": "start", "range": "name"}


class EditProjectForm(PortForm):
    """What a project says, and what agents may in it."""

    new_name = forms.CharField(label="Name", max_length=255)
    mode = forms.ChoiceField(
        label="Agents", choices=Mode.choices, help_text="ask: a person approves each port that an agent takes."
    )
    agent_quota = PortField(
        label="Ports per token", required=False, help_text="How many each token may hold. Empty: no limit."
    )
    description = forms.CharField(required=False, widget=_text())
    renames = {"project": "new_name"}


class AdoptForm(PlaceForm):
    """A service for a port on which something listens already."""

    project = forms.CharField(max_length=255)
    service_name = forms.CharField(label="Service", max_length=255)
    port = PortField()
    service_type = forms.CharField(label="Type", required=False, max_length=100)


class FilterForm(forms.Form):
    """The filters of a table of allocations; what is wrong in them filters nothing."""

    q = forms.CharField(label="Text", required=False, max_length=255)
    status = forms.ChoiceField(required=False, choices=[("", "held"), *((s, s) for s in Status.values), ("all", "all")])
    host = forms.CharField(required=False, max_length=255)
    protocol = forms.ChoiceField(required=False, choices=[("", "any"), *((p, p) for p in words.PROTOCOLS)])


def project_names(caller: Any) -> list[str]:
    """The projects a form offers."""
    return list(Project.objects.visible_to(caller).values_list("name", flat=True))


class TokenForm(PortForm):
    """A token of one's own."""

    name = forms.CharField(max_length=100, help_text="What it is for; the history names it.")
    role = forms.ChoiceField()
    projects = forms.MultipleChoiceField(required=False, help_text="None chosen: all that you may see.")
    expires_at = ExpiryField(label="Expires", initial="90d", help_text="30d, 12h, or a date within a year.")

    def __init__(self, *args: Any, caller: Caller, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["role"] = forms.ChoiceField(choices=token_roles(caller), initial="viewer")
        names = [(name, name) for name in project_names(caller)]
        self.fields["projects"].choices = names  # type: ignore[attr-defined]

    def clean_projects(self) -> list[str] | None:
        return self.cleaned_data["projects"] or None


def token_roles(caller: Caller) -> list[tuple[str, str]]:
    """The roles that a token of the caller can have."""
    told = {
        Role.SCRAPER: "scraper: reads the metrics alone",
        Role.VIEWER: "viewer: looks",
        Role.OPERATOR: "operator: also allocates, releases, reserves",
        Role.ADMIN: "admin: also edits ranges and projects",
    }
    return [(role.label, text) for role, text in told.items() if role.within(caller.role) is role]


class ConnectForm(PortForm):
    """The project an agent is for."""

    def __init__(self, *args: Any, caller: Caller, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["project"] = forms.ChoiceField(
            choices=[(name, name) for name in project_names(caller)],
            help_text="The agent gets ports of this project, and sees no other.",
        )

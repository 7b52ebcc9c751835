"""The forms of the dashboard.

Their fields are named like the arguments of the operations. A form checks the text that was entered; the operation
performs the final validation, and the form shows its refusal beside the field.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from django import forms
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import User
from django.core.validators import MaxLengthValidator
from django.forms import BoundField

from . import validators
from .auth.roles import Caller, Role
from .errors import PortError, Stale
from .models import Mode, PortAllocation, Project, Status

R = TypeVar("R")
UNPROCESSABLE, CONFLICT = 422, 409


# Fields


class ParsedField(forms.CharField):
    """A text field whose text one of the validators turns into a value. Empty text becomes None."""

    def parse(self, text: str) -> Any:
        """Return the value of the text, or raise InvalidValue."""
        raise NotImplementedError

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        try:
            return self.parse(text) if text else None
        except PortError as error:
            raise forms.ValidationError(error.sentence, code=error.code) from None


class NumberField(ParsedField):
    """A number in ASCII digits. int() would also accept digits of other scripts, underscores and signs."""

    def __init__(self, **kwargs: Any) -> None:
        attributes = {"inputmode": "numeric", "pattern": "[0-9]{1,5}", "maxlength": 5, "autocomplete": "off"}
        super().__init__(widget=forms.TextInput(attrs=attributes), **kwargs)


class PortField(NumberField):
    """A port number."""

    def parse(self, text: str) -> int:
        return validators.parse_port_number(text)


class SizeField(NumberField):
    """How many ports a range has."""

    def parse(self, text: str) -> int:
        return validators.parse_size(text)


class QuotaField(NumberField):
    """How many ports each token may hold."""

    def parse(self, text: str) -> int:
        return validators.agent_quota(int(text) if re.fullmatch(r"[0-9]{1,6}", text) else text)


class ExpiryField(ParsedField):
    """When something expires: `7d` or a date. Empty text means never."""

    def parse(self, text: str) -> Any:
        return validators.parse_expires_at(text)


def _text_area() -> forms.Textarea:
    return forms.Textarea(attrs={"rows": 2})


def _allocation_field(column: str, **options: Any) -> Any:
    """Return the form field of a column of an allocation, with the label and the length of the model's field."""
    return PortAllocation._meta.get_field(column).formfield(**options)  # type: ignore[union-attr]


# What every form shares


class OperationMixin(forms.BaseForm):
    """Show the refusal of an operation in the form."""

    def field_for(self, error: PortError) -> str:
        """Return the field that a refusal is about, or an empty string if this form does not have it."""
        return error.field if error.field in self.fields else ""

    def add_refusal(self, error: PortError) -> None:
        """Show a refusal beside its field, or above the form."""
        self.add_error(self.field_for(error) or None, error.sentence)


class PortForm(OperationMixin, forms.Form):
    """A form that runs an operation. The operation performs the final validation."""

    _refusal_status = UNPROCESSABLE

    @property
    def status(self) -> int:
        """Return the HTTP status of the page that shows the form."""
        return self._refusal_status if self.errors else 200

    def attempt(self, operation: Callable[..., R], *args: Any) -> R | None:
        """Run an operation with the values of the form, and return its result.

        Args:
            operation: a function that takes the fields of the form as keyword arguments.
            *args: its positional arguments.

        Returns:
            None if a value is not valid or the operation refuses it; the form says why.

        Raises:
            NotPermitted, NotFound, Unavailable: the operation is refused, but not because of a value in the form.
        """
        if not self.is_valid():
            return None
        try:
            return operation(*args, **self.cleaned_data)
        except PortError as error:
            if error.status in (403, 404, 503) and not self.field_for(error):
                raise
            self._refusal_status = CONFLICT if error.status in (CONFLICT, Stale.status) else UNPROCESSABLE
            self.add_refusal(error)
            return None


class StaleMixin(OperationMixin):
    """Show what somebody else has changed since a form was opened, beside the values that were entered.

    The form has a field `version`. Its initial values are those of the moment when it is sent, so they show what it
    would overwrite.
    """

    def add_refusal(self, error: PortError) -> None:
        if isinstance(error, Stale):
            self._show_both(error)
        else:
            super().add_refusal(error)

    def _show_both(self, error: Stale) -> None:
        """Show the current values beside those that were entered. Sending the form again replaces them."""
        self.add_error(
            None, "Somebody has changed this since you opened the form. Save again to replace it with your values."
        )
        for name in self.changed_data:
            if name != "version":
                current = self[name].initial
                self.add_error(name, f"It is now: {'empty' if current in (None, '') else current}.")
        data = self.data.copy()  # type: ignore[attr-defined]
        data[self.add_prefix("version")] = self.initial.get("version", "")
        self.data = data


class EditingForm(StaleMixin, PortForm):
    """A form that changes something, and refuses to overwrite what somebody else has changed since it was opened."""

    version = forms.CharField(required=False, widget=forms.HiddenInput)

    def attempt(self, operation: Callable[..., R], *args: Any) -> R | None:
        def run(*args: Any, version: str, **values: Any) -> R:
            return operation(*args, expected={version} if version else None, **values)

        return super().attempt(run, *args)


# Ports


class DetailsForm(PortForm):
    """The details of an allocation. See `allocation_spec.DETAILS`."""

    service_type = _allocation_field("service_type", help_text="Such as api, web or database.")
    description = _allocation_field("description", widget=_text_area())
    owner = _allocation_field("owner", help_text="The person or team to ask.")
    cloudflare_hostname = _allocation_field("cloudflare_hostname")


class SocketForm(PortForm):
    """The host and the protocol of a port."""

    hostname = _allocation_field("hostname", required=False)
    protocol = forms.ChoiceField(choices=[(p, p) for p in validators.PROTOCOLS], initial=validators.TCP, required=False)


class AllocateForm(DetailsForm, SocketForm):
    """A port for a service."""

    service_name = _allocation_field("service_name", required=True)
    port_number = PortField(label="Port", required=False, help_text="Leave empty for the lowest free port.")
    range_name = forms.CharField(
        label="Range",
        required=False,
        max_length=255,
        help_text="Leave empty for the project's own ranges, or name a shared range.",
    )
    # What the page shows at once. The other fields are folded away.
    FIRST_FIELDS = ("service_name", "port_number", "service_type")
    field_order = (*FIRST_FIELDS, *DetailsForm.base_fields, "range_name", *SocketForm.base_fields)

    @property
    def first_fields(self) -> list[BoundField]:
        """Return the fields that the page shows at once."""
        return [self[name] for name in self.FIRST_FIELDS]

    @property
    def more_fields(self) -> list[BoundField]:
        """Return the fields that the page shows on demand."""
        return [self[name] for name in self.fields if name not in self.FIRST_FIELDS]

    @property
    def has_more_errors(self) -> bool:
        """Return whether a field that the page shows on demand has an error."""
        return any(field.errors for field in self.more_fields)


class AdoptForm(DetailsForm, SocketForm):
    """A port for a service that is already listening on it."""

    project = forms.CharField(max_length=255)
    service_name = _allocation_field("service_name", required=True)
    port_number = PortField(label="Port")


class EditForm(EditingForm, DetailsForm):
    """The name and the details of a service's allocation."""

    service_name = _allocation_field("service_name", required=True)
    field_order = ("service_name",)


class ReserveForm(SocketForm):
    """Ports to reserve."""

    start_port = PortField(label="Start port")
    end_port = PortField(label="End port", required=False, help_text="Leave empty to reserve one port.")
    description = forms.CharField(label="Note", required=False, widget=_text_area())
    expires_at = ExpiryField(
        label="Expires", required=False, help_text="Such as 7d or 2027-01-31. Leave empty if it never expires."
    )
    field_order = ("start_port", "end_port", "description", "expires_at")

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        if values.get("end_port") is None:
            values["end_port"] = values.get("start_port")
        return values

    def field_for(self, error: PortError) -> str:
        # The operation refuses one port of the block by its number, but the form asks where the block starts.
        return "start_port" if error.field == "port_number" else super().field_for(error)


class EditReservationForm(EditingForm):
    """The note and the expiry of a reservation."""

    field_order = ("description", "expires_at")

    description = forms.CharField(label="Note", required=False, widget=_text_area())
    expires_at = ExpiryField(
        label="Expires", required=False, help_text="Such as 7d or 2027-01-31. Leave empty if it never expires."
    )


class FilterForm(forms.Form):
    """The filters of a table of allocations. A filter that is not valid is ignored."""

    q = forms.CharField(label="Text", required=False, max_length=255)
    status = forms.ChoiceField(required=False, choices=[("", "held"), *((s, s) for s in Status.values), ("all", "all")])
    hostname = forms.CharField(label="Host", required=False, max_length=255)
    protocol = forms.ChoiceField(required=False, choices=[("", "any"), *((p, p) for p in validators.PROTOCOLS)])


# Projects and ranges


def project_names(caller: Caller) -> list[str]:
    """Return the names of the projects that a form offers to the caller."""
    return list(Project.objects.visible_to(caller).values_list("name", flat=True))


class RangeForm(PortForm):
    """A range of a project."""

    project = forms.CharField(max_length=255, widget=forms.TextInput(attrs={"list": "projects", "autocomplete": "off"}))
    range_name = forms.CharField(label="Name", max_length=255)
    start_port = PortField(label="Start port")
    end_port = PortField(label="End port")
    description = forms.CharField(required=False, widget=_text_area())
    is_shared = forms.BooleanField(label="Shared", required=False, help_text="Other projects may use it by name.")
    is_active = forms.BooleanField(
        label="Active", required=False, initial=True, help_text="Ports are allocated from it."
    )


class EditRangeForm(EditingForm, RangeForm):
    """A range that exists."""


class NewRangeForm(OperationMixin, forms.Form):
    """The range of a new project, for the dashboard and the admin."""

    size = SizeField(initial=str(validators.DEFAULT_RANGE_SIZE), help_text="How many ports its range has.")
    start_port = PortField(
        label="Start port", required=False, help_text="Leave empty for the next free block of ports."
    )
    is_shared = forms.BooleanField(
        label="Shared", required=False, help_text="Other projects may use its range by name."
    )

    def field_for(self, error: PortError) -> str:
        # The range gets the name of the project.
        return "name" if error.field == "range_name" else super().field_for(error)


class ProjectForm(NewRangeForm, PortForm):
    """A new project with a range."""

    name = forms.CharField(max_length=255)
    description = forms.CharField(required=False, widget=_text_area())
    field_order = ("name", "description", *NewRangeForm.base_fields)


class EditProjectForm(EditingForm):
    """The name and the details of a project, and what agents may do in it."""

    name = forms.CharField(max_length=255)
    mode = forms.ChoiceField(
        label="Agents",
        choices=Mode.choices,
        help_text="With ask, a person approves each port that an agent requests.",
    )
    agent_quota = QuotaField(
        label="Ports per token",
        required=False,
        help_text="How many ports each token may hold. Leave empty for no limit.",
    )
    description = forms.CharField(required=False, widget=_text_area())


# Tokens


class TokenForm(PortForm):
    """A new token of the caller."""

    name = forms.CharField(max_length=100, help_text="What it is for. The history shows it.")
    role = forms.ChoiceField()
    projects = forms.MultipleChoiceField(required=False, help_text="Select none for all your projects.")
    expires_at = ExpiryField(label="Expires", initial="90d", help_text="Such as 30d, 12h, or a date within a year.")

    def __init__(self, *args: Any, caller: Caller, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["role"] = forms.ChoiceField(choices=token_roles(caller), initial="viewer")
        names = [(name, name) for name in project_names(caller)]
        self.fields["projects"].choices = names  # type: ignore[attr-defined]

    def clean_projects(self) -> list[str] | None:
        return self.cleaned_data["projects"] or None


def token_roles(caller: Caller) -> list[tuple[str, str]]:
    """Return the roles that a token of the caller can have, as choices."""
    labels = {
        Role.SCRAPER: "scraper: reads the metrics and nothing else",
        Role.VIEWER: "viewer: reads",
        Role.OPERATOR: "operator: also allocates, reserves and releases ports",
        Role.ADMIN: "admin: also edits projects and ranges",
    }
    return [(role.label, label) for role, label in labels.items() if role.limited_to(caller.role) is role]


class ConnectForm(PortForm):
    """The project that an agent works in."""

    def __init__(self, *args: Any, caller: Caller, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["project"] = forms.ChoiceField(
            choices=[(name, name) for name in project_names(caller)],
            help_text="The agent gets ports of this project and cannot see any other.",
        )


# Logging in


class LoginForm(AuthenticationForm):
    """The login form. No user name is longer than a user name can be, and nothing counts attempts with such a name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Django sets `max_length` for the browser, but does not check it.
        self.fields["username"].validators.append(MaxLengthValidator(User._meta.get_field("username").max_length))


class AdminLoginForm(LoginForm, AdminAuthenticationForm):
    """The login form of the Django admin."""

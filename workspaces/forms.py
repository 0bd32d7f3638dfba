"""Forms of the settings pages, and those of the operators' console."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from django import forms
from django.contrib.auth.forms import BaseUserCreationForm, UserChangeForm
from django.core.exceptions import ValidationError
from django.utils import timezone

from opsmeter_site.lib.clock import utc_now
from workspaces.audit_words import action_label, name_of
from workspaces.models import ApiKey, Membership, Role, Scope, User, Workspace
from workspaces.selectors import TrailFilter
from workspaces.zones import zone_choices

TOKEN_DAYS = (7, 30, 90, 365)
USUAL_TOKEN_DAYS = 90
GRACES = (
    (timedelta(0), "None: the old secret stops at once"),
    (timedelta(hours=1), "1 hour"),
    (timedelta(hours=24), "24 hours"),
    (timedelta(days=7), "7 days"),
)
USUAL_GRACE = timedelta(hours=24)
_EARLIEST_DAY, _LATEST_DAY = date(2000, 1, 1), date(2100, 1, 1)


class LocalMomentField(forms.DateTimeField):
    """A moment typed as wall time of a zone; a text with an offset of its own keeps it."""

    def __init__(self, zone: ZoneInfo, **kwargs: Any) -> None:
        self.zone = zone
        widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
        super().__init__(widget=widget, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        """The moment as wall time of the zone."""
        return value.astimezone(self.zone).replace(tzinfo=None) if isinstance(value, datetime) else value

    def to_python(self, value: Any) -> datetime | None:
        """The aware moment; refused where clocks change and the time exists twice or never."""
        with timezone.override(self.zone):
            return super().to_python(value)


def _offer(form: forms.Form, name: str, choices: Sequence[Any]) -> None:
    field = form.fields[name]
    if isinstance(field, forms.ChoiceField):
        field.choices = choices


class GeneralForm(forms.Form):
    """Name and timezone. Only what was changed in this form counts, so that two open tabs do not undo each other."""

    name = forms.CharField(max_length=100, show_hidden_initial=True)
    timezone = forms.ChoiceField(show_hidden_initial=True)
    confirmed = forms.BooleanField(required=False, widget=forms.HiddenInput)

    def __init__(self, workspace: Workspace, data: Mapping[str, Any] | None = None) -> None:
        current, now = str(workspace.timezone), utc_now()
        super().__init__(data, initial={"name": workspace.name, "timezone": current})
        _offer(self, "timezone", zone_choices(current, now))
        self.fields["timezone"].help_text = (
            f"It is {now.astimezone(ZoneInfo(current)):%H:%M} in {current} now. "
            "Charts, tables and summaries use this zone; budgets and plan limits count UTC days and months."
        )

    def changes(self) -> dict[str, str]:
        """What the person changed. Only for a valid form."""
        return {name: self.cleaned_data[name] for name in ("name", "timezone") if name in self.changed_data}

    def confirmed_on_return(self) -> "GeneralForm":
        """The form out of sight, on a page that asks a second time; what comes back counts as confirmed."""
        for field in self.fields.values():
            field.widget = field.hidden_widget()
        self.data = {**{name: self.data[name] for name in self.data}, "confirmed": "yes"}
        return self


class InvitationForm(forms.Form):
    """Whom to invite, and as what."""

    email = forms.EmailField(
        label="E-mail address", max_length=254, widget=forms.EmailInput(attrs={"autocomplete": "off"})
    )
    role = forms.ChoiceField(initial=Role.MEMBER)

    def __init__(self, roles: Sequence[Role], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _offer(self, "role", [(role.value, role.label) for role in roles])


class RoleForm(forms.Form):
    """Another role; `was` is the one that the page showed. Both are among `roles`, so that nothing else is changed."""

    role = forms.ChoiceField()
    was = forms.ChoiceField(widget=forms.HiddenInput)

    def __init__(self, roles: Sequence[Role], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("role", "was"):
            _offer(self, name, [(role.value, role.label) for role in roles])


class ExpiryForm(forms.Form):
    """When a key stops working."""

    def __init__(self, zone: ZoneInfo, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["expires_at"] = LocalMomentField(
            zone, required=False, label="Expires", help_text=f"Empty: never. Time in {zone}."
        )


class KeyForm(ExpiryForm):
    """A new API key."""

    name = forms.CharField(max_length=100, help_text="The service that will send with it.")


class RotationForm(forms.Form):
    """For how long the old secret of a key is accepted too; `lookup` names the secret that the page showed."""

    grace = forms.TypedChoiceField(
        choices=[(int(span.total_seconds()), label) for span, label in GRACES],
        coerce=lambda seconds: timedelta(seconds=int(seconds)),
        initial=int(USUAL_GRACE.total_seconds()),
        label="Time for changing over",
        help_text="Until then both secrets work.",
    )
    lookup = forms.CharField(widget=forms.HiddenInput)


class TokenForm(forms.Form):
    """A new personal access token."""

    name = forms.CharField(max_length=100, help_text="What will use it, such as a script.")
    scopes = forms.TypedChoiceField(
        label="May",
        choices=[(Scope.READ.value, "Read"), (Scope.WRITE.value, "Read and change what your role may change")],
        coerce=lambda scope: [Scope.READ] if scope == Scope.READ else [Scope.READ, Scope.WRITE],
        initial=Scope.READ.value,
        widget=forms.RadioSelect,
    )
    expires = forms.TypedChoiceField(
        choices=[*((days, f"In {days} days") for days in TOKEN_DAYS), ("", "Never")],
        coerce=int,
        empty_value=None,
        required=False,
        initial=USUAL_TOKEN_DAYS,
    )

    def expires_at(self) -> datetime | None:
        """The moment of expiry. Only for a valid form."""
        days = self.cleaned_data["expires"]
        return None if days is None else utc_now() + timedelta(days=days)


class TrailForm(forms.Form):
    """Filters of the audit trail."""

    action = forms.ChoiceField(required=False)
    person = forms.TypedChoiceField(required=False, coerce=int, empty_value=None)
    from_day = forms.DateField(required=False, label="From", widget=forms.DateInput(attrs={"type": "date"}))
    to_day = forms.DateField(required=False, label="To", widget=forms.DateInput(attrs={"type": "date"}))

    def __init__(self, actions: Sequence[str], people: Sequence[User], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        by_label = sorted((action_label(action), action) for action in actions)
        _offer(self, "action", [("", "All"), *((action, label) for label, action in by_label)])
        _offer(self, "person", [("", "Everybody"), *((person.pk, name_of(person)) for person in people)])

    def clean(self) -> dict[str, Any]:
        """The days in order, and of this century."""
        data = self.cleaned_data
        first, last = data.get("from_day"), data.get("to_day")
        if first is not None and last is not None and first > last:
            self.add_error("to_day", "This is before the first day.")
        for name, day in (("from_day", first), ("to_day", last)):
            if day is not None and not _EARLIEST_DAY <= day < _LATEST_DAY:
                self.add_error(name, "A day between 2000 and 2100.")
        return data

    def wanted(self) -> TrailFilter:
        """The filter; what makes no sense filters nothing."""
        data = self.cleaned_data
        return TrailFilter(
            action=data.get("action", ""),
            person_id=data.get("person"),
            first_day=data.get("from_day"),
            last_day=data.get("to_day"),
        )


# --- The operators' console -------------------------------------------------------------------------------------------


class NewUserForm(BaseUserCreationForm):  # type: ignore[type-arg]
    """A new person: address, name and password."""

    class Meta:
        model = User
        fields = ("email", "name", "is_staff")
        field_classes: ClassVar[dict[str, type[forms.Field]]] = {}

    def clean_email(self) -> str:
        """The address as it is stored: in lower case."""
        return str(self.cleaned_data["email"]).lower()


class UserForm(UserChangeForm):  # type: ignore[type-arg]
    """A person; the password has a page of its own."""

    class Meta:
        model = User
        fields = "__all__"
        field_classes: ClassVar[dict[str, type[forms.Field]]] = {}

    def clean_email(self) -> str:
        """The address as it is stored: in lower case."""
        return str(self.cleaned_data["email"]).lower()


class MembershipForm(forms.ModelForm):  # type: ignore[type-arg]
    """A member's role. Another person is another membership."""

    class Meta:
        model = Membership
        fields = ("user", "role")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["user"].disabled = self.instance.pk is not None


class ApiKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    """A new key, or another expiry of an old one."""

    class Meta:
        model = ApiKey
        fields = ("workspace", "name", "expires_at")

    def clean_expires_at(self) -> object:
        """A moment ahead, or none."""
        expires_at = self.cleaned_data["expires_at"]
        if expires_at is not None and "expires_at" in self.changed_data and expires_at <= utc_now():
            raise ValidationError("A moment in the future.")
        return expires_at

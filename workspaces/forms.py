"""Forms of the operators' console."""

from typing import Any, ClassVar

from django import forms
from django.contrib.auth.forms import BaseUserCreationForm, UserChangeForm
from django.core.exceptions import ValidationError

from opsmeter_site.lib.clock import utc_now
from workspaces.models import ApiKey, Membership, User


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

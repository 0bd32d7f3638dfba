"""django-allauth's forms in our words: labels that stay, one password field, help that fits on a line."""

from typing import Any, ClassVar

from allauth.account import forms as account
from allauth.account.models import EmailAddress
from allauth.mfa.base import forms as mfa
from allauth.mfa.totp import forms as totp
from allauth.socialaccount import forms as socialaccount
from django import forms
from django.db import transaction

from workspaces.accounts.adapters import yield_address
from workspaces.models import User

_LABELS = {
    "email": "E-mail address",
    "login": "E-mail address",
    "password": "Password",
    "oldpassword": "Current password",
    "code": "Code",
}
_NEW_PASSWORD_HELP = "At least 10 characters. Neither your address nor one of the passwords that everybody tries first."  # noqa: S105


class _OurWords:
    """Placeholders vanish while one types, so labels say it all; who can see the password need not type it twice."""

    fields: dict[str, forms.Field]
    first: ClassVar[str | None] = None  # the field that waits for the keyboard; None where there is more on the page
    new_password: ClassVar[str] = "New password"  # noqa: S105

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields.pop("password2", None)
        for name, field in self.fields.items():
            field.widget.attrs.pop("placeholder", None)
            field.label = _LABELS.get(name, field.label)
            if isinstance(field.widget, forms.PasswordInput):
                field.widget.attrs["data-password"] = ""
        if "password1" in self.fields:
            self.fields["password1"].label = self.new_password
            self.fields["password1"].help_text = _NEW_PASSWORD_HELP
        if self.first is not None:
            self.fields[self.first].widget.attrs["autofocus"] = True


class LoginForm(_OurWords, account.LoginForm):  # type: ignore[misc]
    """Address and password."""

    first = "login"


class SignupForm(_OurWords, account.SignupForm):  # type: ignore[misc]
    """A new person."""

    first = "email"
    new_password = "Password"  # noqa: S105

    def validate_unique_email(self, value: str) -> str:
        """Whether the address is taken is told to its owner only, by mail."""
        yield_address(value)
        return str(super().validate_unique_email(value))

    @transaction.atomic
    def save(self, request: Any) -> User:
        """The person and the address, both or none."""
        person: User = super().save(request)
        return person


class SocialSignupForm(_OurWords, socialaccount.SignupForm):  # type: ignore[misc]
    """The address of a new person whose provider does not tell it."""

    first = "email"


class AddEmailForm(_OurWords, account.AddEmailForm):  # type: ignore[misc]
    """The address that a person wants to change to."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["email"].label = "New e-mail address"


class ChangePasswordForm(_OurWords, account.ChangePasswordForm):  # type: ignore[misc]
    """For somebody who has one."""


class SetPasswordForm(_OurWords, account.SetPasswordForm):  # type: ignore[misc]
    """For somebody who has only signed in through a provider so far."""


class ReauthenticateForm(_OurWords, account.ReauthenticateForm):  # type: ignore[misc]
    """The password once more, before something that matters."""

    first = "password"


class ResetPasswordForm(_OurWords, account.ResetPasswordForm):  # type: ignore[misc]
    """Asks for the link."""

    first = "email"

    users: list[User]

    def clean_email(self) -> str:
        """Only a person's own address opens the account, not one that they want to change to."""
        email = str(super().clean_email())
        self.users = [user for user in self.users if user.email == email]
        return email


class ResetPasswordKeyForm(_OurWords, account.ResetPasswordKeyForm):  # type: ignore[misc]
    """What the link opens."""

    first = "password1"

    def save(self) -> None:
        """Whoever holds the link reads the person's mail, so the address is confirmed, too."""
        with transaction.atomic():
            super().save()
            own = EmailAddress.objects.filter(user=self.user, email=self.user.email)
            own.update(verified=True, primary=True)


class _Code(_OurWords):
    first: ClassVar[str | None] = "code"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["code"].widget.attrs["inputmode"] = "numeric"


class AuthenticateForm(_Code, mfa.AuthenticateForm):  # type: ignore[misc]
    """The second step of signing in."""


class CodeReauthenticateForm(_Code, mfa.ReauthenticateForm):  # type: ignore[misc]
    """A code once more, before something that matters."""


class ActivateTOTPForm(_Code, totp.ActivateTOTPForm):  # type: ignore[misc]
    """The first code of a new app; the page has the QR code above it."""

    first = None


class NewConfirmationForm(forms.Form):
    """Asks for another confirmation link."""

    email = forms.EmailField(
        label=_LABELS["email"], widget=forms.EmailInput(attrs={"autocomplete": "email", "autofocus": True})
    )

"""What django-allauth asks us while people sign up, sign in, and change how they do.

A person has one address: `User.email`. allauth's `EmailAddress` says whether it is confirmed, and may hold a second one
that the person wants to change to and that counts for nothing until then.
"""

from typing import Any, Final

import structlog
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.models import EmailAddress
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.usersessions.adapter import DefaultUserSessionsAdapter
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from opsmeter_site.lib.errors import InvalidInput
from opsmeter_site.lib.mail import NOT_MAILED
from opsmeter_site.lib.sealed import seal, unseal
from workspaces import inputs, services
from workspaces.invitations import PENDING_INVITATION, invitation_for_token
from workspaces.models import User

logger = structlog.get_logger(__name__)

# Whatever is worth a mail to the person is worth a line in the audit trail: allauth's mail → our action.
_AUDITED: Final = {
    "account/email/password_changed": "user.password_changed",
    "account/email/password_set": "user.password_changed",
    "account/email/password_reset": "user.password_changed",
    "mfa/email/totp_activated": "user.two_factor_turned_on",
    "mfa/email/totp_deactivated": "user.two_factor_turned_off",
    "mfa/email/recovery_codes_generated": "user.recovery_codes_replaced",
    "socialaccount/email/account_connected": "user.sign_in_connected",
    "socialaccount/email/account_disconnected": "user.sign_in_disconnected",
}


def yield_address(email: str) -> None:
    """Forget that others want to change to `email`: a wish keeps nobody out who comes with the address itself."""
    EmailAddress.objects.filter(email=email, verified=False).exclude(user__email=F("email")).delete()


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Signing up and in by address and password."""

    error_messages: Final = DefaultAccountAdapter.error_messages | {
        "duplicate_email": "This is your address already.",
        "email_password_mismatch": "This address and password do not belong together.",
        "enter_current_password": "This is not your current password.",
        "incorrect_password": "This is not your password.",
        "rate_limited": "Too many attempts. Please wait a minute.",
        "too_many_login_attempts": "Too many attempts. Please wait five minutes, or reset your password.",
    }

    def clean_email(self, email: str) -> str:
        """The address as it is stored; ValidationError for one that cannot be."""
        try:
            return inputs.clean_email(email)
        except InvalidInput as refusal:
            raise ValidationError([error.message for error in refusal.errors]) from refusal

    def is_email_verified(self, request: HttpRequest, email: str) -> bool:
        """Whoever follows an invitation's link reads the mail of the invited address."""
        token = request.session.get(PENDING_INVITATION)
        invitation = invitation_for_token(token) if token else None
        return invitation is not None and invitation.is_open and invitation.email == email.lower()

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        """Store a person who signs up."""
        try:
            return services.sign_up(email=form.cleaned_data["email"], password=form.cleaned_data["password1"])
        except InvalidInput as refusal:
            raise self.signed_up_meanwhile(request) from refusal

    def signed_up_meanwhile(self, request: HttpRequest) -> ImmediateHttpResponse:
        """The answer where the address was free a moment ago: most likely the button was pressed twice."""
        return ImmediateHttpResponse(self.respond_email_verification_sent(request, None))

    def pre_login(self, request: HttpRequest, user: User, **facts: Any) -> HttpResponse | None:
        """`manage.py createsuperuser` stores no address; whoever can run it is believed."""
        if user.is_superuser and not EmailAddress.objects.filter(user=user).exists():
            EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
        response: HttpResponse | None = super().pre_login(request, user, **facts)
        return response

    def confirm_email(self, request: HttpRequest, email_address: EmailAddress) -> bool:
        """Confirm the address of somebody who signed up, or move a person to the address they changed to.

        A change needs the person signed in: the link alone may have gone to a stranger, by a slip of the pen.
        """
        person = User.objects.get(pk=email_address.user_id)
        before, after = person.email, email_address.email
        if before != after and request.user != person:
            messages.info(request, "Sign in to confirm your new address.")
            raise ImmediateHttpResponse(redirect_to_login(request.get_full_path()))
        try:
            with transaction.atomic():
                if not super().confirm_email(request, email_address):
                    return False
                if before == after:
                    services.record_audit("user.address_confirmed", acting_user=person, target=after)
                else:
                    changed = {"email": [before, after]}
                    services.record_audit("user.changed", acting_user=person, target=after, data=changed)
        except IntegrityError:
            messages.error(request, f"Somebody else has signed up with {after} in the meantime.")
            return False
        return True

    def get_login_redirect_url(self, request: HttpRequest) -> str:
        """An invitation that waits goes first."""
        token = request.session.get(PENDING_INVITATION)
        return reverse("invitation", args=[token]) if token else str(super().get_login_redirect_url(request))

    def get_signup_redirect_url(self, request: HttpRequest) -> str:
        """Where somebody who signs in goes."""
        return self.get_login_redirect_url(request)

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """A mail server that is away is told to the person; what they did stays done."""
        try:
            super().send_mail(template_prefix, email, context)
        except NOT_MAILED as error:
            logger.warning("mail_not_sent", mail=template_prefix, error=type(error).__name__)
            messages.error(self.request, "The mail could not be sent. Please ask for it again in a few minutes.")

    def send_notification_mail(
        self, template_prefix: str, user: User, context: dict[str, Any] | None = None, email: str | None = None
    ) -> None:
        """Tell the person, and the audit trail, that something about the account has changed."""
        if template_prefix in _AUDITED:
            services.record_audit(_AUDITED[template_prefix], acting_user=user, target=user)
        super().send_notification_mail(template_prefix, user, context, email)


class SocialAccountAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """Signing in through the OpenID Connect provider of the installation."""

    error_messages: Final = DefaultSocialAccountAdapter.error_messages | {
        "no_password": "Set a password first: without one this is your only way in.",
    }

    def populate_user(self, request: HttpRequest, sociallogin: Any, data: dict[str, Any]) -> User:
        """What the provider says of the person. Its word on the address counts only where the installation trusts it.

        Some providers say "false" in quotes, which is true to Python.
        """
        trusted = sociallogin.provider.app.settings.get("email_authentication", False)
        for address in sociallogin.email_addresses:
            address.verified = trusted and address.verified is True
        person: User = super().populate_user(request, sociallogin, data)
        name = str(data.get("name") or "")
        person.name = "".join(character for character in name if character.isprintable())[:150]
        return person

    def authenticate_by_email(self, sociallogin: Any) -> tuple[User, str] | None:
        """The person with an address that a trusted provider vouches for; never one who only wants to change to it."""
        for address in sociallogin.email_addresses:
            if address.verified and self.can_authenticate_by_email(sociallogin, address.email):
                person = User.objects.filter(email=address.email).first()
                if person is not None:
                    return person, address.email
        return None

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """Somebody new comes with an address."""
        if not sociallogin.is_existing:
            for address in sociallogin.email_addresses:
                yield_address(address.email)

    def save_user(self, request: HttpRequest, sociallogin: Any, form: Any = None) -> User:
        """Store a person who signs up through the provider."""
        email = form.cleaned_data["email"] if form else sociallogin.user.email
        try:
            with transaction.atomic():
                person = services.sign_up(email=email, password=None, name=sociallogin.user.name)
                sociallogin.user = person
                sociallogin.save(request)
        except InvalidInput as refusal:
            raise AccountAdapter(request).signed_up_meanwhile(request) from refusal
        return person


class MfaAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Two-factor sign-in."""

    error_messages: Final = DefaultMFAAdapter.error_messages | {
        "cannot_generate_recovery_codes": "Turn on two-factor sign-in first; the codes come with it.",
        "incorrect_code": "This code is not right. Codes of the app change every 30 seconds and work once.",
        "unverified_email": "You are changing your address. Confirm the new one first, or keep the old one.",
    }

    def encrypt(self, text: str) -> str:
        """How the secrets of an authenticator are stored."""
        return seal(text)

    def decrypt(self, encrypted_text: str) -> str:
        """Counterpart of `encrypt`."""
        return unseal(encrypted_text)


class UserSessionsAdapter(DefaultUserSessionsAdapter):  # type: ignore[misc]
    """Sessions that a person ends."""

    def end_sessions(self, sessions: Any) -> None:
        """Sign out those browsers."""
        with transaction.atomic():
            super().end_sessions(sessions)
            if sessions:
                person = sessions[0].user
                services.record_audit(
                    "user.sessions_ended", acting_user=person, target=person, data={"sessions": len(sessions)}
                )

"""Where django-allauth has no page, or ours is kinder to old tabs and second presses."""

from typing import Any

from allauth.account import app_settings
from allauth.account.models import EmailAddress
from allauth.account.views import ConfirmEmailView
from allauth.core import ratelimit
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.views import DownloadRecoveryCodesView, ViewRecoveryCodesView
from allauth.mfa.totp.views import ActivateTOTPView, DeactivateTOTPView
from allauth.mfa.utils import is_mfa_enabled
from allauth.usersessions.models import UserSession
from allauth.usersessions.views import ListUserSessionsView
from django.contrib import messages
from django.contrib.auth import HASH_SESSION_KEY
from django.contrib.auth.decorators import login_not_required
from django.contrib.sessions.models import Session
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods
from django.views.generic.edit import FormView

from opsmeter_site.lib.clock import utc_now
from workspaces.accounts.forms import NewConfirmationForm
from workspaces.models import User

# --- Confirming an address --------------------------------------------------------------------------------------------


class Confirm(ConfirmEmailView):  # type: ignore[misc]
    """What a confirmation link opens."""

    def post(self, *args: Any, **kwargs: Any) -> HttpResponse:
        """Confirm; pressed again, the page says that the link is used up."""
        try:
            response: HttpResponse = super().post(*args, **kwargs)
        except Http404:
            return redirect(self.request.path)
        return response


@login_not_required
@require_http_methods(["GET", "POST"])
def new_confirmation(request: HttpRequest) -> HttpResponse:
    """Send another confirmation link: to a typed address, or with `key` to the one that an old link was sent to.

    The answer is the same whether or not the address waits to be confirmed, so it tells strangers nothing.
    """
    old = _address_of_link(request.POST.get("key", ""))
    if old is not None:
        return _send(request, old)
    form = NewConfirmationForm(request.POST or None, initial={"email": request.GET.get("email", "")})
    if request.method == "POST" and form.is_valid():
        waiting = EmailAddress.objects.filter(email=form.cleaned_data["email"].lower(), verified=False)
        return _send(request, waiting.order_by("-primary").first())
    return render(request, "account/new_confirmation.html", {"form": form}, status=422 if form.errors else 200)


def _address_of_link(key: str) -> EmailAddress | None:
    """The address that a link of ours was sent to, however long ago; None for one that is not ours."""
    try:
        pk = signing.loads(key, salt=app_settings.SALT)
    except signing.BadSignature:
        return None
    return EmailAddress.objects.filter(pk=pk).first()


def _send(request: HttpRequest, address: EmailAddress | None) -> HttpResponse:
    if address is not None and address.verified:
        messages.success(request, f"{address.email} is confirmed already: you can sign in.")
        return redirect("account_login")
    # The limit that allauth keeps for its own confirmation mails.
    if address is not None and ratelimit.consume(request, action="confirm_email", key=address.email):
        address.send_confirmation(request, signup=address.email == address.user.email)
    return redirect("account_email_verification_sent")


# --- Two-factor sign-in -----------------------------------------------------------------------------------------------


class TurnOn(ActivateTOTPView):  # type: ignore[misc]
    """The QR code and the first code."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Turned on already, in another tab, it is not offered to be turned off."""
        if is_mfa_enabled(request.user, [Authenticator.Type.TOTP]):
            return redirect("mfa_index")
        response: HttpResponse = super().dispatch(request, *args, **kwargs)
        return response


class _OnlyWhileOn:
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Turned off already, in another tab, there is nothing to see here."""
        try:
            response: HttpResponse = super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
        except Http404:
            return redirect("mfa_index")
        return response


class TurnOff(_OnlyWhileOn, DeactivateTOTPView):  # type: ignore[misc]
    """The second question before it is turned off."""


class RecoveryCodes(_OnlyWhileOn, ViewRecoveryCodesView):  # type: ignore[misc]
    """The codes that are left."""


class RecoveryCodesFile(_OnlyWhileOn, DownloadRecoveryCodesView):  # type: ignore[misc]
    """The same as a file."""


# --- Sessions ---------------------------------------------------------------------------------------------------------


class Sessions(ListUserSessionsView):  # type: ignore[misc]
    """Where a person is signed in. allauth's own page asks three questions per session; this one asks two in all."""

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """The sessions, the latest first."""
        sessions = _live_sessions(self.request.user)
        return FormView.get_context_data(self, sessions=sessions, session_count=len(sessions), **kwargs)


def _live_sessions(user: User) -> list[UserSession]:
    """Those that still open something: neither expired nor from before the latest password."""
    known = {each.session_key: each for each in UserSession.objects.filter(user=user).order_by("-created_at")}
    stored = Session.objects.filter(session_key__in=known, expire_date__gt=utc_now())
    stamp = user.get_session_auth_hash()
    live = {each.session_key for each in stored if each.get_decoded().get(HASH_SESSION_KEY) == stamp}
    return [each for key, each in known.items() if key in live]

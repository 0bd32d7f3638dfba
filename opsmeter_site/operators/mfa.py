"""The operators' console asks for a second factor: one that is set up, and that this very session has shown.

The second half matters: a session from before the set-up was opened with a password alone.
"""

from typing import Any

from allauth.account.authentication import get_authentication_records
from allauth.mfa.models import Authenticator
from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode

from workspaces.accounts.views import TurnOn

SET_UP = "mfa_activate_totp"
SHOW = "mfa_reauthenticate"

_KINDS = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)
# Session keys: where the operator wanted to go, and that the session has shown the factor while setting it up.
_RETURN_TO = "operators_return_to"
_SHOWN = "operators_factor_shown"


def missing_step(request: HttpRequest) -> str:
    """The URL name of what the signed-in person has to do before the console opens; "" for nothing."""
    if not settings.OPERATORS_NEED_MFA:
        return ""
    if not is_mfa_enabled(request.user, _KINDS):
        return SET_UP
    shown = request.session.get(_SHOWN) or any(
        record.get("method") == "mfa" for record in get_authentication_records(request, request.user)
    )
    return "" if shown else SHOW


def send_to(request: HttpRequest, step: str, return_to: str) -> HttpResponse:
    """Send an operator to a missing step, say why, and remember the way back."""
    if step == SHOW:
        messages.info(request, "The operators’ console needs a code, because this session was opened without one.")
        return HttpResponseRedirect(f"{reverse(SHOW)}?{urlencode({'next': return_to})}")
    messages.info(
        request,
        "The operators’ console shows every customer, so it needs two-factor sign-in. "
        "Turn it on here; afterwards you go on to where you wanted to go.",
    )
    request.session[_RETURN_TO] = return_to
    return HttpResponseRedirect(reverse(SET_UP))


class TurnOnForConsole(TurnOn):
    """The page that everybody has. Operators who came from the console are led back, past their recovery codes."""

    def form_valid(self, form: Any) -> HttpResponse:
        """Activate; the code that was just typed counts as shown in this session."""
        response: HttpResponse = super().form_valid(form)
        self.request.session[_SHOWN] = True
        return_to = self.request.session.pop(_RETURN_TO, None)
        if return_to is None:
            return response
        if not self.did_generate_recovery_codes:
            return HttpResponseRedirect(return_to)
        text = 'Keep these recovery codes, then <a href="{}">go on to the operators’ console</a>.'
        messages.success(self.request, format_html(text, return_to))
        return response


turn_on = TurnOnForConsole.as_view()

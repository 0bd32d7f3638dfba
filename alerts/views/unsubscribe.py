"""Leaving: one click, and a way back. Nobody needs to sign in; the link's token is the proof."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST

from alerts import unsubscribing


@login_not_required
@csrf_exempt
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """Asks by GET, because scanners open every link of a mail; ends mail by POST, as mail programs do by RFC 8058."""
    wanted = unsubscribing.subscription_for_token(token)
    if wanted is None:
        return _unknown(request)
    if request.method == "POST":
        unsubscribing.unsubscribe(wanted, acting_user=None)
    return _page(request, token, wanted)


@login_not_required
@csrf_exempt
@never_cache
@require_POST
def subscribe_again(request: HttpRequest, token: str) -> HttpResponse:
    """The way back, for who pressed the button by mistake."""
    wanted = unsubscribing.subscription_for_token(token)
    if wanted is None:
        return _unknown(request)
    unsubscribing.subscribe_again(wanted, acting_user=None)
    return _page(request, token, wanted)


def _page(request: HttpRequest, token: str, wanted: unsubscribing.Subscription) -> HttpResponse:
    context = {
        "token": token,
        "wanted": wanted,
        "opt_out": unsubscribing.opt_out_of(wanted),
        "is_back": request.resolver_match is not None and request.resolver_match.url_name == "subscribe-again",
    }
    return render(request, "alerts/unsubscribe.html", context)


def _unknown(request: HttpRequest) -> HttpResponse:
    return render(request, "alerts/unsubscribe_unknown.html", status=404)


site_urlpatterns = [
    path("mail/unsubscribe/<str:token>/", unsubscribe, name="unsubscribe"),
    path("mail/subscribe/<str:token>/", subscribe_again, name="subscribe-again"),
]

"""Who gets what at every address outside workspaces and outside the API. An address without a row fails the test."""

from collections.abc import Iterator

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from tests.factories import UserFactory
from tests.test_access_table import ELSEWHERE

# Path, as the URL table has it → (an address, status for nobody, status for a person who has just signed up).
# 302 for nobody leads to signing in, unless the row says where else.
TABLE = {
    "/workspaces/new/": ("/workspaces/new/", 302, 200),
    "/docs/": ("/docs/", 200, 200),
    "/docs/<slug:page>/": ("/docs/limits/", 200, 200),
    "/outbox/": ("/outbox/", 404, 404),
    "/outbox/<str:mail_id>/": ("/outbox/1/", 404, 404),
    "/outbox/<str:mail_id>/html/": ("/outbox/1/html/", 404, 404),
    "/mail/confirm/<str:token>/": ("/mail/confirm/nothing/", 404, 404),
    "/mail/unsubscribe/<str:token>/": ("/mail/unsubscribe/nothing/", 404, 404),
    "/mail/subscribe/<str:token>/": ("/mail/subscribe/nothing/", 405, 405),
    "/invitations/<str:token>/": ("/invitations/om_inv_nothing_here/", 404, 404),
    "/accounts/login/": ("/accounts/login/", 200, 302),
    "/accounts/signup/": ("/accounts/signup/", 200, 302),
    "/accounts/logout/": ("/accounts/logout/", 302, 200),
    "/accounts/inactive/": ("/accounts/inactive/", 200, 200),
    "/accounts/confirm-email/": ("/accounts/confirm-email/", 200, 200),
    "/accounts/confirm-email/new/": ("/accounts/confirm-email/new/", 200, 200),
    r"/accounts/^confirm-email/(?P<key>[-:\w]+)/$": ("/accounts/confirm-email/nothing/", 200, 200),
    "/accounts/password/reset/": ("/accounts/password/reset/", 200, 200),
    "/accounts/password/reset/done/": ("/accounts/password/reset/done/", 200, 200),
    "/accounts/password/reset/key/done/": ("/accounts/password/reset/key/done/", 200, 200),
    r"/accounts/^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$": (
        "/accounts/password/reset/key/1-nothing/",
        200,
        200,
    ),
    "/accounts/login/code/confirm/": ("/accounts/login/code/confirm/", 302, 302),
    "/accounts/reauthenticate/": ("/accounts/reauthenticate/", 302, 200),
    "/accounts/email/": ("/accounts/email/", 302, 200),
    "/accounts/password/change/": ("/accounts/password/change/", 302, 200),
    "/accounts/password/set/": ("/accounts/password/set/", 302, 302),
    "/accounts/2fa/": ("/accounts/2fa/", 302, 200),
    "/accounts/2fa/authenticate/": ("/accounts/2fa/authenticate/", 302, 302),
    "/accounts/2fa/reauthenticate/": ("/accounts/2fa/reauthenticate/", 302, 302),
    "/accounts/2fa/totp/activate/": ("/accounts/2fa/totp/activate/", 302, 302),
    "/accounts/2fa/totp/deactivate/": ("/accounts/2fa/totp/deactivate/", 302, 302),
    "/accounts/2fa/recovery-codes/": ("/accounts/2fa/recovery-codes/", 302, 302),
    "/accounts/2fa/recovery-codes/generate/": ("/accounts/2fa/recovery-codes/generate/", 302, 302),
    "/accounts/2fa/recovery-codes/download/": ("/accounts/2fa/recovery-codes/download/", 302, 302),
    "/accounts/sessions/": ("/accounts/sessions/", 302, 200),
    "/accounts/3rdparty/": ("/accounts/3rdparty/", 302, 200),
    "/accounts/3rdparty/login/cancelled/": ("/accounts/3rdparty/login/cancelled/", 200, 200),
    "/accounts/3rdparty/login/error/": ("/accounts/3rdparty/login/error/", 302, 401),
    "/accounts/3rdparty/signup/": ("/accounts/3rdparty/signup/", 302, 302),
    "/accounts/social/login/cancelled/": ("/accounts/social/login/cancelled/", 302, 301),
    "/accounts/social/login/error/": ("/accounts/social/login/error/", 302, 301),
    "/accounts/social/signup/": ("/accounts/social/signup/", 302, 301),
    "/accounts/social/connections/": ("/accounts/social/connections/", 302, 301),
    "/accounts/oidc/^(?P<provider_id>[^/]+)/login/": ("/accounts/oidc/nobody/login/", 404, 404),
    "/accounts/oidc/^(?P<provider_id>[^/]+)/login/callback/": ("/accounts/oidc/nobody/login/callback/", 404, 404),
}


def paths(patterns: list[URLPattern | URLResolver], prefix: str = "/") -> Iterator[str]:
    for pattern in patterns:
        route = str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from paths(pattern.url_patterns, prefix + route)
        else:
            yield prefix + route


def test_every_address_has_a_row():
    elsewhere = {"/w/", "/admin/"}
    here = tuple(prefix for prefix in ELSEWHERE if prefix not in elsewhere)
    assert {path for path in paths(get_resolver().url_patterns) if path.startswith(here)} == set(TABLE)


@pytest.mark.parametrize("row", TABLE)
def test_who_gets_what(committed, row):
    address, for_nobody, for_a_person = TABLE[row]
    person = Client()
    person.force_login(UserFactory())
    found = Client().get(address).status_code, person.get(address).status_code
    assert found == (for_nobody, for_a_person)

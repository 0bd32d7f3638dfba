import json
from datetime import timedelta

import pytest
import time_machine
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput, NotAllowed
from tests.factories import make_cast, make_workspace, token_for
from workspaces import services
from workspaces.authentication import (
    ApiKeyAuthentication,
    ApiKeyScheme,
    BearerAuthentication,
    BearerScheme,
    CanRead,
    CanWrite,
)
from workspaces.models import AccessToken, AuditEntry, Role

pytestmark = pytest.mark.django_db

START = "2026-03-10T12:00:00Z"


class _View(APIView):
    authentication_classes = (BearerAuthentication,)

    def get_permissions(self):
        return [CanRead()] if self.request.method == "GET" else [CanWrite()]

    def get(self, request):
        return Response({"workspace": str(request.auth.workspace.pk), "user": str(request.user)})

    put = get


class _KeyView(_View):
    authentication_classes = (ApiKeyAuthentication,)


class _OpenView(APIView):
    """Anybody may call it; credentials are optional."""

    authentication_classes = (BearerAuthentication, ApiKeyAuthentication)
    permission_classes = ()

    def get(self, request):
        return Response({"known": request.auth is not None})


def call(view, method="get", **headers):
    """The answer and, of a refusal, its machine-readable reason."""
    response = view.as_view()(getattr(APIRequestFactory(), method)("/v1/somewhere", headers=headers))
    return response, json.loads(response.render().content if hasattr(response, "render") else response.content).get(
        "reason"
    )


def bearer(view, plain, method="get"):
    return call(view, method, Authorization=f"Bearer {plain}")


@pytest.fixture
def cast():
    return make_cast()


def test_a_token_acts_as_its_person_in_its_workspace(cast):
    response, _ = bearer(_View, token_for(cast.member, cast.workspace))
    assert response.status_code == 200
    assert response.data == {"workspace": str(cast.workspace.pk), "user": cast.member.email}


def test_a_token_carries_role_scopes_and_id(cast):
    request = APIRequestFactory().get("/", headers={"Authorization": f"bearer {cast.opened.access_token_plain}"})
    user, access = BearerAuthentication().authenticate(APIView().initialize_request(request))
    assert user == cast.owner
    assert access.workspace == cast.workspace
    assert (access.role, access.scopes) == (Role.OWNER, {"read", "write"})
    assert access.token_id == cast.opened.access_token.pk


@pytest.mark.parametrize(
    ("role", "scopes", "read", "write"),
    [
        ("owner", ("read", "write"), 200, 200),
        ("owner", ("write",), 200, 200),
        ("owner", ("read",), 200, 403),
        ("admin", ("read", "write"), 200, 200),
        ("admin", ("read",), 200, 403),
        ("member", ("read", "write"), 200, 403),
        ("member", ("read",), 200, 403),
        ("viewer", ("read", "write"), 200, 403),
        ("viewer", ("read",), 200, 403),
    ],
)
def test_what_a_token_may_do_follows_from_scope_and_role(cast, role, scopes, read, write):
    plain = token_for(getattr(cast, role), cast.workspace, *scopes)
    assert bearer(_View, plain)[0].status_code == read
    response, reason = bearer(_View, plain, "put")
    assert response.status_code == write
    assert reason == ("not_allowed" if write == 403 else None)


@pytest.mark.parametrize("header", [{}, {"Authorization": ""}, {"Authorization": "Basic YTpi"}, {"X-API-Key": "x"}])
def test_without_a_token_the_answer_is_401_and_names_the_scheme(cast, header):
    response, reason = call(_View, **header)
    assert (response.status_code, reason) == (401, "missing_token")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("credential", ["Bearer", "Bearer ", "Bearer nonsense", "Bearer om_pat_é", "bearer a b c"])
def test_a_malformed_token_is_401(credential):
    response, reason = call(_View, Authorization=credential)
    assert (response.status_code, reason) == (401, "invalid_token")
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_wrong_secret_an_unknown_token_and_an_api_key_are_401(cast):
    plain = cast.opened.access_token_plain
    wrong = plain[:-1] + ("a" if plain[-1] != "a" else "b")
    for credential in (wrong, "om_pat_AAAAAAAA_" + "A" * 32, cast.opened.api_key_plain):
        assert bearer(_View, credential)[1] == "invalid_token"


def test_a_revoked_token_is_401(cast):
    services.revoke_access_token(cast.opened.access_token, acting_user=cast.owner)
    response, reason = bearer(_View, cast.opened.access_token_plain)
    assert (response.status_code, reason) == (401, "invalid_token")


def test_a_token_is_401_from_the_moment_of_its_expiry(cast):
    with time_machine.travel(START, tick=False) as clock:
        plain = token_for(cast.member, cast.workspace, expires_at=utc_now() + timedelta(hours=1))
        clock.shift(timedelta(minutes=59, seconds=59))
        assert bearer(_View, plain)[0].status_code == 200
        clock.shift(timedelta(seconds=1))
        assert bearer(_View, plain)[1] == "invalid_token"


def test_a_deactivated_persons_token_is_401(cast):
    services.update_user(cast.owner, is_active=False, acting_user=None)
    assert bearer(_View, cast.opened.access_token_plain)[1] == "invalid_token"


def test_the_token_of_a_former_member_is_401_and_stays_dead_when_they_come_back(cast):
    plain = token_for(cast.member, cast.workspace)
    services.remove_member(cast.workspace, cast.member, acting_user=cast.owner)
    assert bearer(_View, plain)[1] == "invalid_token"
    services.add_member(cast.workspace, cast.member, Role.MEMBER, acting_user=cast.owner)
    assert bearer(_View, plain)[1] == "invalid_token"


def test_a_lost_membership_closes_the_door_even_if_the_token_was_not_revoked(cast):
    cast.workspace.memberships.filter(user=cast.owner).delete()
    assert bearer(_View, cast.opened.access_token_plain)[1] == "invalid_token"


def test_a_changed_role_counts_from_the_next_request(cast):
    plain = token_for(cast.member, cast.workspace)
    assert bearer(_View, plain, "put")[0].status_code == 403
    services.change_role(cast.workspace, cast.member, Role.ADMIN, acting_user=cast.owner)
    assert bearer(_View, plain, "put")[0].status_code == 200


def test_a_tokens_last_use_is_stored_at_most_once_a_minute(cast, django_assert_num_queries):
    with time_machine.travel(START, tick=False) as clock:
        plain, token = cast.opened.access_token_plain, cast.opened.access_token
        with django_assert_num_queries(3):
            bearer(_View, plain)
        clock.shift(timedelta(seconds=59))
        with django_assert_num_queries(2):
            bearer(_View, plain)
        token.refresh_from_db()
        assert token.last_used_at == utc_now() - timedelta(seconds=59)


def test_an_api_key_reads_its_own_workspace_and_changes_nothing(cast):
    headers = {"X-API-Key": cast.opened.api_key_plain}
    response, _ = call(_KeyView, **headers)
    assert response.status_code == 200
    assert response.data["workspace"] == str(cast.workspace.pk)
    response, reason = call(_KeyView, "put", **headers)
    assert (response.status_code, reason) == (403, "not_allowed")


@pytest.mark.parametrize("header", [{}, {"X-API-Key": ""}, {"X-API-Key": "  "}, {"Authorization": "Bearer x"}])
def test_without_an_api_key_the_answer_is_401(header):
    response, reason = call(_KeyView, **header)
    assert (response.status_code, reason) == (401, "missing_api_key")
    assert response.headers["WWW-Authenticate"] == "ApiKey"


def test_a_malformed_or_revoked_api_key_is_401():
    opened = make_workspace()
    services.revoke_api_key(opened.api_key, acting_user=opened.owner)
    for plain in ("nonsense", opened.access_token_plain, opened.api_key_plain):
        response, reason = call(_KeyView, **{"X-API-Key": plain})
        assert (response.status_code, reason) == (401, "invalid_api_key")


def test_an_open_endpoint_works_without_credentials_and_still_refuses_false_ones():
    assert call(_OpenView)[0].data == {"known": False}
    assert bearer(_OpenView, "nonsense")[1] == "invalid_token"


@pytest.mark.parametrize("scopes", [[], ["admin"], ["read", "everything"]])
def test_a_token_needs_known_scopes(cast, scopes):
    with pytest.raises(InvalidInput) as refusal:
        services.create_access_token(
            user=cast.owner, workspace=cast.workspace, name="Bad", scopes=scopes, acting_user=cast.owner
        )
    assert refusal.value.errors[0].field == "scopes"


def test_only_members_can_have_a_token(cast):
    with pytest.raises(NotAllowed):
        token_for(cast.outsider, cast.workspace)


def test_tokens_are_audited_and_stored_without_their_secret(cast):
    plain = token_for(cast.admin, cast.workspace, "read")
    token = AccessToken.objects.get(user=cast.admin)
    services.revoke_access_token(token, acting_user=cast.owner)
    services.revoke_access_token(token, acting_user=cast.owner)
    created, revoked = AuditEntry.objects.filter(target__contains=token.lookup).order_by("id")
    assert (created.action, created.data["scopes"]) == ("access_token.created", ["read"])
    assert (revoked.action, revoked.actor) == ("access_token.revoked", cast.owner)
    assert plain.rsplit("_", 1)[1] not in f"{created.data}{created.target}{token.__dict__}"


def test_both_schemes_are_described_for_openapi():
    assert BearerScheme(_View).get_security_definition(None)["scheme"] == "bearer"
    assert ApiKeyScheme(_View).get_security_definition(None)["name"] == "X-API-Key"

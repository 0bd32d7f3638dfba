import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.urls import reverse

from opsmeter_site.lib.clock import utc_now
from tests.factories import PASSWORD, OperatorFactory, UserFactory, make_cast
from workspaces import services
from workspaces.keys import authenticate_api_key
from workspaces.models import AccessToken, ApiKey, AuditEntry, Membership, Role, User, Workspace

pytestmark = pytest.mark.django_db

MODELS = ("user", "workspace", "membership", "apikey", "accesstoken", "auditentry")


@pytest.fixture
def cast():
    return make_cast()


@pytest.fixture
def operator():
    return OperatorFactory()


@pytest.fixture
def console(client, operator):
    client.force_login(operator)
    return client


def page(model, name="changelist", *args):
    return reverse(f"admin:workspaces_{model}_{name}", args=args)


def all_pages(cast):
    rows = {
        "user": cast.owner,
        "workspace": cast.workspace,
        "membership": Membership.objects.first(),
        "apikey": cast.opened.api_key,
        "accesstoken": cast.opened.access_token,
        "auditentry": AuditEntry.objects.first(),
    }
    lists = [page(model) for model in MODELS]
    changes = [page(model, "change", row.pk) for model, row in rows.items()]
    password = reverse("admin:auth_user_password_change", args=[cast.owner.pk])
    return [*lists, *changes, page("user", "add"), page("apikey", "add"), password]


def test_every_page_answers_an_operator_and_shows_no_secret(console, cast):
    secrets = [cast.opened.api_key_plain, cast.opened.access_token_plain]
    for row in (cast.opened.api_key, cast.opened.access_token):
        secrets += [bytes(row.digest).hex(), str(bytes(row.digest))]
    secrets.append(cast.owner.password)
    for path in all_pages(cast):
        response = console.get(path)
        assert response.status_code == 200, path
        text = response.content.decode()
        assert [secret for secret in secrets if secret in text] == [], path
        assert "style-src" in response.headers["Content-Security-Policy"] or (
            "default-src 'self'" in response.headers["Content-Security-Policy"]
        )
        assert not re.search(
            r"<script(?![^>]*\bsrc=)(?![^>]*application/json)[^>]*>\s*\S|\sstyle=\"|\son\w+=\"", text
        ), path


def test_every_page_sends_everybody_else_to_the_sign_in(client, cast):
    paths = all_pages(cast)
    for person in (None, cast.owner):
        if person:
            client.force_login(person)
        for path in paths:
            response = client.get(path)
            assert response.status_code == 302, path
            assert response.headers["Location"].startswith((reverse("admin:login"), reverse("account_login")))


@pytest.mark.parametrize("model", MODELS)
def test_lists_can_be_searched(console, cast, model):
    assert console.get(page(model), {"q": "owner"}).status_code == 200


@pytest.mark.parametrize("model", ["apikey", "accesstoken"])
@pytest.mark.parametrize("state", ["live", "expired", "revoked"])
def test_credentials_are_listed_by_state(console, cast, model, state):
    rows = {"apikey": ApiKey, "accesstoken": AccessToken}[model].objects.all()
    rows.update(
        revoked_at=utc_now() if state == "revoked" else None,
        expires_at=utc_now() - timedelta(days=1) if state != "live" else None,
    )
    for wanted in ("live", "expired", "revoked"):
        shown = console.get(page(model), {"state": wanted}).context["cl"].result_count
        assert shown == (rows.count() if wanted == state else 0)


# --- People


def test_an_operator_adds_a_person_who_can_sign_in(console, operator):
    data = {"email": "New@Example.com", "name": "New", "password1": PASSWORD, "password2": PASSWORD}
    response = console.post(page("user", "add"), data)
    person = User.objects.get(email="new@example.com")
    assert response.headers["Location"] == page("user", "change", person.pk)
    assert person.check_password(PASSWORD)
    assert AuditEntry.objects.get(action="user.created").actor == operator


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"email": "TAKEN@example.com"}, "already exists"),
        ({"password2": "something else"}, "didn’t match"),
        ({"password1": "short", "password2": "short"}, "too short"),
    ],
)
def test_a_bad_new_person_is_explained_on_the_form(console, change, complaint):
    UserFactory(email="taken@example.com")
    data = {"email": "new@example.com", "password1": PASSWORD, "password2": PASSWORD, **change}
    response = console.post(page("user", "add"), data)
    assert response.status_code == 200
    assert complaint in response.content.decode()


def person_data(person, **changes):
    """What the page of a person sends: unticked boxes are left out."""
    unchanged = {"memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0, "is_staff": "on"}
    return unchanged | {"email": person.email, "name": person.name} | changes


def test_an_operator_deactivates_a_person_and_the_audit_trail_says_so(console, operator, cast):
    response = console.post(page("user", "change", cast.viewer.pk), person_data(cast.viewer, name="Renamed"))
    assert response.status_code == 302
    cast.viewer.refresh_from_db()
    assert (cast.viewer.is_active, cast.viewer.is_staff, cast.viewer.name) == (False, True, "Renamed")
    entry = AuditEntry.objects.get(action="user.changed")
    assert entry.actor == operator
    assert entry.data["is_active"] == [True, False]


def test_people_are_switched_off_after_a_second_question_and_on_again(console, operator, cast):
    people = [cast.member.pk, operator.pk]
    data = {"action": "switch_off", "_selected_action": people}
    assert "Switch off these people?" in console.post(page("user"), data).content.decode()
    assert User.objects.filter(is_active=False).count() == 0
    response = console.post(page("user"), data | {"confirmed": "yes"}, follow=True)
    assert set(User.objects.filter(is_active=False)) == {cast.member}
    assert "You cannot switch these" in response.content.decode()
    console.post(page("user"), {"action": "switch_on", "_selected_action": people})
    assert not User.objects.filter(is_active=False).exists()
    assert AuditEntry.objects.filter(action="user.changed", actor=operator, target=cast.member.email).count() == 2


@pytest.fixture
def helper(client):
    """An operator who may change people and is no superuser."""
    helper = UserFactory(is_staff=True)
    rights = Permission.objects.filter(content_type__app_label="workspaces")
    helper.user_permissions.set(rights)
    client.force_login(helper)
    return helper


def test_only_superusers_hand_out_rights(client, helper, cast):
    path = page("user", "change", cast.viewer.pk)
    data = person_data(cast.viewer, name="Renamed", is_active="on", is_superuser="on")
    assert client.post(path, data).status_code == 302
    cast.viewer.refresh_from_db()
    assert (cast.viewer.name, cast.viewer.is_staff, cast.viewer.is_superuser) == ("Renamed", False, False)


def test_superusers_are_changed_by_superusers_only(client, helper):
    superuser = OperatorFactory()
    assert client.post(page("user", "change", superuser.pk), person_data(superuser, name="X")).status_code == 403
    password = reverse("admin:auth_user_password_change", args=[superuser.pk])
    assert client.post(password, {"password1": PASSWORD, "password2": PASSWORD}).status_code == 403
    data = {"action": "switch_off", "_selected_action": [superuser.pk], "confirmed": "yes"}
    client.post(page("user"), data)
    superuser.refresh_from_db()
    assert (superuser.is_active, superuser.name) == (True, superuser.name)


def test_rights_given_are_in_the_audit_trail(console, operator, cast):
    group = Group.objects.create(name="Support")
    data = person_data(cast.viewer, is_active="on", groups=[group.pk])
    assert console.post(page("user", "change", cast.viewer.pk), data).status_code == 302
    assert AuditEntry.objects.get(action="user.rights_changed").data == {"groups": ["Support"]}


def test_an_operator_sets_a_password_and_the_audit_trail_says_so_without_it(console, operator, cast):
    path = reverse("admin:auth_user_password_change", args=[cast.owner.pk])
    new = "another-long-password"
    data = {"password1": new, "password2": new, "usable_password": "true", "set-password": "1"}
    assert console.post(path, data).status_code == 302
    cast.owner.refresh_from_db()
    assert cast.owner.check_password(new)
    entry = AuditEntry.objects.get(action="user.password_changed")
    assert (entry.actor, entry.target, entry.data) == (operator, cast.owner.email, {})


# --- Workspaces


def test_workspaces_are_listed_by_when_their_keys_were_used(console, cast):
    other = make_cast()
    ApiKey.objects.filter(workspace=other.workspace).update(last_used_at=utc_now() - timedelta(days=3))
    for used, wanted in (("1", []), ("7", [other.workspace]), ("never", [cast.workspace])):
        assert list(console.get(page("workspace"), {"used": used}).context["cl"].result_list) == wanted
    assert [row.people for row in console.get(page("workspace")).context["cl"].result_list] == [4, 4]


def memberships(cast, **changes):
    rows = list(Membership.objects.filter(workspace=cast.workspace).order_by("id"))
    data = {
        "name": "Renamed",
        "timezone": "Asia/Kolkata",
        "memberships-TOTAL_FORMS": len(rows),
        "memberships-INITIAL_FORMS": len(rows),
    }
    for number, row in enumerate(rows):
        prefix = f"memberships-{number}"
        data |= {f"{prefix}-id": row.pk, f"{prefix}-workspace": row.workspace_id, f"{prefix}-role": row.role}
    numbers = {row.user_id: number for number, row in enumerate(rows)}
    return data, numbers


def test_a_workspace_is_renamed_through_the_service(console, operator, cast):
    slug = cast.workspace.slug
    data, _ = memberships(cast)
    assert console.post(page("workspace", "change", cast.workspace.pk), data).status_code == 302
    workspace = Workspace.objects.get()
    assert (workspace.name, workspace.slug, str(workspace.timezone)) == ("Renamed", slug, "Asia/Kolkata")
    assert AuditEntry.objects.get(action="workspace.changed").actor == operator


def test_workspaces_are_neither_added_nor_deleted_here_and_the_page_says_where(console, cast):
    assert console.get(page("workspace", "add")).status_code == 403
    assert console.get(page("workspace", "delete", cast.workspace.pk)).status_code == 403
    assert "manage.py create_workspace" in console.get(page("workspace")).content.decode()


def test_members_are_added_changed_and_removed_through_the_services(console, operator, cast):
    data, numbers = memberships(cast)
    data[f"memberships-{numbers[cast.member.pk]}-role"] = Role.ADMIN
    data[f"memberships-{numbers[cast.viewer.pk]}-DELETE"] = "on"
    data |= {"memberships-TOTAL_FORMS": 5, "memberships-4-user": cast.outsider.pk, "memberships-4-role": Role.VIEWER}
    assert console.post(page("workspace", "change", cast.workspace.pk), data).status_code == 302
    roles = dict(Membership.objects.values_list("user", "role"))
    assert roles == {
        cast.owner.pk: "owner",
        cast.admin.pk: "admin",
        cast.member.pk: "admin",
        cast.outsider.pk: "viewer",
    }
    actions = set(AuditEntry.objects.filter(actor=operator).values_list("action", flat=True))
    assert {"member.added", "member.role_changed", "member.removed"} <= actions


def test_removing_the_last_owner_is_refused_with_a_message_and_nothing_is_stored(console, cast):
    data, numbers = memberships(cast)
    data[f"memberships-{numbers[cast.owner.pk]}-DELETE"] = "on"
    path = page("workspace", "change", cast.workspace.pk)
    response = console.post(path, data, follow=True)
    assert "keeps at least one owner" in response.content.decode()
    cast.workspace.refresh_from_db()
    assert cast.workspace.name != "Renamed"
    assert Membership.objects.filter(user=cast.owner).exists()


def test_one_form_hands_a_workspace_over(console, cast):
    data, numbers = memberships(cast)
    data[f"memberships-{numbers[cast.owner.pk]}-role"] = Role.MEMBER
    data[f"memberships-{numbers[cast.admin.pk]}-role"] = Role.OWNER
    assert console.post(page("workspace", "change", cast.workspace.pk), data).status_code == 302
    assert Membership.objects.get(role=Role.OWNER).user == cast.admin


def test_a_membership_cannot_be_moved_to_another_person(console, cast):
    data, numbers = memberships(cast)
    data[f"memberships-{numbers[cast.member.pk]}-user"] = cast.outsider.pk
    console.post(page("workspace", "change", cast.workspace.pk), data)
    assert Membership.objects.filter(user=cast.member).exists()
    assert not Membership.objects.filter(user=cast.outsider).exists()


# --- Credentials


def api_key_data(cast, **changes):
    return {"workspace": cast.workspace.pk, "name": "New", "expires_at_0": "", "expires_at_1": "", **changes}


def test_a_new_keys_secret_is_shown_exactly_once(console, operator, cast):
    response = console.post(page("apikey", "add"), api_key_data(cast), follow=True)
    key = ApiKey.objects.get(name="New")
    (plain,) = set(re.findall(r"om_live_\w{8}_\w{32}", response.content.decode()))
    assert authenticate_api_key(plain).key_id == key.pk
    assert (key.created_by, key.workspace) == (operator, cast.workspace)
    for path in (page("apikey"), page("apikey", "change", key.pk), page("auditentry")):
        assert plain not in console.get(path).content.decode()
    assert plain not in str(list(LogEntry.objects.values())) + str(list(AuditEntry.objects.values()))


def test_a_name_that_is_taken_is_refused_with_a_message(console, cast):
    response = console.post(page("apikey", "add"), api_key_data(cast, name="Default"), follow=True)
    assert "Another key of this workspace has this name" in response.content.decode()
    assert ApiKey.objects.count() == 1


def test_a_new_key_cannot_be_expired_already(console, cast):
    response = console.post(
        page("apikey", "add"), api_key_data(cast, expires_at_0="2020-01-01", expires_at_1="00:00:00")
    )
    assert response.status_code == 200
    assert "A moment in the future." in response.content.decode()


def test_of_an_old_key_only_the_expiry_changes(console, operator, cast):
    key = cast.opened.api_key
    path = page("apikey", "change", key.pk)
    data = {"name": "Other", "expires_at_0": "2099-01-01", "expires_at_1": "00:00:00"}
    assert console.post(path, data).status_code == 302
    key.refresh_from_db()
    assert (key.name, key.expires_at.year) == ("Default", 2099)
    assert AuditEntry.objects.get(action="api_key.expiry_changed").actor == operator
    services.revoke_api_key(key, acting_user=operator)
    assert console.post(path, {"expires_at_0": "", "expires_at_1": ""}).status_code == 302
    key.refresh_from_db()
    assert key.expires_at.year == 2099


def test_keys_are_revoked_from_the_list(console, operator, cast):
    data = {"action": "revoke", "_selected_action": [cast.opened.api_key.pk]}
    question = console.post(page("apikey"), data)
    assert "Revoke these keys?" in question.content.decode()
    assert authenticate_api_key(cast.opened.api_key_plain) is not None
    assert console.post(page("apikey"), data | {"confirmed": "yes"}).status_code == 302
    assert authenticate_api_key(cast.opened.api_key_plain) is None
    assert AuditEntry.objects.get(action="api_key.revoked").actor == operator


def test_keys_are_rotated_from_the_list_and_the_new_secret_is_shown_once(console, cast):
    data = {"action": "rotate", "_selected_action": [cast.opened.api_key.pk]}
    response = console.post(page("apikey"), data, follow=True)
    (plain,) = set(re.findall(r"om_live_\w{8}_\w{32}", response.content.decode()))
    assert authenticate_api_key(plain) is not None
    assert authenticate_api_key(cast.opened.api_key_plain) is not None
    assert plain not in console.get(page("apikey")).content.decode()


def test_a_dead_key_is_not_rotated_and_the_page_says_why(console, operator, cast):
    services.revoke_api_key(cast.opened.api_key, acting_user=operator)
    data = {"action": "rotate", "_selected_action": [cast.opened.api_key.pk]}
    assert "has been revoked" in console.post(page("apikey"), data, follow=True).content.decode()


def test_tokens_are_revoked_from_the_list_and_never_made_here(console, cast):
    assert console.get(page("accesstoken", "add")).status_code == 403
    data = {"action": "revoke", "_selected_action": [cast.opened.access_token.pk], "confirmed": "yes"}
    assert console.post(page("accesstoken"), data).status_code == 302
    assert AccessToken.objects.get().revoked_at is not None


def test_the_audit_trail_cannot_be_added_to_changed_or_deleted(console, cast):
    entry = AuditEntry.objects.first()
    assert console.get(page("auditentry", "add")).status_code == 403
    assert console.post(page("auditentry", "change", entry.pk), {"action": "forged"}).status_code == 403
    assert console.post(page("auditentry", "delete", entry.pk), {"post": "yes"}).status_code == 403
    console.post(page("auditentry"), {"action": "delete_selected", "_selected_action": [entry.pk], "post": "yes"})
    assert AuditEntry.objects.get(pk=entry.pk).action == entry.action

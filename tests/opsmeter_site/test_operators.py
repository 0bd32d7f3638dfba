"""The operators' console as a whole: who gets in, that every table is there, and that no page breaks the policy."""

import re

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value, yield_hotp_counters_from_time
from allauth.usersessions.models import UserSession
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.db.models import DateTimeField
from django.test import Client
from django.urls import reverse

from ingest.admin_facts import LargeTableAdmin
from ingest.models import Event, LedgerAudit, LedgerCoverage, Limit, LimitCrossing, ModelAlias, ModelPrice, Refusal
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import day_of, quarter_hour_of
from tests.conftest import forget_keys
from tests.factories import PASSWORD, OperatorFactory, UserFactory, make_workspace
from tests.ledger import make_event
from workspaces.models import AuditEntry
from workspaces.services import create_user

pytestmark = pytest.mark.django_db

WANTED = "/admin/workspaces/user/?is_staff__exact=1"
# Tables without a page, and why.
WITHOUT_A_PAGE = {
    "contenttypes.ContentType",  # Django's own bookkeeping
    "auth.Permission",  # chosen on the pages of people and groups
    "sessions.Session",  # its key is a secret; user sessions show the same without it
    "account.EmailConfirmation",  # unused: links are signed
    "socialaccount.SocialApp",  # identity providers are configured through the environment
    "socialaccount.SocialToken",  # secrets, which are not stored
    "alerts.AlertNote",  # on the page of its alert
    "alerts.Attempt",  # on the page of its delivery
    "ingest.ExportChunk",  # pieces of files that are their workspaces' only
}


@pytest.fixture(autouse=True)
def _fresh_counts_of_sign_ins():
    forget_keys()
    yield
    forget_keys()


@pytest.fixture
def console(client):
    client.force_login(OperatorFactory())
    return client


# --- The door


def new_operator():
    person = create_user(email="new@example.com", password=PASSWORD, is_staff=True, acting_user=None)
    person.is_superuser = True
    person.save()
    EmailAddress.objects.get_or_create(user=person, email=person.email, defaults={"verified": True, "primary": True})
    return person


def sign_in(client, person, return_to=WANTED):
    form = {"login": person.email, "password": PASSWORD, "next": return_to}
    return client.post(reverse("account_login"), form)


def test_nobody_is_sent_to_the_products_own_sign_in_and_comes_back(client):
    response = client.get(WANTED, follow=True)
    assert response.redirect_chain[-1][0].startswith(reverse("account_login"))
    response = sign_in(client, new_operator())
    assert response.headers["Location"] == WANTED
    assert client.get(WANTED).status_code == 200


def test_the_consoles_own_sign_in_form_is_not_there(client):
    person = OperatorFactory()
    path = reverse("admin:login")
    for response in (client.get(path), client.post(path, {"username": person.email, "password": PASSWORD})):
        assert response.headers["Location"].startswith(reverse("account_login"))
    assert client.get(reverse("admin:index")).status_code == 302


def test_who_is_no_operator_is_told_so_and_not_sent_in_circles(client):
    person = UserFactory()
    client.force_login(person)
    response = client.get(WANTED, follow=True)
    assert response.status_code == 403
    page = response.content.decode()
    assert "This account is not an operator’s" in page
    assert person.email in page


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example/"])
def test_the_door_leads_nowhere_else(console, elsewhere):
    response = console.get(reverse("admin:login"), {"next": elsewhere})
    assert response.headers["Location"] == reverse("admin:index")


# --- The second factor


@pytest.fixture
def _factor_needed(settings):
    settings.OPERATORS_NEED_MFA = True


def code_for(secret):
    counters = list(yield_hotp_counters_from_time())
    return format_hotp_value(hotp_value(secret, counters[len(counters) // 2]))


def set_up(client):
    """Go through the page that sets a factor up, confirming the password if it asks; the answer to the code."""
    page = client.get(reverse("mfa_activate_totp"), follow=True)
    if page.redirect_chain:
        client.post(page.redirect_chain[-1][0], {"password": PASSWORD})
    client.get(reverse("mfa_activate_totp"))
    code = code_for(client.session["mfa.totp.secret"])
    return client.post(reverse("mfa_activate_totp"), {"code": code}, follow=True)


@pytest.mark.usefixtures("_factor_needed")
def test_without_a_factor_every_page_leads_to_setting_one_up_and_back(client):
    sign_in(client, new_operator())
    for path in (WANTED, reverse("admin:index"), reverse("admin:jsi18n"), reverse("admin:support-search")):
        response = client.get(path, follow=True)
        assert (reverse("mfa_activate_totp"), 302) in response.redirect_chain
        assert "needs two-factor sign-in" in response.content.decode()
    client.get(WANTED, follow=True)
    after = set_up(client)
    assert after.redirect_chain[-1][0] == reverse("mfa_view_recovery_codes")
    assert f'<a href="{WANTED}">go on to the operators’ console</a>' in after.content.decode()
    assert client.get(WANTED).status_code == 200


@pytest.mark.usefixtures("_factor_needed")
def test_who_has_recovery_codes_goes_straight_back(client):
    person = new_operator()
    sign_in(client, person)
    client.get(WANTED, follow=True)
    RecoveryCodes.activate(person)
    assert set_up(client).redirect_chain == [(WANTED, 302)]


@pytest.mark.usefixtures("_factor_needed")
def test_a_session_that_never_showed_the_factor_has_to_show_it(client):
    person, before = new_operator(), Client()
    sign_in(before, person)
    secret = "JBSWY3DPEHPK3PXP"
    TOTP.activate(person, secret)
    response = before.get(WANTED, follow=True)
    where = response.redirect_chain[-1][0]
    assert where.startswith(reverse("mfa_reauthenticate"))
    assert before.post(where, {"code": code_for(secret)}).headers["Location"] == WANTED
    assert before.get(WANTED).status_code == 200


@pytest.mark.usefixtures("_factor_needed")
def test_a_sign_in_with_the_factor_is_enough(client):
    person, secret = new_operator(), "JBSWY3DPEHPK3PXP"
    TOTP.activate(person, secret)
    sign_in(client, person)
    response = client.post(reverse("mfa_authenticate"), {"code": code_for(secret)})
    assert response.headers["Location"] == WANTED
    assert client.get(WANTED).status_code == 200


@pytest.mark.usefixtures("_factor_needed")
def test_a_factor_makes_nobody_an_operator(client):
    person = UserFactory()
    TOTP.activate(person, "JBSWY3DPEHPK3PXP")
    client.force_login(person)
    assert client.get(WANTED, follow=True).status_code == 403


def test_setting_a_factor_up_outside_the_console_leads_where_it_always_did(client):
    sign_in(client, new_operator())
    assert "go on to the operators" not in set_up(client).content.decode()


# --- Every table, every page


def test_every_table_has_a_page_or_a_reason():
    missing = {model._meta.label for model in apps.get_models() if model not in admin.site._registry}
    assert missing == WITHOUT_A_PAGE


@pytest.mark.parametrize("page", admin.site._registry.values(), ids=str)
def test_every_list_is_useful(page):
    assert page.list_display != ("__str__",)
    if isinstance(page, LargeTableAdmin):
        return
    model = page.model
    times = [field for field in model._meta.fields if isinstance(field, DateTimeField) and not field.null]
    is_one_row_a_workspace = model._meta.pk.is_relation
    assert page.date_hierarchy or not times or is_one_row_a_workspace or model._meta.label == "ingest.CatalogVersion"
    if model._meta.label != "ingest.CatalogVersion":
        assert page.search_fields
        assert page.search_help_text


@pytest.fixture
def _world():
    """A row in nearly every table."""
    now = utc_now()
    opened = make_workspace("enterprise")
    workspace, owner = opened.workspace, opened.owner
    make_event(workspace, occurred_at=now)
    make_event(workspace, occurred_at=now, cost_usd=None, error_code="<script>")
    limit = Limit.objects.filter(workspace=workspace).first() or Limit.objects.create(
        workspace=workspace, name="Daily", measure="usd", period="day", amount=1, thresholds=[1], enforce=True
    )
    start = day_of(now).start
    LimitCrossing.objects.create(limit=limit, period_start=start, threshold=1, amount=1, value=2, crossed_at=now)
    tokens = ("uncached_input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    sums = dict.fromkeys(tokens, 1)
    Refusal.objects.create(
        workspace=workspace, bucket_start=quarter_hour_of(now), reason="budget_exceeded", requests=3, cost_usd=1, **sums
    )
    LedgerCoverage.objects.create(workspace=workspace, purged_at=now)
    audit = {"events": 1, "is_exact": False, "drift_usd": 1, "drift_requests": 1, "details": {"rollups": []}}
    LedgerAudit.objects.create(workspace=workspace, checked_at=now, **audit)
    ModelPrice.objects.create(
        workspace=workspace,
        provider="acme",
        model="large",
        effective_from=now,
        input_usd_per_1m=1,
        source="operator",
        checked_on=now.date(),
    )
    ModelAlias.objects.create(provider="acme", alias="big", model="large", source="operator")
    TOTP.activate(owner, "JBSWY3DPEHPK3PXP")
    RecoveryCodes.activate(owner)
    UserSession.objects.create(user=owner, ip="127.0.0.1", session_key="the-secret-session-key", user_agent="<b>")
    EmailAddress.objects.get_or_create(user=owner, email=owner.email)
    Group.objects.create(name="Support")


_INLINE = re.compile(
    r"""<script(?![^>]*\bsrc=)(?![^>]*type="application/json")[^>]*>\s*\S|<style|\sstyle=|\son\w+=["']|javascript:"""
)


def assert_strict(response):
    assert response.status_code == 200, response.request["PATH_INFO"]
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    # Icons are SVG, whose own attributes are no inline style.
    assert _INLINE.findall(response.content.decode()) == [], response.request["PATH_INFO"]


@pytest.mark.usefixtures("_world")
@pytest.mark.parametrize("page", admin.site._registry.values(), ids=str)
def test_every_list_and_form_keeps_the_policy(console, page):
    model = page.model
    names = f"admin:{model._meta.app_label}_{model._meta.model_name}"
    row = model._default_manager.first()
    workspace = {"workspace": str(row.workspace_id)} if isinstance(page, LargeTableAdmin) and row else {}
    assert_strict(console.get(reverse(f"{names}_changelist"), workspace))
    added = console.get(reverse(f"{names}_add"))
    if added.status_code != 403:
        assert_strict(added)
    if row is not None:
        assert_strict(console.get(reverse(f"{names}_change", args=[row.pk])))
        assert_strict(console.get(reverse(f"{names}_history", args=[row.pk])))


@pytest.mark.usefixtures("_world")
def test_every_other_page_keeps_the_policy(console):
    workspace = Event.objects.first().workspace
    for path in (
        reverse("admin:index"),
        reverse("admin:app_list", args=["ingest"]),
        reverse("admin:activity"),
        reverse("admin:unpriced"),
        reverse("admin:support-search"),
        reverse("admin:support", args=[workspace.pk]),
        reverse("admin:auth_user_password_change", args=[workspace.members.first().pk]),
    ):
        assert_strict(console.get(path))
    data = {"action": "revoke", "_selected_action": [workspace.api_keys.first().pk]}
    assert_strict(console.post(reverse("admin:workspaces_apikey_changelist"), data))


# --- Records of Django and allauth


@pytest.mark.usefixtures("_world")
def test_no_secret_of_a_person_is_shown(console):
    secrets = ["JBSWY3DPEHPK3PXP", "the-secret-session-key"]
    for model in (Authenticator, UserSession):
        names = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        paths = [reverse(f"{names}_changelist")]
        paths += [reverse(f"{names}_change", args=[row.pk]) for row in model.objects.all()]
        for path in paths:
            page = console.get(path).content.decode()
            assert [secret for secret in secrets if secret in page] == [], path


def act(console, model, action, rows):
    data = {"action": action, "_selected_action": [row.pk for row in rows]}
    path = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    asked = console.post(path, data)
    assert asked.status_code == 200
    assert not asked.context.get("messages")
    return console.post(path, data | {"confirmed": "yes"}, follow=True)


@pytest.mark.usefixtures("_world")
def test_a_lost_phone_is_helped_with_and_recorded(console):
    (factor,) = Authenticator.objects.filter(type="totp")
    act(console, Authenticator, "remove", [factor])
    assert not Authenticator.objects.exists()
    assert AuditEntry.objects.get(action="user.two_factor_turned_off").target == factor.user.email


@pytest.mark.usefixtures("_world")
def test_a_session_is_ended_and_recorded(console):
    theirs = Client()
    person = new_operator()
    sign_in(theirs, person)
    session = UserSession.objects.get(user=person)
    act(console, UserSession, "end", [session])
    assert not UserSession.objects.filter(user=person).exists()
    assert theirs.get(reverse("mfa_index")).status_code == 302
    assert AuditEntry.objects.get(action="user.sessions_ended").target == person.email


def test_an_address_is_confirmed_and_recorded(console):
    person = UserFactory()
    EmailAddress.objects.filter(user=person).delete()
    address = EmailAddress.objects.create(user=person, email=person.email, primary=True, verified=False)
    act(console, EmailAddress, "confirm", [address])
    address.refresh_from_db()
    assert address.verified
    assert AuditEntry.objects.get(action="user.address_confirmed").target == person.email


def test_superusers_are_left_to_superusers(client):
    helper, superuser = UserFactory(is_staff=True), OperatorFactory()
    TOTP.activate(superuser, "JBSWY3DPEHPK3PXP")
    rights = Permission.objects.filter(codename__in=["view_authenticator", "change_user"])
    helper.user_permissions.set(rights.exclude(content_type__app_label="auth"))
    client.force_login(helper)
    act(client, Authenticator, "remove", Authenticator.objects.all())
    assert Authenticator.objects.filter(user=superuser).exists()


def test_changes_of_groups_are_recorded(console):
    console.post(reverse("admin:auth_group_add"), {"name": "Support"})
    assert AuditEntry.objects.get(action="group.added").target == "Support"
    group = Group.objects.get()
    console.post(reverse("admin:auth_group_change", args=[group.pk]), {"name": "First line"})
    assert AuditEntry.objects.get(action="group.changed").target == "First line"
    console.post(reverse("admin:auth_group_delete", args=[group.pk]), {"post": "yes"})
    assert AuditEntry.objects.get(action="group.deleted").target == "First line"


def test_passwords_are_changed_where_everybody_changes_theirs(console):
    assert console.get(reverse("admin:password_change")).headers["Location"] == reverse("account_change_password")

from datetime import timedelta
from decimal import Decimal

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from ingest import hygiene
from ingest.models import Event, RowDeletion
from opsmeter_site.lib.clock import utc_now
from tests.factories import Cast, make_cast
from tests.ledger import NOON, assert_exact, make_event, make_events
from workspaces.models import AuditEntry
from workspaces.services import create_api_key, revoke_api_key

pytestmark = pytest.mark.django_db

QUERIES = 20
ROLES = ("owner", "admin", "member", "viewer")


@pytest.fixture
def people() -> Cast:
    return make_cast("pro", timezone="Europe/Berlin")


@pytest.fixture
def admin(people: Cast, client: Client) -> Client:
    client.force_login(people.admin)
    return client


def url(people: Cast, name: str = "settings-data", *args: object) -> str:
    return reverse(name, args=[people.workspace.slug, *args])


def delete_url(people: Cast, mode: str = "demo", scope: str = "workspace") -> str:
    return url(people, "settings-data-delete", mode, scope)


def page(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def key_of(people: Cast, role: str) -> int:
    person = getattr(people, role)
    key, _ = create_api_key(people.workspace, name=f"Key of {role}", created_by=person, acting_user=person)
    return key.pk


# --- Who -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_everybody_may_look_and_take_back_their_own(people: Cast, client: Client, role: str) -> None:
    client.force_login(getattr(people, role))
    page(client, url(people))
    page(client, url(people, "settings-data-state"))
    page(client, delete_url(people, scope="mine"))


@pytest.mark.parametrize(("role", "status"), [("owner", 200), ("admin", 200), ("member", 403), ("viewer", 403)])
def test_deleting_everybodys_is_for_owners_and_admins(people: Cast, client: Client, role: str, status: int) -> None:
    make_event(people.workspace, data_mode="demo")
    client.force_login(getattr(people, role))
    assert client.get(delete_url(people)).status_code == status
    assert client.post(delete_url(people), follow=True).status_code == status
    assert Event.objects.count() == (0 if status == 200 else 1)
    if status == 403:
        assert client.post(url(people, "settings-data-demo")).status_code == 403
        assert "Delete all" not in page(client, url(people))


def test_outsiders_find_nothing_and_strangers_sign_in(people: Cast, client: Client) -> None:
    addresses = [url(people), url(people, "settings-data-state"), delete_url(people)]
    assert [client.get(address).status_code for address in addresses] == [302] * 3
    client.force_login(people.outsider)
    assert [client.get(address).status_code for address in addresses] == [404] * 3
    assert client.post(delete_url(people)).status_code == 404
    assert client.post(url(people, "settings-data-demo")).status_code == 404


@pytest.mark.parametrize(("mode", "scope"), [("real", "workspace"), ("demo", "everyone"), ("", "mine")])
def test_there_is_no_such_deletion(people: Cast, admin: Client, mode: str, scope: str) -> None:
    address = f"{url(people)}delete/{mode}/{scope}/"
    assert admin.get(address).status_code == 404
    assert admin.post(address).status_code == 404


# --- What there is --------------------------------------------------------------------------------------------------


def test_the_page_counts_test_and_demo_rows(people: Cast, admin: Client) -> None:
    make_events(people.workspace, 3, data_mode="test", cost_usd=Decimal("1.5"))
    make_events(people.workspace, 1_234, data_mode="demo", cost_usd=None)
    make_events(people.workspace, 7)
    html = page(admin, url(people))
    assert "1,234" in html
    assert "$4.50" in html
    assert "15 Jun 2026, 14:00" in html  # noon in UTC
    assert "90 days" in html
    assert "Real requests" in html


def test_without_any_there_is_nothing_to_delete(people: Cast, admin: Client) -> None:
    html = page(admin, url(people))
    assert "never, or all deleted" in html
    assert "Delete all" not in html


# --- Deleting -------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mode", ["demo", "test"])
def test_deleting_says_what_follows_and_then_does_it(people: Cast, admin: Client, mode: str) -> None:
    make_events(people.workspace, 3, data_mode=mode, cost_usd=Decimal("1.5"))
    make_events(people.workspace, 2)
    html = page(admin, delete_url(people, mode))
    assert f"3 {mode} requests, worth $4.50, are deleted" in html
    assert "cannot be undone" in html
    assert Event.objects.count() == 5

    html = admin.post(delete_url(people, mode), follow=True).content.decode()
    assert f"3 {mode} rows are deleted" in html
    assert set(Event.objects.values_list("data_mode", flat=True)) == {"real"}
    assert_exact(people.workspace)
    entry = AuditEntry.objects.get(action="ledger.rows_deleted")
    assert (entry.actor, entry.data) == (people.admin, {"deleted": 3, "scope": "workspace"})
    # Pressed again, or in another tab.
    html = admin.post(delete_url(people, mode), follow=True).content.decode()
    assert f"There were no {mode} rows" in html


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("role", ROLES)
def test_mine_are_the_rows_of_my_own_keys_also_of_revoked_ones(people: Cast, client: Client, role: str) -> None:
    mine, theirs = key_of(people, role), people.opened.api_key.pk
    if role == "owner":
        theirs = key_of(people, "member")
    person = getattr(people, role)
    revoked, _ = create_api_key(people.workspace, name="Old", created_by=person, acting_user=person)
    make_events(people.workspace, 2, data_mode="test", api_key_id=mine, cost_usd=Decimal(2))
    make_event(people.workspace, data_mode="test", api_key_id=revoked.pk, cost_usd=None)
    kept = make_event(people.workspace, data_mode="test", api_key_id=theirs)
    real = make_event(people.workspace, api_key_id=mine)
    revoke_api_key(revoked, acting_user=person)
    client.force_login(person)
    html = page(client, delete_url(people, "test", "mine"))
    assert "3 test requests, worth $4.00, are deleted" in html
    assert f"Key of {role}, Old" in html
    client.post(delete_url(people, "test", "mine"))
    assert set(Event.objects.all()) == {kept, real}
    assert_exact(people.workspace)


def test_a_deletion_that_takes_long_is_done_by_a_worker_and_the_page_follows(
    people: Cast, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hygiene, "AT_ONCE_ROWS", 2)
    make_events(people.workspace, 3, data_mode="demo")
    html = admin.post(delete_url(people), follow=True).content.decode()
    assert "are being deleted" in html
    assert 'hx-trigger="every 2s"' in html
    assert Event.objects.count() == 3

    hygiene.run_requested_deletions()
    assert Event.objects.count() == 0
    html = page(admin, url(people, "settings-data-state"))
    assert "every 2s" not in html
    deletion = RowDeletion.objects.get()
    assert (deletion.deleted, deletion.asked_by) == (3, people.admin)


def test_two_workers_do_not_do_the_same_deletion_unless_one_has_died(people: Cast) -> None:
    make_events(people.workspace, 3, data_mode="demo")
    deletion = hygiene.request_deletion(people.workspace, "demo", only_own=False, acting_user=people.owner)
    RowDeletion.objects.update(worked_at=utc_now())
    assert hygiene.run_deletion(deletion) is None
    RowDeletion.objects.update(worked_at=utc_now() - timedelta(hours=1))
    assert hygiene.run_deletion(deletion) == 3
    assert hygiene.run_deletion(deletion) is None


# --- Demo -----------------------------------------------------------------------------------------------------------


def test_without_a_key_no_demo_is_loaded(people: Cast, admin: Client) -> None:
    revoke_api_key(people.opened.api_key, acting_user=people.owner)
    html = admin.post(url(people, "settings-data-demo"), follow=True).content.decode()
    assert "Create one first" in html
    assert Event.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_a_small_demo_is_loaded_and_taken_back(people: Cast, admin: Client) -> None:
    html = admin.post(url(people, "settings-data-demo"), follow=True).content.decode()
    rows = Event.objects.filter(workspace=people.workspace)
    assert "60 demo requests of the last days are loaded" in html
    assert (rows.count(), set(rows.values_list("data_mode", flat=True))) == (60, {"demo"})
    assert AuditEntry.objects.get(workspace=people.workspace, action="demo_data.loaded").actor == people.admin
    admin.post(delete_url(people))
    assert rows.count() == 0
    assert_exact(people.workspace)


# --- What it costs --------------------------------------------------------------------------------------------------


def test_the_page_takes_few_queries(
    people: Cast, admin: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    make_events(people.workspace, 2, data_mode="demo")
    make_events(people.workspace, 2, data_mode="test", occurred_at=NOON + timedelta(days=1))
    page(admin, url(people))
    with django_assert_num_queries(QUERIES):
        page(admin, url(people))

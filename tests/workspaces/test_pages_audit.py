import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import time_machine
from django.test import Client
from django.urls import reverse

from budgets.services import update_budget_settings
from tests.factories import make_cast
from workspaces import services
from workspaces.invitations import invite_member
from workspaces.models import AuditEntry, Role

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast():
    return make_cast("pro", timezone="Asia/Kolkata")


@pytest.fixture
def page(cast):
    return reverse("settings-audit", args=[cast.workspace.slug])


@pytest.fixture
def download(cast):
    return reverse("settings-audit-csv", args=[cast.workspace.slug])


def signed_in(person):
    client = Client()
    client.force_login(person)
    return client


def words(answer):
    """The text of a page, without tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


def rows_of(answer):
    return list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))


def write(cast, number, **changes):
    """Entries a minute apart, the last one the newest."""
    start = datetime(2026, 3, 10, tzinfo=UTC)
    AuditEntry.objects.bulk_create(
        AuditEntry(
            **{
                "workspace": cast.workspace,
                "actor": cast.admin,
                "action": "api_key.created",
                "target": f"key-{index:03}",
                "created_at": start + timedelta(minutes=index),
                **changes,
            }
        )
        for index in range(number)
    )


def test_the_trail_is_for_owners_and_admins(cast, page, download):
    for role, status in {"viewer": 403, "member": 403, "admin": 200, "owner": 200, "outsider": 404}.items():
        for address in (page, download):
            assert signed_in(getattr(cast, role)).get(address).status_code == status


def test_entries_are_sentences_with_values_before_and_after(cast, page):
    services.change_role(cast.workspace, cast.member, Role.VIEWER, acting_user=cast.admin)
    services.update_workspace(cast.workspace, name="R&D", acting_user=cast.owner)
    update_budget_settings(cast.workspace, daily_limit_usd=Decimal(50), acting_user=cast.admin)
    invite_member(cast.workspace, email="new@example.com", role=Role.MEMBER, acting_user=cast.admin)
    services.remove_member(cast.workspace, cast.viewer, acting_user=cast.viewer)
    text = words(signed_in(cast.owner).get(page))
    assert f"The admin changed the role of {cast.member.email} Role member → viewer" in text
    assert "→ R&amp;D" in text
    assert "The admin changed the budgets Daily limit usd – → 50" in text
    assert "The admin invited new@example.com" in text
    assert "The viewer left the workspace" in text
    assert "Opsmeter created the workspace" in text


def test_every_action_of_the_product_reads_as_words_and_an_unknown_one_as_well(cast, page):
    write(cast, 1, action="teapot.filled", target="Brown Betty", data={"cups": 3, "was": None})
    assert "The admin teapot: filled Brown Betty Cups 3" in words(signed_in(cast.owner).get(page))


def test_moments_are_told_in_the_workspaces_zone(cast, page):
    write(cast, 1, data={"expires_at": "2026-12-31T20:00:00+00:00"})
    text = words(signed_in(cast.owner).get(page))
    assert "10 Mar 2026, 05:30" in text
    assert "Expires at 1 Jan 2027, 01:30" in text


def test_pages_follow_each_other_without_gap_or_repeat(cast, page):
    AuditEntry.objects.filter(workspace=cast.workspace).delete()
    write(cast, 60)
    write(cast, 60, created_at=datetime(2026, 3, 9, tzinfo=UTC), action="api_key.revoked")
    client, seen, address = signed_in(cast.owner), [], page
    while address:
        text = client.get(address).content.decode()
        seen += re.findall(r"(created|revoked) the API key (key-\d+)", text)
        older = re.search(r'href="(\?[^"]*cursor=[^"]+)"', text)
        address = older and page + older.group(1).replace("&amp;", "&")
    assert len(seen) == len(set(seen)) == 120
    assert seen[0] == ("created", "key-059")
    assert seen[-1] == ("revoked", "key-000")


def test_filters_hold_across_pages_and_for_the_download(cast, page, download):
    write(cast, 70)
    write(cast, 5, action="api_key.revoked", actor=cast.owner)
    client = signed_in(cast.owner)
    query = {"action": "api_key.created", "person": cast.admin.pk}
    text = client.get(page, query).content.decode()
    assert f"{download}?action=api_key.created&amp;person={cast.admin.pk}" in text
    older = re.search(r'href="(\?[^"]*cursor=[^"]+)"', text).group(1).replace("&amp;", "&")
    assert client.get(page + older).content.decode().count("created the API key") == 20
    rows = rows_of(client.get(download, query))
    assert len(rows) == 70
    assert {row["email"] for row in rows} == {cast.admin.email}


def test_days_are_those_of_the_workspace_and_both_included(cast, page, download):
    AuditEntry.objects.filter(workspace=cast.workspace).delete()
    # In Kolkata (UTC+05:30): the last minute of 9 March, the first and last of 10 March, the first of 11 March.
    for moment in ("09T18:29", "09T18:30", "10T18:29", "10T18:30"):
        write(cast, 1, created_at=datetime.fromisoformat(f"2026-03-{moment}:00+00:00"), target=moment)
    rows = rows_of(signed_in(cast.owner).get(download, {"from_day": "2026-03-10", "to_day": "2026-03-10"}))
    assert [row["target"] for row in rows] == ["10T18:29", "09T18:30"]
    assert rows[1]["timeUtc"] == "2026-03-09T18:30:00Z"
    assert rows[1]["timeLocal"] == "2026-03-10T00:00:00+05:30"


@pytest.mark.parametrize(
    "query",
    [
        {"action": "nothing"},
        {"person": "x"},
        {"person": "999999999999999999999"},
        {"from_day": "yesterday"},
        {"from_day": "0001-01-01"},
        {"to_day": "9999-12-31"},
        {"from_day": "2026-03-11", "to_day": "2026-03-10"},
        {"cursor": "x"},
        {"cursor": "2026-03-10T00:00:00~1"},
        {"cursor": "0001-01-01T00:00:00+14:00~99999999999999999999999"},
        {"action": "\x00"},
    ],
)
def test_nonsense_in_the_address_is_no_error(cast, page, download, query):
    client = signed_in(cast.owner)
    assert client.get(page, query).status_code == 200
    assert rows_of(client.get(download, query)) is not None


def test_nothing_found_is_said(cast, page):
    answer = signed_in(cast.owner).get(page, {"from_day": "2001-01-01", "to_day": "2001-01-02"})
    assert "Nothing happened that these filters name" in words(answer)


def test_the_download_is_exact_and_no_cell_is_a_formula(cast, download):
    data = {"role": ["member", "viewer"], "name": "Größe"}
    write(cast, 1, action="member.role_changed", target="=1+1", data=data)
    with time_machine.travel("2026-03-11T00:00:00Z"):
        answer = signed_in(cast.owner).get(download)
    assert answer["Content-Disposition"] == f'attachment; filename="audit-{cast.workspace.slug}-20260311.csv"'
    row = next(row for row in rows_of(answer) if row["action"] == "member.role_changed")
    assert row["target"] == "'=1+1"
    assert row["person"] == "The admin"
    assert json.loads(row["values"]) == data


def test_entries_of_other_workspaces_are_not_shown(cast, page, download):
    foreign = make_cast("pro")
    client = signed_in(cast.owner)
    assert foreign.owner.email not in client.get(page, {"person": foreign.owner.pk}).content.decode()
    assert foreign.workspace.slug not in str(rows_of(client.get(download)))


def test_the_number_of_queries_does_not_grow_with_entries(cast, page, django_assert_max_num_queries):
    client = signed_in(cast.owner)
    client.get(page)
    with django_assert_max_num_queries(16) as before:
        client.get(page)
    write(cast, 100)
    with django_assert_max_num_queries(len(before)):
        client.get(page)

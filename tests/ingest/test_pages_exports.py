import csv
import gzip
import io
import json
import re
from datetime import timedelta

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from ingest import exports
from ingest.models import Event, ExportJob, ExportState
from opsmeter_site.lib.clock import utc_now
from tests.factories import Cast, make_cast
from tests.ledger import NOON, make_event, make_events
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
QUERIES = 20
ALL = {"what": "requests", "format": "csv"}


@pytest.fixture
def people() -> Cast:
    return make_cast("pro", timezone="Europe/Berlin")


@pytest.fixture
def member(people: Cast, client: Client) -> Client:
    client.force_login(people.member)
    return client


def url(people: Cast, name: str = "exports", *args: object) -> str:
    return reverse(name, args=[people.workspace.slug, *args])


def page(client: Client, address: str, **parameters: str) -> str:
    response = client.get(address, parameters)
    assert response.status_code == 200
    return response.content.decode()


def content(response: HttpResponse) -> bytes:
    return b"".join(response.streaming_content)  # type: ignore[attr-defined]


def rows_of(raw: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(raw.decode())))


@pytest.fixture
def only_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows are too many to be sent at once."""
    monkeypatch.setattr(exports, "STREAMED_ROWS", 1)


@pytest.fixture
def job(people: Cast, member: Client, only_small: None) -> ExportJob:
    """A prepared file of the member's, of three requests."""
    make_events(people.workspace, 3, apart=HOUR)
    member.post(url(people), ALL)
    exports.work_on_exports(60)
    return ExportJob.objects.get()


# --- Who -----------------------------------------------------------------------------------------------------------


def test_outsiders_find_nothing_and_strangers_sign_in(people: Cast, job: ExportJob) -> None:
    reading = [url(people), url(people, "exports-stream"), url(people, "exports-jobs")]
    reading += [url(people, f"export-{name}", job.pk) for name in ("download", "about", "delete")]
    writing = [url(people), *(url(people, f"export-{name}", job.pk) for name in ("cancel", "retry", "delete"))]
    nobody, outsider = Client(), Client()
    outsider.force_login(people.outsider)
    for address in reading:
        assert nobody.get(address).status_code == 302
        assert outsider.get(address).status_code == 404
    for address in writing:
        assert nobody.post(address).status_code == 302
        assert outsider.post(address).status_code == 404
    job.refresh_from_db()


@pytest.mark.parametrize(("role", "status"), [("owner", 200), ("admin", 200), ("member", 200), ("viewer", 404)])
def test_a_file_is_for_whoever_asked_and_for_owners_and_admins(
    people: Cast, job: ExportJob, role: str, status: int
) -> None:
    client = Client()
    client.force_login(getattr(people, role))
    for name in ("download", "about", "delete"):
        assert client.get(url(people, f"export-{name}", job.pk)).status_code == status
    assert (url(people, "export-download", job.pk) in page(client, url(people))) is (status == 200)


def test_a_file_of_another_workspace_is_not_there(people: Cast, job: ExportJob) -> None:
    other = make_cast("pro")
    client = Client()
    client.force_login(other.owner)
    for name in ("download", "about", "delete"):
        assert client.get(url(other, f"export-{name}", job.pk)).status_code == 404
    for name in ("cancel", "retry", "delete"):
        assert client.post(url(other, f"export-{name}", job.pk)).status_code == 404


# --- What it would be -----------------------------------------------------------------------------------------------


def test_the_page_says_what_a_file_would_hold(people: Cast, member: Client) -> None:
    make_events(people.workspace, 3, apart=HOUR)
    make_event(people.workspace, model="other")
    html = page(member, url(people), **ALL, model="gpt-4o-mini", range="custom", **{"from": "2026-06-15"})
    assert "At most 3 rows" in html
    assert "15 Jun 2026, 00:00" in html  # in Berlin
    assert "2026-06-14 22:00 UTC" in html
    assert "<strong>gpt-4o-mini</strong>" in html
    assert re.search(r'href="[^"]*exports/stream/\?[^"]*model=gpt-4o-mini', html)


def test_the_first_look_is_at_the_last_thirty_days(people: Cast, member: Client) -> None:
    make_event(people.workspace, occurred_at=utc_now())
    make_event(people.workspace, occurred_at=utc_now() - timedelta(days=60))
    assert "About 1 row\n" in page(member, url(people))
    assert "About 2 rows\n" in page(member, url(people), **ALL)


@pytest.mark.parametrize("what", ["quarter_hours", "days"])
@pytest.mark.parametrize("parameter", [{"user": "x"}, {"status": "error"}, {"min_cost": "1"}, {"id": "x"}])
def test_sums_refuse_filters_that_they_do_not_know(
    people: Cast, member: Client, what: str, parameter: dict[str, str]
) -> None:
    html = page(member, url(people), **(ALL | {"what": what}), **parameter)
    assert "Sums do not know this" in html
    assert "exports/stream/" not in html
    response = member.post(url(people), ALL | {"what": what} | parameter)
    assert response.status_code == 422
    assert ExportJob.objects.count() == 0


def test_a_change_of_the_form_comes_back_as_a_part_of_the_page(people: Cast, member: Client) -> None:
    response = member.get(url(people), ALL | {"what": "days", "range": ""}, headers={"HX-Request": "true"})
    html = response.content.decode()
    assert response["HX-Push-Url"] == "?what=days&format=csv"
    assert html.lstrip().startswith('<div id="export-new">')
    assert "<html" not in html


# --- Sent at once ---------------------------------------------------------------------------------------------------


def test_a_small_file_is_sent_at_once_and_says_what_it_covers(people: Cast, member: Client) -> None:
    make_events(people.workspace, 3, apart=HOUR)
    make_event(people.workspace, model="other")
    wanted = ALL | {"range": "custom", "from": "2026-06-15", "to": "2026-06-15", "model": "gpt-4o-mini"}
    response = member.get(url(people, "exports-stream"), wanted)
    rows = rows_of(content(response))
    expected = Event.objects.filter(model="gpt-4o-mini").order_by("occurred_at")
    assert [row["id"] for row in rows] == [str(event.pk) for event in expected]
    name = f"{people.workspace.slug}-requests-20260615-20260615-filtered.csv"
    assert response["Content-Disposition"] == f'attachment; filename="{name}"'
    assert response["X-Opsmeter-From"] == "2026-06-14T22:00:00.000000Z"
    assert response["X-Opsmeter-Until"] == "2026-06-15T22:00:00.000000Z"
    assert response["X-Opsmeter-Timezone"] == "Europe/Berlin"
    assert response["X-Opsmeter-Filters"] == "model"
    assert response["Cache-Control"] == "no-store"
    entry = AuditEntry.objects.get(action="export.downloaded")
    assert (entry.actor, entry.target) == (people.member, name)


@pytest.mark.parametrize("what", ["requests", "quarter_hours", "days"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_every_kind_and_format_is_sent(people: Cast, member: Client, what: str, form: str) -> None:
    make_events(people.workspace, 3, apart=HOUR)
    response = member.get(url(people, "exports-stream"), {"what": what, "format": form})
    lines = content(response).decode().strip().splitlines()
    assert len(lines) == (2 if what == "days" else 4)
    assert (
        response["Content-Type"]
        == {
            "csv": "text/csv; charset=utf-8",
            "jsonl": "application/x-ndjson; charset=utf-8",
        }[form]
    )


def test_a_large_file_is_not_sent_at_once(people: Cast, member: Client, only_small: None) -> None:
    make_events(people.workspace, 3)
    response = member.get(url(people, "exports-stream"), ALL, follow=True)
    assert response.redirect_chain == [(f"{url(people)}?what=requests&format=csv", 302)]
    assert "too large to be sent at once" in response.content.decode()


def test_a_file_of_filters_that_make_no_sense_is_a_page_that_says_so(people: Cast, member: Client) -> None:
    response = member.get(url(people, "exports-stream"), ALL | {"min_cost": "cheap"}, follow=True)
    assert "Enter a number." in response.content.decode()


# --- Prepared -------------------------------------------------------------------------------------------------------


def test_a_large_file_is_prepared_and_downloaded(people: Cast, member: Client, only_small: None) -> None:
    make_events(people.workspace, 3, apart=HOUR)
    html = page(member, url(people), **ALL)
    assert "Prepare this export" in html
    response = member.post(url(people), ALL, follow=True)
    html = response.content.decode()
    assert "is being prepared" in html
    job = ExportJob.objects.get()
    assert f'action="{url(people, "export-cancel", job.pk)}"' in html
    assert 'hx-trigger="every 2s"' in html

    exports.work_on_exports(60)
    html = page(member, url(people, "exports-jobs"))
    assert "every 2s" not in html
    assert url(people, "export-download", job.pk) in html

    job.refresh_from_db()
    packed = member.get(url(people, "export-download", job.pk))
    assert packed["Content-Type"] == "application/gzip"
    assert packed["Content-Disposition"].endswith('.csv.gz"')
    raw = content(packed)
    assert len(raw) == int(packed["Content-Length"])
    plain = member.get(url(people, "export-download", job.pk), {"plain": "1"})
    assert content(plain) == gzip.decompress(raw)
    assert len(rows_of(gzip.decompress(raw))) == 3
    assert (plain["X-Opsmeter-Rows"], plain["X-Opsmeter-Truncated"]) == ("3", "no")


def test_a_prepared_file_says_what_it_covers(people: Cast, member: Client, job: ExportJob) -> None:
    about = json.loads(member.get(url(people, "export-about", job.pk)).content)
    assert about["workspace"] == people.workspace.slug
    assert about["rows"] == 3
    assert (about["isComplete"], about["isTruncated"]) == (True, False)
    ExportJob.objects.update(is_truncated=True)
    about = json.loads(member.get(url(people, "export-about", job.pk)).content)
    assert (about["isComplete"], about["isTruncated"]) == (False, True)
    assert "truncated at 5,000,000 rows" in page(member, url(people))
    assert "-truncated.csv" in member.get(url(people, "export-download", job.pk))["Content-Disposition"]


def test_a_file_that_is_not_ready_cannot_be_downloaded(people: Cast, member: Client, only_small: None) -> None:
    make_events(people.workspace, 3)
    member.post(url(people), ALL)
    job = ExportJob.objects.get()
    assert member.get(url(people, "export-download", job.pk)).status_code == 404


def test_cancelling_can_be_undone(people: Cast, member: Client, only_small: None) -> None:
    make_events(people.workspace, 3)
    member.post(url(people), ALL)
    job = ExportJob.objects.get()
    html = member.post(url(people, "export-cancel", job.pk), follow=True).content.decode()
    assert "is cancelled" in html
    assert f'action="{url(people, "export-retry", job.pk)}"' in html
    # Pressed twice, or in a second tab: no error, no other change.
    assert "finished already" in member.post(url(people, "export-cancel", job.pk), follow=True).content.decode()
    member.post(url(people, "export-retry", job.pk))
    job.refresh_from_db()
    assert job.state == ExportState.WAITING


def test_a_failed_one_says_so_and_can_be_tried_again(people: Cast, member: Client, job: ExportJob) -> None:
    ExportJob.objects.update(state=ExportState.FAILED, error="Something went wrong.")
    html = page(member, url(people))
    assert "Something went wrong." in html
    assert "Try again" in html


def test_deleting_asks_first(people: Cast, member: Client, job: ExportJob) -> None:
    html = page(member, url(people, "export-delete", job.pk))
    assert "3 rows" in html
    assert ExportJob.objects.count() == 1
    html = member.post(url(people, "export-delete", job.pk), follow=True).content.decode()
    assert "The export is deleted." in html
    assert ExportJob.objects.count() == 0
    # The back button and another press.
    assert member.post(url(people, "export-delete", job.pk)).status_code == 404


def test_too_many_at_once_are_refused_and_the_form_is_kept(people: Cast, member: Client, only_small: None) -> None:
    make_events(people.workspace, 3)
    for _ in range(exports.MOST_UNFINISHED):
        member.post(url(people), ALL)
    response = member.post(url(people), ALL | {"model": "gpt-4o-mini"}, follow=True)
    html = response.content.decode()
    assert "are under way" in html
    assert 'value="gpt-4o-mini"' in html
    assert ExportJob.objects.count() == exports.MOST_UNFINISHED


def test_the_page_takes_few_queries(
    people: Cast, member: Client, job: ExportJob, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    page(member, url(people))
    with django_assert_num_queries(QUERIES):
        page(member, url(people), **ALL)
    member.post(url(people), ALL, follow=True)
    with django_assert_num_queries(QUERIES):
        page(member, url(people), **ALL)


def test_the_oldest_row_of_all_is_named_by_its_day(people: Cast, member: Client) -> None:
    make_event(people.workspace, occurred_at=NOON)
    response = member.get(url(people, "exports-stream"), ALL)
    assert "requests-beginning-" in response["Content-Disposition"]
    content(response)

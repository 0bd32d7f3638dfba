import csv
import gzip
import io
import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ingest import exports
from ingest.explorer import Filters
from ingest.export_files import Outline, Progress, stream, write_part
from ingest.export_rows import COLUMNS, PART_ROWS, Wish, expected_rows, fixed
from ingest.models import Event, ExportChunk, ExportJob, ExportState, ExportWhat, Rollup
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import NotAllowed, NotFound
from tests.factories import Cast, make_cast
from tests.ledger import NOON, make_event, make_events, make_workspace, new_event
from workspaces.access import WorkspaceAccess, workspace_for
from workspaces.models import AuditEntry, Workspace

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def workspace() -> Workspace:
    return make_workspace()


def outline(
    workspace: Workspace,
    what: str = "requests",
    form: str = "csv",
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    zone: ZoneInfo = BERLIN,
    most_rows: int = 5_000_000,
    **where: str,
) -> Outline:
    wish = fixed(Wish(workspace.pk, what, zone, Filters(start, end, where)))
    return Outline(wish, form, workspace.slug, utc_now(), list(where.items()), most_rows)


def written(file: Outline) -> str:
    return b"".join(stream(file)).decode()


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def lines_of(text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of JSON Lines, and what the last line says about them."""
    *rows, about = [json.loads(line) for line in text.splitlines()]
    return rows, about["_about"]


# --- Requests -------------------------------------------------------------------------------------------------------

FACTS = {
    "external_request_id": "ext-1",
    "occurred_at": datetime(2026, 6, 15, 22, 30, 1, 234_567, UTC),
    "received_at": datetime(2026, 6, 15, 22, 30, 2, tzinfo=UTC),
    "provider": "openai",
    "model": "gpt-4o",
    "endpoint_tag": "chat",
    "prompt_version": "v2",
    "environment": "staging",
    "data_mode": "test",
    "service_tier": "flex",
    "status": "error",
    "error_code": "429",
    "user_id": "zoë, the “first”",
    "tenant_id": "acme",
    "feature_tag": "search",
    "uncached_input_tokens": 1,
    "cache_read_tokens": 2,
    "cache_write_tokens": 3,
    "output_tokens": 4,
    "reasoning_tokens": 5,
    "total_tokens": 6,
    "latency_ms": 7,
    "cost_usd": Decimal("0.000000000012"),
    "reported_cost_usd": Decimal("12.5"),
    "price_id": 8,
    "api_key_id": 9,
    "metadata": {"a": "b\nc", "n": 1, "x": None},
}
AS_WRITTEN = {
    "externalRequestId": "ext-1",
    "occurredAtUtc": "2026-06-15T22:30:01.234567Z",
    "occurredAtLocal": "2026-06-16T00:30:01.234567+02:00",
    "timezone": "Europe/Berlin",
    "receivedAtUtc": "2026-06-15T22:30:02.000000Z",
    "provider": "openai",
    "model": "gpt-4o",
    "endpointTag": "chat",
    "promptVersion": "v2",
    "environment": "staging",
    "dataMode": "test",
    "serviceTier": "flex",
    "status": "error",
    "errorCode": "429",
    "userId": "zoë, the “first”",
    "tenantId": "acme",
    "featureTag": "search",
    "uncachedInputTokens": 1,
    "cachedInputTokens": 2,
    "cacheWriteTokens": 3,
    "outputTokens": 4,
    "reasoningTokens": 5,
    "totalTokens": 6,
    "latencyMs": 7,
    "costUsd": "0.000000000012",
    "reportedCostUsd": "12.500000000000",
    "priceId": 8,
    "apiKeyId": 9,
    "metadata": {"a": "b\nc", "n": 1, "x": None},
    "asChargedUsd": "0.000000000012",
    "repriced": False,
}


def test_a_request_is_written_with_everything_that_is_stored_of_it(workspace: Workspace) -> None:
    event = make_event(workspace, **FACTS)
    (line,), about = lines_of(written(outline(workspace, form="jsonl")))
    assert line == AS_WRITTEN | {"id": event.pk}
    assert list(line) == about["columns"]

    (row,) = rows_of(written(outline(workspace)))
    assert json.loads(row.pop("metadata")) == FACTS["metadata"]
    expected = {name: str(value) for name, value in AS_WRITTEN.items() if name != "metadata"}
    assert row == expected | {"id": str(event.pk), "repriced": "false"}


@pytest.mark.parametrize(("charged", "written_as"), [(Decimal("0.25"), "0.250000000000"), (None, None)])
def test_a_repriced_request_says_what_was_charged_at_first(
    workspace: Workspace, charged: Decimal | None, written_as: str | None
) -> None:
    make_event(workspace, cost_usd=Decimal("0.5"), charged_cost_usd=charged, repricing_id=7)
    (line,), _ = lines_of(written(outline(workspace, form="jsonl")))
    assert (line["costUsd"], line["asChargedUsd"], line["repriced"]) == ("0.500000000000", written_as, True)


def test_what_is_not_known_is_empty(workspace: Workspace) -> None:
    make_event(workspace, cost_usd=None, latency_ms=None, error_code=None)
    (row,) = rows_of(written(outline(workspace)))
    assert [row[name] for name in ("costUsd", "latencyMs", "errorCode", "metadata")] == [""] * 4
    (line,), _ = lines_of(written(outline(workspace, form="jsonl")))
    assert [line[name] for name in ("costUsd", "latencyMs", "errorCode", "metadata")] == [None] * 4


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_spreadsheet_runs_nothing_that_a_caller_sent(workspace: Workspace, text: str) -> None:
    make_event(workspace, model=text, metadata={"=1": "=2"})
    (row,) = rows_of(written(outline(workspace)))
    assert row["model"] == f"'{text}"
    assert row["metadata"].startswith("{")
    (line,), _ = lines_of(written(outline(workspace, form="jsonl")))
    assert line["model"] == text


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_nothing_is_a_file_too(workspace: Workspace, form: str) -> None:
    text = written(outline(workspace, form=form))
    if form == "csv":
        assert text == ",".join(COLUMNS[ExportWhat.REQUESTS]) + "\r\n"
    else:
        rows, about = lines_of(text)
        assert (rows, about["rows"], about["isComplete"]) == ([], 0, True)


def test_the_rows_are_those_of_the_filters_oldest_first_over_many_parts(workspace: Workspace) -> None:
    number = 2 * PART_ROWS + 3
    Event.objects.bulk_create(
        new_event(workspace, occurred_at=NOON - n * timedelta(seconds=n % 7), model="even" if n % 2 else "odd")
        for n in range(number)
    )
    make_event(make_workspace())
    rows = Event.objects.filter(workspace=workspace).order_by("occurred_at", "pk")
    everything = [row["externalRequestId"] for row in rows_of(written(outline(workspace)))]
    assert everything == list(rows.values_list("external_request_id", flat=True))
    some = [row["externalRequestId"] for row in rows_of(written(outline(workspace, model="odd")))]
    assert some == list(rows.filter(model="odd").values_list("external_request_id", flat=True))


def test_what_arrives_while_a_file_is_written_is_not_in_it(workspace: Workspace) -> None:
    Event.objects.bulk_create(new_event(workspace, occurred_at=NOON + n * HOUR) for n in range(PART_ROWS + 2))
    before = Event.objects.filter(workspace=workspace).count()
    pieces = stream(outline(workspace))
    first = next(pieces)
    # One in the time that is still to be read, one in a time that has been read, one at the end.
    for moment in (NOON + (PART_ROWS + 1) * HOUR, NOON, NOON + 10**5 * HOUR):
        make_event(workspace, occurred_at=moment)
    assert len(rows_of((first + b"".join(pieces)).decode())) == before


def test_a_file_says_what_it_covers(workspace: Workspace) -> None:
    make_events(workspace, 3, apart=HOUR)
    file = outline(workspace, form="jsonl", start=NOON, end=NOON + 2 * HOUR, model="gpt-4o-mini")
    rows, about = lines_of(written(file))
    assert len(rows) == 2
    assert about["fromUtc"] == "2026-06-15T12:00:00.000000Z"
    assert about["untilLocal"] == "2026-06-15T16:00:00.000000+02:00"
    assert about["timezone"] == "Europe/Berlin"
    assert about["filters"] == {"model": "gpt-4o-mini"}
    assert (about["rows"], about["isComplete"], about["isTruncated"]) == (2, True, False)
    assert file.name() == f"{workspace.slug}-requests-20260615-20260615-filtered.jsonl"


@pytest.mark.parametrize(("most", "is_truncated"), [(2, True), (3, False), (4, False)])
def test_a_file_that_is_too_long_ends_early_and_says_so(workspace: Workspace, most: int, is_truncated: bool) -> None:
    events = make_events(workspace, 3, apart=HOUR)
    rows, about = lines_of(written(outline(workspace, form="jsonl", most_rows=most)))
    assert [row["id"] for row in rows] == [event.pk for event in events[:most]]
    assert about["isTruncated"] is is_truncated
    assert about["isComplete"] is not is_truncated


# --- Sums -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "zone",
    ["UTC", "Asia/Kathmandu", "America/Los_Angeles", "Australia/Lord_Howe", "Europe/Berlin"],
)
def test_days_are_those_of_the_zone_and_add_up_to_the_raw_rows(workspace: Workspace, zone: str) -> None:
    there = ZoneInfo(zone)
    # Both changes of clocks in Los Angeles, Berlin and on Lord Howe.
    for change in (date(2026, 3, 8), date(2026, 3, 29), date(2026, 4, 5), date(2026, 10, 4), date(2026, 10, 25)):
        around = datetime(change.year, change.month, change.day, tzinfo=UTC) - 14 * HOUR
        make_events(workspace, 26, occurred_at=around, apart=timedelta(minutes=105), model=f"m{change.month}")
    make_event(workspace, cost_usd=None, status="error")
    text = written(outline(workspace, "days", "jsonl", zone=there))
    rows, about = lines_of(text)
    assert about["columns"] == list(COLUMNS[ExportWhat.DAYS])
    by_day: dict[str, int] = {}
    for event in Event.objects.filter(workspace=workspace):
        day = event.occurred_at.astimezone(there).date().isoformat()
        by_day[day] = by_day.get(day, 0) + 1
    summed: dict[str, int] = {}
    for row in rows:
        summed[row["localDay"]] = summed.get(row["localDay"], 0) + row["requests"]
        start, end = (datetime.fromisoformat(row[name]) for name in ("fromLocal", "untilLocal"))
        assert start.date().isoformat() == row["localDay"]
        assert end - start == datetime.fromisoformat(row["untilUtc"]) - datetime.fromisoformat(row["fromUtc"])
    assert summed == by_day
    total = sum(Decimal(row["costUsd"]) for row in rows)
    assert total == sum(event.cost_usd or 0 for event in Event.objects.filter(workspace=workspace))
    assert [row["localDay"] for row in rows] == sorted(row["localDay"] for row in rows)


def test_quarter_hours_are_the_stored_sums(workspace: Workspace) -> None:
    make_events(workspace, 5, apart=timedelta(minutes=10))
    make_event(workspace, cost_usd=None, status="error", latency_ms=None)
    rows = rows_of(written(outline(workspace, "quarter_hours")))
    stored = Rollup.objects.filter(workspace=workspace).order_by("bucket_start", "dimensions_key")
    assert len(rows) == len(stored)
    for row, rollup in zip(rows, stored, strict=True):
        assert datetime.fromisoformat(row["quarterHourUtc"]) == rollup.bucket_start
        assert datetime.fromisoformat(row["quarterHourLocal"]) == rollup.bucket_start
        assert row["quarterHourLocal"].endswith("+02:00")
        assert row["localDay"] == "2026-06-15"
        assert row["isPriced"] == ("true" if rollup.is_priced else "false")
        assert Decimal(row["costUsd"]) == rollup.cost_usd
        assert int(row["requests"]) == rollup.requests
        assert int(row["errors"]) == rollup.errors
        assert int(row["latencyCount"]) == rollup.latency_count


def test_sums_are_narrowed_by_range_and_by_what_they_know(workspace: Workspace) -> None:
    make_events(workspace, 4, apart=HOUR)
    make_event(workspace, occurred_at=NOON + HOUR, model="other", cost_usd=None)
    part = {"start": NOON + HOUR, "end": NOON + 3 * HOUR}
    for what in ("quarter_hours", "days"):
        rows, _ = lines_of(written(outline(workspace, what, "jsonl", **part)))
        assert sum(row["requests"] for row in rows) == 3
        rows, _ = lines_of(written(outline(workspace, what, "jsonl", **part, model="other", is_priced="false")))
        assert [(row["model"], row["requests"], row["isPriced"]) for row in rows] == [("other", 1, False)]


@pytest.mark.parametrize(("most", "is_truncated"), [(2, True), (9, False), (10, False)])
def test_quarter_hours_end_early_where_they_are_too_many(workspace: Workspace, most: int, is_truncated: bool) -> None:
    make_events(workspace, 9, apart=timedelta(minutes=15))
    file = outline(workspace, "quarter_hours", most_rows=most)
    pieces, progress = [], Progress()
    while not progress.is_done:
        piece, progress = write_part(file, progress)
        pieces.append(piece)
    assert progress.is_truncated is is_truncated
    assert len(rows_of(b"".join(pieces).decode())) == min(most, 9)


def test_a_range_of_sums_is_of_whole_quarter_hours(workspace: Workspace) -> None:
    wish = outline(
        workspace, "days", start=NOON + timedelta(minutes=7), end=NOON + timedelta(minutes=20, microseconds=1)
    ).wish
    assert (wish.filters.start, wish.filters.end) == (NOON, NOON + timedelta(minutes=30))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, 6),
        ({"model": "other"}, 2),
        ({"status": "error"}, 1),
        ({"is_priced": "false"}, 1),
        ({"is_priced": "true", "model": "other"}, 1),
        ({"user_id": "unknown-to-sums"}, 6),
        ({"external_request_id": "x"}, 1),
    ],
)
def test_how_much_it_will_be_is_known_before(workspace: Workspace, where: dict[str, str], expected: int) -> None:
    make_events(workspace, 4, apart=HOUR)
    make_event(workspace, model="other", status="error")
    make_event(workspace, model="other", cost_usd=None)
    assert expected_rows(outline(workspace, **where).wish) == expected


# --- Jobs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def people() -> Cast:
    return make_cast("pro", timezone="Europe/Berlin")


def access(people: Cast, role: str) -> WorkspaceAccess:
    return workspace_for(getattr(people, role), people.workspace.slug)


def ask(people: Cast, role: str = "member", **wanted: Any) -> ExportJob:
    file = outline(people.workspace, **wanted)
    return exports.request_export(people.workspace, file, acting_user=getattr(people, role))


def work(job: ExportJob) -> ExportJob:
    """Let workers do everything."""
    exports.work_on_exports(60)
    job.refresh_from_db()
    return job


def unpacked(job: ExportJob) -> str:
    return b"".join(exports.pieces(job, is_packed=False)).decode()


def test_a_job_gives_the_file_that_streaming_gives(people: Cast) -> None:
    Event.objects.bulk_create(
        new_event(people.workspace, occurred_at=NOON + n * timedelta(seconds=1)) for n in range(PART_ROWS + 9)
    )
    job = ask(people)
    assert job.state == ExportState.WAITING
    work(job)
    assert (job.state, job.rows, job.chunks) == (ExportState.DONE, PART_ROWS + 9, 2)
    assert unpacked(job) == written(exports.outline_of(job, people.workspace))
    packed = b"".join(exports.pieces(job, is_packed=True))
    assert gzip.decompress(packed).decode() == unpacked(job)
    assert len(packed) == job.stored_bytes


def test_a_job_covers_what_was_there_when_it_was_asked_for(people: Cast) -> None:
    make_events(people.workspace, 2)
    job = ask(people, form="jsonl")
    make_events(people.workspace, 2, occurred_at=NOON - HOUR)
    rows, about = lines_of(unpacked(work(job)))
    assert len(rows) == about["rows"] == job.rows == 2


def test_a_worker_that_was_killed_loses_nothing(people: Cast) -> None:
    """Every piece is stored with how far the job is; the next sweep goes on there."""
    Event.objects.bulk_create(
        new_event(people.workspace, occurred_at=NOON + n * timedelta(seconds=1)) for n in range(2 * PART_ROWS)
    )
    job = ask(people)
    exports.work_on_exports(0)
    job.refresh_from_db()
    assert (job.state, job.rows) == (ExportState.RUNNING, PART_ROWS)
    work(job)
    assert len(rows_of(unpacked(job))) == 2 * PART_ROWS


def test_jobs_take_turns(people: Cast) -> None:
    Event.objects.bulk_create(
        new_event(people.workspace, occurred_at=NOON + n * timedelta(seconds=1)) for n in range(PART_ROWS + 1)
    )
    first, second = ask(people), ask(people)
    for _ in range(2):
        exports.work_on_exports(0)
    for job in (first, second):
        job.refresh_from_db()
        assert job.rows == PART_ROWS


def test_a_job_that_breaks_says_so_and_can_be_tried_again(people: Cast) -> None:
    make_events(people.workspace, 2)
    broken, other = ask(people), ask(people)
    ExportJob.objects.filter(pk=broken.pk).update(where={"no_such_column": "x"})
    work(broken)
    assert broken.state == ExportState.FAILED
    assert broken.error
    assert ExportChunk.objects.filter(job=broken).count() == 0
    other.refresh_from_db()
    assert other.state == ExportState.DONE

    ExportJob.objects.filter(pk=broken.pk).update(where={})
    exports.retry_export(broken, acting_user=people.member)
    assert work(broken).state == ExportState.DONE
    assert broken.rows == 2


def test_a_job_can_be_cancelled_and_begun_anew(people: Cast) -> None:
    make_events(people.workspace, 2)
    job = ask(people)
    exports.cancel_export(job, acting_user=people.member)
    assert work(job).state == ExportState.CANCELLED
    assert job.rows == 0
    with pytest.raises(NotAllowed):
        exports.cancel_export(job, acting_user=people.member)
    exports.retry_export(job, acting_user=people.member)
    assert work(job).state == ExportState.DONE
    exports.retry_export(job, acting_user=people.member)
    job.refresh_from_db()
    assert job.state == ExportState.DONE


def test_too_many_at_once_are_refused(people: Cast) -> None:
    jobs = [ask(people) for _ in range(exports.MOST_UNFINISHED)]
    with pytest.raises(NotAllowed):
        ask(people)
    exports.cancel_export(jobs[0], acting_user=people.member)
    ask(people)


def test_a_deleted_job_is_gone_with_its_file(people: Cast) -> None:
    make_events(people.workspace, 2)
    job = work(ask(people))
    exports.delete_export(job, acting_user=people.owner)
    assert ExportChunk.objects.filter(job_id=job.pk).count() == 0
    with pytest.raises(NotFound):
        exports.delete_export(job, acting_user=people.owner)


def test_files_are_dropped_after_seven_days(people: Cast) -> None:
    old, new = ask(people), ask(people)
    ExportJob.objects.filter(pk=old.pk).update(created_at=utc_now() - exports.KEPT - timedelta(seconds=1))
    assert exports.delete_old_exports(utc_now()) == 1
    assert list(ExportJob.objects.all()) == [new]


def test_owners_and_admins_see_all_jobs_others_their_own(people: Cast) -> None:
    jobs = {role: ask(people, role) for role in ("owner", "member", "viewer")}
    everything = set(jobs.values())
    seen: dict[str, Iterable[ExportJob]] = {
        "owner": everything,
        "admin": everything,
        "member": {jobs["member"]},
        "viewer": {jobs["viewer"]},
    }
    for role, expected in seen.items():
        assert set(exports.jobs_for(access(people, role))) == expected
    with pytest.raises(NotFound):
        exports.job_for(access(people, "member"), jobs["owner"].pk)
    other = make_cast("pro")
    with pytest.raises(NotFound):
        exports.job_for(access(other, "owner"), jobs["owner"].pk)


def test_who_exported_what_stands_in_the_audit_trail(people: Cast) -> None:
    make_events(people.workspace, 2)
    job = work(ask(people, model="gpt-4o-mini"))
    exports.delete_export(job, acting_user=people.owner)
    exports.note_download(people.workspace, outline(people.workspace), acting_user=people.viewer)
    trail = {entry.action: entry for entry in AuditEntry.objects.filter(workspace=people.workspace)}
    assert trail["export.requested"].data["filters"] == {"model": "gpt-4o-mini"}
    assert trail["export.deleted"].actor == people.owner
    assert trail["export.downloaded"].target.endswith(".csv")


def test_without_jobs_there_is_nothing_to_do() -> None:
    exports.work_on_exports(0)

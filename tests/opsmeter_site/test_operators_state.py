"""The first page of the operators' console: figures are right, lead somewhere, and survive each other's trouble."""

import math
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import psycopg
import pytest
import redis
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing.metrics import count_refused
from billing.models import BillingEvent, ChangeRequest, Subscription
from ingest.models import ExportJob, Limit, Meter, ModelPrice, Refusal, SummaryProgress, SummarySpan
from ingest.models.prices import PriceState
from opsmeter_site.lib import heartbeat
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.database import conninfo
from opsmeter_site.lib.periods import month_of, quarter_hour_of
from opsmeter_site.lib.redis import client
from opsmeter_site.operators import figures as parts
from opsmeter_site.operators import measured, state, traffic
from opsmeter_site.operators.state import service_state
from tests.billing.provider_facts import facts, hear, new_id, subscribe
from tests.factories import OperatorFactory, UserFactory, make_workspace
from tests.ledger import make_event
from workspaces.models import Workspace

DAY = timedelta(days=1)
database = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _own_keys(settings, monkeypatch):
    monkeypatch.setattr(state, "_kept", None)
    settings.REDIS_KEY_PREFIX = f"opsmeter-operators-{uuid4()}"
    yield
    for key in client().scan_iter(f"{settings.REDIS_KEY_PREFIX}:*"):
        client().delete(key)


@pytest.fixture
def console():
    browser = Client()
    browser.force_login(OperatorFactory())
    return browser


def figures():
    """Every figure by its label."""
    return {figure.label: figure for section in service_state(utc_now()) for figure in section.figures}


def refuse(workspace, number, reason="plan_limit_reached"):
    tokens = ("uncached_input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    sums = dict.fromkeys(tokens, 1)
    bucket = quarter_hour_of(utc_now())
    Refusal.objects.create(workspace=workspace, bucket_start=bucket, reason=reason, requests=number, cost_usd=1, **sums)


# --- The page


@database
def test_the_page_shows_the_state_and_leads_to_what_is_behind_it(console):
    opened = make_workspace("pro")
    make_event(opened.workspace, occurred_at=utc_now())
    with CaptureQueriesContext(connection) as queries:
        page = console.get(reverse("admin:index"))
    assert len(queries) <= 25
    text = page.content.decode()
    for section in page.context["sections"]:
        assert section.title in text
        for figure in section.figures:
            assert figure.window
            assert figure.value != "unknown", figure
            if figure.url:
                assert figure.url.replace("&", "&amp;") in text
                assert console.get(figure.url).status_code == 200, figure.url


@database
def test_the_list_of_an_apps_records_is_not_the_page_of_figures(console):
    shown = console.get("/admin/billing/").content.decode()
    assert "<h1>Billing administration</h1>" in shown
    assert "As of" not in shown


@database
def test_whoever_looks_again_within_seconds_sees_the_same(console, monkeypatch):
    first = console.get(reverse("admin:index"))
    with CaptureQueriesContext(connection) as queries:
        again = console.get(reverse("admin:index"))
    assert again.context["moment"] == first.context["moment"]
    assert not [each["sql"] for each in queries if "ingest_" in each["sql"]]
    monkeypatch.setattr(state, "KEPT_FOR", timedelta(0))
    assert console.get(reverse("admin:index")).context["moment"] > first.context["moment"]


@database
def test_operators_without_rights_see_figures_but_no_customers():
    browser = Client()
    browser.force_login(UserFactory(is_staff=True))
    assert browser.get(reverse("admin:index")).status_code == 200
    for path in (reverse("admin:activity"), reverse("admin:unpriced"), reverse("admin:support-search")):
        assert browser.get(path).status_code == 403


# --- Traffic


@database
def test_traffic_adds_up_over_all_workspaces():
    now = utc_now()
    since = quarter_hour_of(now) - DAY
    before = traffic.quarter_hours(since)
    refused_before = traffic.refused_by_reason(since).get("plan_limit_reached", 0)
    for cost, at in ((None, now), (Decimal("0.5"), now), (Decimal("0.25"), now - timedelta(hours=3))):
        make_event(make_workspace("pro").workspace, occurred_at=at, cost_usd=cost)
    make_event(make_workspace("pro").workspace, occurred_at=now - 2 * DAY)
    refuse(make_workspace("pro").workspace, 7)
    after = traffic.quarter_hours(since)

    def more(name):
        return sum(getattr(row, name) for row in after) - sum(getattr(row, name) for row in before)

    assert [more(name) for name in ("requests", "unpriced_requests", "tokens", "unpriced_tokens")] == [3, 1, 450, 150]
    assert more("cost_usd") == Decimal("0.75")
    assert traffic.refused_by_reason(since)["plan_limit_reached"] - refused_before == 7


@database
def test_rates_count_the_last_quarter_hours(monkeypatch):
    now = utc_now()
    monkeypatch.setattr(traffic, "quarter_hours", lambda _since: [])
    idle = figures()
    assert idle["Requests a minute, now"].value == "0.0"
    start = quarter_hour_of(now)
    quarters = [traffic.QuarterHour(start - n * timedelta(minutes=15), 900, 90, 9_000, 900, 1) for n in range(4)]
    monkeypatch.setattr(traffic, "quarter_hours", lambda _since: quarters)
    busy = figures()
    minutes = (utc_now() - start).total_seconds() / 60
    assert float(busy["Requests a minute, now"].value.replace(",", "")) == pytest.approx(1800 / (15 + minutes), 0.05)
    assert busy["Requests"].value == "3,600"
    assert busy["Unpriced requests"].value == busy["Unpriced tokens"].value == "10.0%"
    assert busy["Requests"].trend.startswith("<svg")


@database
def test_the_busiest_and_the_unpriced_are_listed(console):
    quiet, busy = make_workspace("pro").workspace, make_workspace("pro").workspace
    make_event(quiet, occurred_at=utc_now())
    for _ in range(3):
        make_event(busy, occurred_at=utc_now(), cost_usd=None, model="brand-new")
    refuse(quiet, 5)
    by = {order: console.get(reverse("admin:activity"), {"order": order}) for order in traffic.ORDERS}
    first = {order: page.context["rows"][0] for order, page in by.items()}
    assert {order: row.workspace_id for order, row in first.items() if order in {"requests", "unpriced"}} == {
        "requests": busy.pk,
        "unpriced": busy.pk,
    }
    assert (first["refused"].workspace_id, first["refused"].refused_requests) == (quiet.pk, 5)
    assert reverse("admin:support", args=[busy.pk]) in by["requests"].content.decode()
    unpriced = console.get(reverse("admin:unpriced"), {"days": "7"})
    (row,) = [row for row in unpriced.context["rows"] if row.model == "brand-new"]
    assert (row.provider, row.workspaces, row.requests, row.tokens) == ("openai", 1, 3, 450)
    add = f"{reverse('admin:ingest_modelprice_add')}?provider=openai&model=brand-new"
    assert add.replace("&", "&amp;") in unpriced.content.decode()
    assert 'value="brand-new"' in console.get(add).content.decode()


@database
@pytest.mark.parametrize("path", ["/admin/activity/?order=name", "/admin/unpriced/?days=1000"])
def test_a_made_up_choice_is_nothing(console, path):
    assert console.get(path).status_code == 404


# --- This server


def test_quantiles_of_a_histogram():
    buckets = {0.001: 0, 0.01: 50, 0.1: 90, math.inf: 100}
    assert measured.quantile_ms(buckets, 0.25) == pytest.approx(5.5)
    assert measured.quantile_ms(buckets, 0.9) == pytest.approx(100)
    assert measured.quantile_ms(buckets, 0.95) == math.inf
    assert measured.quantile_ms({0.001: 0, math.inf: 0}, 0.5) is None
    assert measured.quantile_ms({}, 0.5) is None


COUNTING = """
from ingest.metrics import COMMIT_SECONDS, REQUESTS
for _ in range(20):
    COMMIT_SECONDS.observe(0.004)
REQUESTS.labels("llm-request", "internal_error").inc(3)
REQUESTS.labels("llm-request", "accepted").inc(30)
"""


def test_the_servers_processes_are_added_up(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for _ in range(2):
        subprocess.run([sys.executable, "-c", COUNTING], check=True)
    found = measured.measured()
    assert found.commits == 40
    assert 2 < found.commit_ms(0.5) < 5
    assert found.turned_away == {"internal_error": 6}


# --- Work, customers, system


@database
def test_the_scheduler_is_missed(settings):
    assert figures()["Scheduler and worker"].tone == parts.BAD
    heartbeat.note_heartbeat(utc_now())
    assert figures()["Scheduler and worker"].value == "alive"
    heartbeat.note_heartbeat(utc_now() - timedelta(hours=1))
    assert figures()["Scheduler and worker"].value == "stopped"


@database
def test_tasks_that_wait_are_counted(settings):
    client().lpush(f"{settings.REDIS_KEY_PREFIX}:celery:celery", "one", "two")
    assert figures()["Tasks waiting"].value == "2"


@database
def test_work_that_waits_or_failed_is_counted():
    before = figures()
    workspace = make_workspace("pro").workspace
    Workspace.objects.filter(pk=workspace.pk).update(created_at=utc_now() - 9 * DAY)
    ModelPrice.objects.create(
        provider="acme",
        model="large",
        effective_from=utc_now(),
        input_usd_per_1m=1,
        source="genai-prices 0",
        checked_on=utc_now().date(),
        state=PriceState.PENDING,
    )
    owner = workspace.members.get()
    for job_state in ("failed", "waiting"):
        ExportJob.objects.create(
            workspace=workspace,
            created_by=owner,
            what="requests",
            format="csv",
            zone="UTC",
            state=job_state,
            expected_rows=1,
        )
    hours_ago = utc_now() - timedelta(hours=3)
    SummarySpan.objects.create(workspace=workspace, level=0, starts_at=hours_ago, ends_at=hours_ago)
    SummaryProgress.objects.create(workspace=workspace, scanned_until=hours_ago, looked_at=hours_ago, zone="UTC")
    after = figures()
    labels = ("Ledger audits late", "Retention late", "Sums for pages late", "Prices waiting for a decision")
    for label in (*labels, "Exports failed", "Exports to be written"):
        assert int(after[label].value) - int(before[label].value) == 1, label


@database
def test_plans_and_limits_are_counted():
    before = figures()
    near, over = make_workspace("pro").workspace, make_workspace("pro").workspace
    for workspace, left in ((near, 1), (over, 0)):
        limit = Limit.objects.get(workspace=workspace, measure="requests")
        start = month_of(utc_now()).start
        Meter.objects.create(
            workspace=workspace, measure="requests", period="month", period_start=start, value=limit.amount - left
        )
        Limit.objects.create(
            workspace=workspace, name="Budget", measure="usd", period="month", amount=10, thresholds=["0.8", 1],
            enforce=False, source="test", source_id="1",
        )  # fmt: skip
        spent = Decimal(10) if workspace == near else Decimal("10.000000000001")
        Meter.objects.create(workspace=workspace, measure="usd", period="month", period_start=start, value=spent)
    after = figures()
    expected = {
        "On Pro": 2,
        "New workspaces": 2,
        "Near the plan limit": 1,
        "Telemetry paused by the plan": 1,
        "Budgets near": 1,
        "Budgets exceeded": 1,
    }
    assert {label: int(after[label].value) - int(before[label].value) for label in expected} == expected


# --- Trouble


@database
def test_without_billing_there_is_one_figure(settings):
    shown = figures()
    assert (shown["Billing"].value, shown["Billing"].tone) == ("off", "")
    assert "Live subscriptions" not in shown
    subscribe(make_workspace("free").workspace)
    left = figures()["Billing"]
    assert (left.window, left.tone) == ("live subscriptions that nobody follows: 1", parts.BAD)


@database
def test_billing_is_counted_and_leads_to_the_rows(console, settings):
    settings.LEMONSQUEEZY_API_KEY = "key"
    idle = figures()
    assert (idle["Variants on offer"].value, idle["Variants on offer"].tone) == ("0", parts.BAD)
    now, twice = utc_now(), make_workspace("free").workspace
    rows = [subscribe(twice, "pro"), subscribe(twice, "team", status="past_due")]
    rows += [subscribe(make_workspace("free").workspace, status=each) for each in ("unpaid", "expired")]
    hear(facts(new_id()))
    Subscription.objects.filter(pk=rows[0].pk).update(next_check_at=now - 3 * DAY)
    Subscription.objects.filter(pk=rows[1].pk).update(variant_id="999")
    ChangeRequest.objects.create(subscription=rows[0], kind="cancel", requested_at=now - timedelta(minutes=11))
    for number, event_state in enumerate(("waiting", "parked", "parked", "failed", "done")):
        BillingEvent.objects.create(
            provider="lemonsqueezy",
            dedupe_key=f"figures-{number}",
            name="subscription_updated",
            sealed_body="",
            state=event_state,
            received_at=now - timedelta(minutes=6),
        )
    for _ in range(3):
        count_refused("forged")
    with CaptureQueriesContext(connection) as queries:
        busy = figures()
    assert len([each for each in queries if "billing_" in each["sql"]]) <= 7
    wanted = {
        "Billing": ("on", ""),
        "Variants on offer": ("4", ""),
        "Provider's messages waiting": ("1", parts.BAD),
        "Messages that need an operator": ("2", parts.BAD),
        "Messages failed for good": ("1", parts.BAD),
        "Live subscriptions": ("4", ""),
        "Past due": ("1", ""),
        "Unpaid": ("1", parts.WARN),
        "Subscriptions without a workspace": ("1", parts.BAD),
        "Subscriptions without a plan": ("1", parts.BAD),
        "Workspaces that pay twice": ("1", parts.WARN),
        "Subscriptions not checked": ("1", parts.BAD),
        "Requests not confirmed": ("1", parts.WARN),
        "Webhooks refused today": ("3", ""),
        "Webhooks refused yesterday": ("0", ""),
    }
    assert {label: (busy[label].value, busy[label].tone) for label in wanted} == wanted
    assert busy["Webhooks refused today"].window == "UTC: 3 forged"
    for label in wanted:
        if busy[label].url:
            found = console.get(busy[label].url)
            assert found.status_code == 200, label
            if label != "Workspaces that pay twice":
                assert str(found.context["cl"].result_count) == busy[label].value, label


@database
def test_without_redis_the_rest_is_shown(monkeypatch):
    unreachable = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2, retry=None)
    monkeypatch.setattr(heartbeat, "client", lambda: unreachable)
    monkeypatch.setattr(parts, "client", lambda: unreachable)
    found = figures()
    unknown = {label for label, figure in found.items() if figure.value == "unknown"}
    assert unknown == {"Scheduler and worker", "Tasks waiting", "Redis memory"}
    assert found["Tasks waiting"].window == "could not be read: ConnectionError"
    assert "On Pro" in found


@pytest.mark.django_db(transaction=True)
def test_a_part_that_takes_too_long_is_given_up(console, monkeypatch):
    monkeypatch.setattr(state, "PATIENCE", "200ms")
    with psycopg.connect(conninfo()) as other:
        other.execute("LOCK TABLE ingest_refusal IN ACCESS EXCLUSIVE MODE")
        found = figures()
        assert found["Refused"].value == "unknown"
        assert found["Requests"].value == "0"
        assert console.get(reverse("admin:index")).status_code == 200
    assert "Refused" not in figures()
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)

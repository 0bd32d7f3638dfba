"""Pages of re-pricing, in front of the real engine: nothing here calls it but through pages, and as the worker does."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ingest import pricing
from ingest.models import Event, Limit, ModelPrice, Repricing, RepricingDay, RepricingState
from ingest.repricing import work_on_repricings
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import day_of
from tests.factories import make_cast
from tests.ingest.price_pages import Browser, text
from tests.ledger import make_event, make_events
from tests.pages import page
from tests.prices import add, bring_in, says, usd
from workspaces.models import AuditEntry

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("empty_catalogue")]

HOUR = timedelta(hours=1)
ZONE = ZoneInfo("Europe/Berlin")
QUERIES = 20
# 70 uncached and 30 cached input tokens at 2 USD, 50 output tokens at 8 USD per 1M.
NEW_COST = Decimal("0.0006")


@pytest.fixture
def cast():
    """A workspace in Berlin, and a catalogue of one model: 2 USD in, 8 USD out."""
    bring_in(says(usd("2", "8")), aliases=[("gpt-latest", "gpt")])
    return make_cast("pro", timezone=ZONE.key)


@pytest.fixture
def admin(cast):
    return Browser(cast, cast.admin)


@pytest.fixture
def viewer(cast):
    return Browser(cast, cast.viewer)


def stored(cast, number=3, **fields):
    """Requests of the last hours, stored without a price."""
    facts = {"model": "gpt", "cost_usd": None, "occurred_at": utc_now() - 6 * HOUR}
    return make_events(cast.workspace, number, apart=HOUR, **facts | fields)


def wish(**fields):
    """What the form sends for yesterday and today, as the workspace's clock has them."""
    today = utc_now().astimezone(ZONE).date()
    asked = {"provider": "openai", "models_sent": ["gpt"], "only_unpriced": "no", "reason": "It was missing"}
    return asked | {"start": f"{today - timedelta(days=1)}", "end": f"{today}"} | fields


def asked_for(browser, **fields):
    """A job that has been asked for on the page; no worker has looked at it."""
    browser.post("repricing-new", wish(**fields))
    return Repricing.objects.latest("pk")


def previewed(browser, **fields):
    job = asked_for(browser, **fields)
    work_on_repricings(60)
    return job


def shown(browser, job):
    return text(browser.get("repricing", args={"repricing_id": job.pk}))


def job_in(cast, state, *, days=(), **fields):
    """A job as it stands in the table. `days`: (is_preview, rows, before, after)."""
    now = utc_now()
    facts = {"reason": "It was too high", "start": now - timedelta(days=3), "end": now, "last_id": 0}
    facts |= {"catalogue_version": pricing.current_book().version}
    job = Repricing.objects.create(workspace=cast.workspace, created_by=cast.admin, state=state, **facts | fields)
    for number, (is_preview, rows, before, after) in enumerate(days):
        RepricingDay.objects.create(
            repricing=job,
            day=day_of(now - timedelta(days=number)).start,
            is_preview=is_preview,
            rows=rows,
            before_usd=Decimal(before),
            after_usd=Decimal(after),
        )
    return job


# --- The list -------------------------------------------------------------------------------------------------------


def test_an_empty_list_says_when_one_needs_it(cast, admin, viewer):
    for browser in (admin, viewer):
        assert "after a price was added or corrected" in text(browser.get("repricings"))
    assert page(admin.get("repricings")).all("a", href=admin.url("repricing-new"))
    assert not page(viewer.get("repricings")).all("a", href=viewer.url("repricing-new"))
    assert "Owners and admins of this workspace can re-price requests" in text(viewer.get("repricings"))


def test_jobs_are_listed_newest_first_with_what_they_change(cast, viewer):
    names = {"provider": "openai", "models_sent": ["a", "b", "c"]}
    job_in(cast, "done", days=[(True, 9, "9", "1"), (False, 4, "5", "2.5")], **names)
    job_in(cast, "previewed", days=[(True, 1200, "1", "3"), (False, 7, "7", "7")])
    newest, oldest = page(viewer.get("repricings")).one("table").rows()
    assert newest[0].startswith("all models")
    assert newest[1:4] == ["Waiting for your confirmation", "1,200", "+$2.00 if confirmed"]
    assert oldest[0].startswith("a, b and 1 more of openai")
    assert oldest[1:4] == ["Done", "4", "−$2.50"]
    assert "It was too high" in oldest[4]
    assert "The admin" in oldest[4]


def test_a_list_costs_few_queries(cast, viewer):
    for _ in range(5):
        job_in(cast, "done", days=[(True, 1, "1", "2")])
    viewer.get("repricings")
    with CaptureQueriesContext(connection) as queries:
        viewer.get("repricings")
    assert len(queries) <= QUERIES


# --- Asking ---------------------------------------------------------------------------------------------------------


def test_the_form_offers_what_was_sent(cast, admin):
    stored(cast)
    make_event(cast.workspace, provider="azure", model="gpt-4", occurred_at=utc_now() - HOUR)
    form = page(admin.get("repricing-new")).one("form", "repricing-form")
    assert [option.text for option in form.one("select", name="provider").all("option")] == [
        "All of them",
        "azure",
        "openai",
    ]
    assert "gpt (openai; 3 requests, 3 without a price)" in form.text
    assert "gpt-4 (azure; 1 request)" in form.text
    days = [form.one("input", name=name).attributes["value"] for name in ("start", "end")]
    assert days[0] <= days[1]
    assert form.all("input", name="models_sent", checked="") == []


def test_without_requests_there_is_nothing_to_choose(cast, admin):
    assert "There is nothing to price again" in text(admin.get("repricing-new"))


def test_the_inbox_leads_here_with_everything_filled_in(cast, admin, viewer):
    stored(cast)
    stored(cast, model="gpt-latest", number=1)
    inbox = page(admin.get("prices-unpriced"))
    (link,) = [each for each in inbox.all("a") if each.text == "Price the backlog"]
    form = page(admin.client.get(link.attributes["href"])).one("form", "repricing-form")
    assert chosen(form) == {"gpt", "gpt-latest"}
    assert form.all("input", name="only_unpriced", value="yes", checked="")
    assert "Price the backlog" not in text(viewer.get("prices-unpriced"))


def chosen(form):
    return {each.attributes["value"] for each in form.all("input", name="models_sent", checked="")}


def test_a_price_leads_here_with_all_names_that_mean_it(cast, admin, operator):
    since = utc_now() - timedelta(days=2)
    stored(cast, cost_usd=Decimal(1))
    stored(cast, model="gpt-latest", number=1, cost_usd=Decimal(1))
    stored(cast, model="other", number=1)
    add(operator, effective_from=since, unit_prices=usd("1", "4"))
    links = page(admin.get("price", provider="openai", model="gpt")).all("a")
    (link,) = [each for each in links if each.text == "Re-price since this price"]
    form = page(admin.client.get(link.attributes["href"])).one("form", "repricing-form")
    assert chosen(form) == {"gpt", "gpt-latest"}
    assert form.all("option", value="openai", selected="")
    assert form.all("input", name="only_unpriced", value="no", checked="")


def test_a_link_to_a_name_of_which_nothing_is_stored_says_so(cast, admin):
    stored(cast)
    said = text(admin.get("repricing-new", provider="acme", model="<b>", **{"from": "nonsense"}))
    assert "No request of acme / &lt;b&gt; is stored singly any more" in said


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"reason": ""}, "This field is required"),
        ({"reason": "x" * 201}, "at most 200 characters"),
        ({"start": ""}, "This field is required"),
        ({"start": "2000-01-01"}, "older ones are only sums"),
        ({"end": "9999-12-31"}, "is the last day there is"),
        ({"start": f"{utc_now().date()}", "end": f"{utc_now().date() - timedelta(days=1)}"}, "before the first one"),
        ({"models_sent": ["never-sent"]}, "never-sent"),
        ({"provider": "azure"}, "Not sent with the provider azure: gpt"),
        ({"only_unpriced": "perhaps"}, "perhaps"),
    ],
)
def test_what_is_wrong_is_said_beside_what_was_entered(cast, admin, fields, complaint):
    stored(cast)
    make_event(cast.workspace, provider="azure", model="gpt-4", occurred_at=utc_now() - HOUR)
    response = admin.post("repricing-new", wish(**{"reason": "Kept as it was"} | fields), 422)
    assert complaint in text(response)
    assert ("Kept as it was" in response.content.decode()) is ("reason" not in fields)
    assert Repricing.objects.count() == 0


def test_days_are_those_of_the_workspace(cast, admin):
    stored(cast)
    yesterday = utc_now().astimezone(cast.workspace.timezone).date() - timedelta(days=1)
    job = asked_for(admin, start=f"{yesterday}", end=f"{yesterday}", only_unpriced="yes")
    start = datetime(yesterday.year, yesterday.month, yesterday.day, tzinfo=cast.workspace.timezone)
    assert job.start == start.astimezone(UTC)
    assert job.end == (start + timedelta(days=1)).astimezone(UTC)
    assert (job.provider, job.models_sent, job.only_unpriced, job.reason) == ("openai", ["gpt"], True, "It was missing")
    assert f"{yesterday:%-d %b %Y} (Europe/Berlin) · only those without a price" in shown(admin, job)


def test_only_one_at_a_time(cast, admin):
    stored(cast)
    job = asked_for(admin)
    assert "Another re-pricing is not finished yet" in text(admin.get("repricing-new"))
    assert "Another re-pricing" in text(admin.post("repricing-new", wish(reason="Kept"), 422))
    assert Repricing.objects.get() == job


# --- From the wish to the end ---------------------------------------------------------------------------------------


def test_a_job_shows_how_far_it_is_and_asks_until_it_is_done(cast, admin):
    stored(cast)
    job = asked_for(admin)
    address = admin.url("repricing", repricing_id=job.pk)
    whole = page(admin.get("repricing", args={"repricing_id": job.pk}))
    assert whole.one("div", id="repricing-job").attributes["hx-get"] == address
    assert whole.one("progress").attributes["max"] == "3"
    work_on_repricings(60)
    part = admin.get("repricing", args={"repricing_id": job.pk}, headers={"HX-Request": "true"})
    assert "<html" not in part.content.decode()
    assert "hx-get" not in page(part).one("div", id="repricing-job").attributes
    assert "3 of 3 requests change" in text(part)


def test_nothing_changes_before_the_second_answer(cast, admin):
    events = stored(cast)
    job = previewed(admin)
    said = shown(admin, job)
    assert "3 of 3 requests change; +$0.0018 ; 3 get their first price" in said
    assert "Alerts that were sent are not sent again" in said
    assert "What was charged at first stays visible" in said
    asked = text(admin.get("repricing-run", args={"repricing_id": job.pk}))
    assert "Re-price 3 requests?" in asked
    assert "from $0.00 to $0.0018" in asked
    work_on_repricings(60)
    assert set(Event.objects.values_list("cost_usd", flat=True)) == {None}
    assert len(events) == 3


def test_after_the_second_answer_requests_have_their_price_and_keep_what_was_charged(cast, admin):
    event = stored(cast)[0]
    job = previewed(admin)
    admin.post("repricing-run", {}, repricing_id=job.pk)
    assert "0 of about 3 requests looked at" in shown(admin, job)
    work_on_repricings(60)
    said = shown(admin, job)
    assert "3 requests have another cost (+$0.0018) ; 3 got their first price. The preview said 3 and +$0.0018" in said
    event.refresh_from_db()
    assert event.cost_usd == NEW_COST
    explained = text(admin.get("request", args={"event_id": event.pk}))
    assert "Stored without a price at first · re-priced to $0.0006 on" in explained
    assert f"by re-pricing {job.pk}" in explained
    assert "The sum is the stored cost, to the last digit" in explained
    assert AuditEntry.objects.filter(action="repricing.started", actor=cast.admin).exists()


def test_a_corrected_price_leaves_the_old_one_in_sight(cast, admin, operator):
    old = ModelPrice.objects.get(provider="openai", model="gpt")
    (event,) = stored(cast, number=1, cost_usd=NEW_COST, price_id=old.pk)
    add(operator, unit_prices=usd("1", "4"))
    job = previewed(admin)
    admin.post("repricing-run", {}, repricing_id=job.pk)
    work_on_repricings(60)
    explained = text(admin.get("request", args={"event_id": event.pk}))
    assert f"Charged $0.0006 at first (price row {old.pk}, openai / gpt) · re-priced to $0.0003" in explained
    assert "As re-priced, by the price row that counts now" in explained


def test_budgets_of_running_periods_are_told_before(cast, admin):
    Limit.objects.create(
        workspace=cast.workspace,
        name="Tiny",
        measure="usd",
        period="month",
        amount=Decimal("0.001"),
        thresholds=[1],
        enforce=False,
        source="budgets",
        source_id="tiny",
    )
    for _ in range(2):
        stored(cast, occurred_at=utc_now(), number=1)
    job = previewed(admin)
    rows = page(admin.get("repricing", args={"repricing_id": job.pk})).all("table")
    told = [row for table in rows for row in table.rows() if row[0].startswith("Tiny")]
    assert told == [["Tiny would be exceeded", "$0.00", "$0.0012", "$0.0010 a month"]]


def test_a_request_leads_to_the_budgets_that_apply_to_it(cast, viewer):
    event = make_event(cast.workspace, external_request_id="a/b c")
    links = page(viewer.get("request", args={"event_id": event.pk})).all("a")
    (link,) = [each for each in links if each.text == "Which budgets apply to this request?"]
    assert link.attributes["href"] == viewer.url("budgets-explain") + "?request=a%2Fb%20c"


def test_a_preview_without_budgets_says_so(cast, admin):
    stored(cast, data_mode="test")
    assert "None: no budget of a running day or month counts these requests." in shown(admin, previewed(admin))


def test_a_preview_may_find_nothing(cast, admin):
    stored(cast, model="unknown-model")
    job = previewed(admin, models_sent=[], provider="")
    said = shown(admin, job)
    assert "Nothing: each of the 3 requests" in said
    assert not page(admin.get("repricing", args={"repricing_id": job.pk})).all(
        "a", href=admin.url("repricing-run", repricing_id=job.pk)
    )


def test_a_preview_by_old_prices_is_made_again(cast, admin, viewer, operator):
    stored(cast)
    job = previewed(admin)
    add(operator, unit_prices=usd("1", "4"))
    run = admin.url("repricing-run", repricing_id=job.pk)
    for browser in (admin, viewer):
        assert "Prices have changed since this preview" in shown(browser, job)
        assert not page(browser.get("repricing", args={"repricing_id": job.pk})).all("a", href=run)
    admin.post("repricing-run", {}, repricing_id=job.pk)
    assert "Prices have changed since the preview" in shown(admin, job)
    admin.post("repricing-again", {}, repricing_id=job.pk)
    work_on_repricings(60)
    assert "+$0.0009" in shown(admin, job)
    assert "Prices have changed since this preview" not in shown(admin, job)


def test_a_preview_can_be_discarded(cast, admin):
    stored(cast)
    job = previewed(admin)
    assert "Discard this preview?" in text(admin.get("repricing-cancel", args={"repricing_id": job.pk}))
    admin.post("repricing-cancel", {}, repricing_id=job.pk)
    said = shown(admin, job)
    assert "Nothing was changed" in said
    assert "No request was changed. The preview said 3 requests" in said


def test_a_run_can_be_stopped_and_keeps_what_is_done(cast, admin):
    job = job_in(cast, "running", days=[(False, 4, "1", "3")], expected_rows=9, looked_at_rows=5)
    asked = text(admin.get("repricing-cancel", args={"repricing_id": job.pk}))
    assert "What is done by then stays: so far 4 requests, +$2.00." in asked
    admin.post("repricing-cancel", {}, repricing_id=job.pk)
    assert "What is done stays; the others keep the cost that they have." in shown(admin, job)


def test_a_failed_job_says_why(cast, viewer):
    job = job_in(cast, "failed", error="Something went wrong.", finished_at=utc_now())
    assert "Something went wrong." in shown(viewer, job)


@pytest.mark.parametrize("state", ["done", "cancelled", "failed"])
def test_what_is_finished_is_not_asked_about(cast, admin, state):
    job = job_in(cast, state, finished_at=utc_now())
    for name in ("repricing-run", "repricing-cancel"):
        response = admin.client.get(admin.url(name, repricing_id=job.pk), follow=True)
        assert response.redirect_chain
    for name in ("repricing-run", "repricing-cancel", "repricing-again"):
        admin.post(name, {}, repricing_id=job.pk)
    job.refresh_from_db()
    assert job.state == state


# --- Who ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", RepricingState.values)
def test_everybody_may_look_and_nobody_else_may_act(cast, state):
    job = job_in(cast, state, days=[(True, 2, "1", "2"), (False, 1, "1", "2")])
    for person in (cast.viewer, cast.member):
        browser = Browser(cast, person)
        links = page(browser.get("repricing", args={"repricing_id": job.pk})).all("a")
        addresses = {each.attributes["href"] for each in links}
        for name in ("repricing-run", "repricing-cancel"):
            assert browser.url(name, repricing_id=job.pk) not in addresses
            browser.post(name, {}, 403, repricing_id=job.pk)
        browser.post("repricing-again", {}, 403, repricing_id=job.pk)
        browser.get("repricing-new", 403)
    job.refresh_from_db()
    assert job.state == state


def test_an_old_request_says_that_it_can_be_priced_now(cast, admin, viewer):
    (event,) = stored(cast, number=1)
    link = page(admin.get("request", args={"event_id": event.pk})).one("section").all("a")
    assert any(each.attributes["href"].startswith(admin.url("repricing-new")) for each in link)
    assert "until an owner or admin re-prices it" in text(viewer.get("request", args={"event_id": event.pk}))

"""A summary as mail and for chat: the same figures in subject, text and HTML, whatever names people have chosen."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html import unescape
from io import BytesIO
from uuid import uuid4

import pytest
from django.test import override_settings
from PIL import Image

from alerts.models import Report, ReportKind
from alerts.reports import chart, sentences
from alerts.reports.alert_figures import MOST_LINES
from alerts.reports.content import RANKED, RANKED_ROWS
from alerts.reports.figures import (
    AlertLine,
    Alerts,
    Arrival,
    Bar,
    BudgetDay,
    Change,
    DailyBudget,
    Effect,
    MonthForecast,
    MonthlyBudget,
    Mover,
    Ranking,
    Refused,
    RefusedSpell,
    ReportContent,
    Row,
    Usage,
)
from alerts.reports.mail import report_brief, report_mail
from ingest.drivers import Driver
from workspaces.models import Workspace

DAY = date(2026, 11, 21)
MIDNIGHT = datetime(2026, 11, 20, 23, tzinfo=UTC)
LEAVE = "https://ops.example/mail/unsubscribe/token/"
NASTY = '<img src=x onerror="alert(1)">\u202e\r\nBcc: all@example.com ' + "x" * 200


def usage(cost, requests=10, **more):
    return Usage(requests=requests, tokens=1_500, cost_usd=Decimal(cost), **more)


def full_content(kind=ReportKind.DAILY, name="chat", **changes):
    week = kind != ReportKind.DAILY
    first = DAY - timedelta(days=6) if week else DAY
    bars = 7 if week else 24
    step = timedelta(days=1) if week else timedelta(hours=1)
    facts = {
        "kind": kind,
        "zone": "UTC" if kind == ReportKind.EXECUTIVE else "Europe/Berlin",
        "first_day": first,
        "last_day": DAY,
        "before_first_day": first - (DAY - first) - timedelta(days=1),
        "before_last_day": first - timedelta(days=1),
        "as_of": datetime(2026, 11, 22, 8, tzinfo=UTC),
        "newest_data_at": datetime(2026, 11, 22, 7, 45, tzinfo=UTC),
        "now": usage("41.25", 3_100, errors=31, unpriced_requests=12),
        "before": usage("36.85", 2_400),
        "bars": tuple(
            Bar(start=MIDNIGHT + n * step, cost_usd=Decimal(n) / 4, before_usd=Decimal(7 - n % 7) / 4)
            for n in range(bars)
        ),
        "change": Change(
            effects=(
                Effect(driver="volume", amount_usd=Decimal(5)),
                Effect(driver="price", amount_usd=Decimal("-0.6")),
            ),
            main="volume",
            movers=(Mover(endpoint_tag=name, before_usd=Decimal(30), now_usd=Decimal(35), driver="volume"),),
        ),
        "rankings": (
            Ranking(dimension="endpoint_tag", rows=(Row(value=name, now=usage(35), before=usage(30)),), more=2),
            Ranking(dimension="tenant_id", rows=(Row(value=name, now=usage(35), before=Usage()),)),
        ),
        "arrivals": (Arrival(dimension="model", value=name, provider="openai", requests=3, cost_usd=Decimal("0.004")),),
        "arrivals_days": 90,
        "unpriced_models": (f"openai/{name}",),
        "refused": Refused(
            requests=120,
            cost_usd=Decimal("3.2"),
            spells=(
                RefusedSpell(
                    start=MIDNIGHT,
                    end=MIDNIGHT + timedelta(minutes=30),
                    reason="budget_exceeded",
                    requests=120,
                    cost_usd=Decimal("3.2"),
                ),
            ),
        ),
        "alerts": Alerts(
            lines=(
                AlertLine(
                    id=str(uuid4()),
                    kind="unit_cost",
                    severity="critical",
                    state="open",
                    handling="summary",
                    title=f"Unit cost of {name}",
                    opened_at=MIDNIGHT,
                ),
            ),
            total=14,
            critical=1,
            held=2,
            repeats=1,
        ),
        "daily_budget": DailyBudget(
            limit_usd=Decimal(50),
            warning_ratio=Decimal("0.8"),
            days=tuple(
                BudgetDay(day=first + n * timedelta(days=1), spend_usd=Decimal("41.25") + n)
                for n in range((DAY - first).days + 1)
            ),
        ),
        "monthly_budget": MonthlyBudget(
            month=date(2026, 11, 1), spend_usd=Decimal("412.55"), limit_usd=Decimal(500), is_running=True
        ),
        "forecast": MonthForecast(
            month=date(2026, 11, 1),
            spend_usd=Decimal("412.55"),
            expected_usd=Decimal(560),
            low_usd=Decimal(540),
            high_usd=Decimal(590),
            limit_usd=Decimal(500),
            expected_at=datetime(2026, 11, 27, tzinfo=UTC),
            earliest_at=datetime(2026, 11, 25, tzinfo=UTC),
        ),
    }
    return ReportContent(**facts | changes)


def report_with(content, workspace_name="Acme", **facts):
    workspace = Workspace(name=workspace_name, slug="acme", timezone="Europe/Berlin")
    return Report(
        workspace=workspace,
        schedule_id=facts.get("schedule_id", 1),
        kind=content.kind,
        zone=content.zone,
        first_day=content.first_day,
        last_day=content.last_day,
        title=sentences.title_of(workspace.name, content),
        content=content.to_json(),
    )


@pytest.fixture(params=ReportKind.values)
def kind(request):
    return request.param


@override_settings(OPSMETER_URL="https://ops.example")
def test_subject_text_and_html_say_the_same(kind):
    report = report_with(full_content(kind))
    mail = report_mail(report, LEAVE)
    html = unescape(mail.html)
    budget = "daily budget 82.5%" if kind == ReportKind.DAILY else "monthly budget 82.5%"
    assert mail.subject.startswith("Acme · ")
    assert mail.subject.endswith(f"at least $41.25, up 12% · {budget}")
    for words in (
        "Spend was at least $41.25",
        "up 12% ($4.40) from $36.85",
        "Mostly volume (+$5.00): 3,100 requests, 2,400 before. Also: price −$0.60.",
        "$412.55 of $500.00 (82.5%) in November so far.",
        "November is expected to end at $560.00, between $540.00 and $590.00.",
        "The monthly budget of $500.00 will be exceeded on about 27 November, at the earliest 25 November.",
        "12 requests (0.4%) without a price, counted as $0: true spend is higher.",
        "120 requests (3.7% of what arrived) refused, budget hard stop; about $3.20",
        "the newest data is of 22 Nov 2026, ",
        "14 alerts, 1 critical, 2 held by the cooldown or quiet hours, 1 repeat only counted.",
        f"https://ops.example/w/acme/reports/{report.pk}/",
        "https://ops.example/w/acme/settings/summaries/",
        LEAVE,
    ):
        assert words in mail.text, words
        assert words in html, words


def test_the_executive_report_leaves_details_out_and_says_what_is_at_risk():
    mail = report_mail(report_with(full_content(ReportKind.EXECUTIVE)), LEAVE)
    assert "At the pace of these 7 days, a month of 30 days costs $176.79: 35.4% of the monthly budget" in mail.text
    assert "WHAT NEEDS ATTENTION" in mail.text
    assert "TOP ENDPOINTS" not in mail.text
    assert "Top endpoints" not in mail.html


@override_settings(OPSMETER_URL="https://ops.example")
def test_the_link_leads_to_exactly_these_days_where_the_console_has_them():
    query = "range=custom&from=2026-11-21&to=2026-11-21&env=all&mode=real"
    daily = report_mail(report_with(full_content()), LEAVE)
    assert f"https://ops.example/w/acme/investigate/?{query}" in daily.text
    assert "/investigate/" not in report_mail(report_with(full_content(ReportKind.EXECUTIVE)), LEAVE).text


def test_a_day_with_nothing_takes_one_line():
    empty = full_content(
        now=Usage(),
        before=Usage(),
        bars=(),
        change=Change(),
        rankings=(),
        arrivals=(),
        refused=Refused(),
        alerts=Alerts(),
    )
    mail = report_mail(report_with(empty), LEAVE)
    assert mail.subject == "Acme · Saturday 21 Nov: nothing happened"
    assert "Nothing happened on Saturday: no request, none refused, no alert." in mail.text
    assert "BUDGET" not in mail.text
    assert mail.images == ()
    assert "<img" not in mail.html
    assert report_brief(report_with(empty)) == ("Nothing happened on Saturday: no request, none refused, no alert.", ())


def test_names_can_be_anything(kind):
    report = report_with(full_content(kind, name=NASTY), workspace_name=NASTY)
    mail = report_mail(report, LEAVE)
    assert "\n" not in mail.subject
    assert len(report.title) <= 200
    assert "<img src=x" not in mail.html
    assert "\u202e" not in mail.subject + mail.text + mail.html
    assert "x" * 100 not in mail.text
    assert not any(line.startswith("Bcc:") for line in mail.text.splitlines())
    text, facts = report_brief(report)
    assert "\u202e" not in text + "".join(fact.value for fact in facts)


def test_the_mail_asks_nobody_for_anything_and_says_who_gets_it():
    mail = report_mail(report_with(full_content()), LEAVE)
    for part in ("<script", "<link", "@import", "url("):
        assert part not in mail.html
    assert 'src="cid:chart"' in mail.html
    assert 'lang="en"' in mail.html
    assert "You get the daily summary because you are a recipient of the summaries of Acme." in mail.text
    by_hand = report_mail(report_with(full_content(), schedule_id=None), "")
    assert "(preview)" in by_hand.text
    assert "You get this daily summary once, because somebody in Acme asked for it" in by_hand.text
    assert "Unsubscribe" not in by_hand.text + by_hand.html


def test_the_chart_is_small_and_sharp_and_its_words_say_what_it_shows(kind):
    content = full_content(kind)
    (image,) = report_mail(report_with(content), LEAVE).images
    assert len(image.png) <= 30_000
    drawn = Image.open(BytesIO(image.png)).convert("RGBA")
    assert drawn.size == (2 * chart.WIDTH, 2 * chart.HEIGHT)
    assert drawn.getpixel((0, 0))[3] == 0
    words = chart.alternative_text(content)
    assert "at least $41.25 in all" in words
    assert "$36.85 in all" in words
    assert ("Highest: 23:00 with $5.75" if kind == ReportKind.DAILY else "with $1.50") in words


def test_a_chart_of_hardly_anything_can_be_drawn():
    for cost in ("0", "0.000000000001", "99999999.99"):
        bars = (Bar(start=MIDNIGHT, cost_usd=Decimal(cost), before_usd=Decimal(0)),)
        assert chart.draw(full_content(bars=bars)).startswith(b"\x89PNG")


def test_chat_gets_three_sentences_and_eight_facts_at_most(kind):
    text, facts = report_brief(report_with(full_content(kind)))
    assert text.startswith("Spend was at least $41.25")
    assert text.count(". ") + 1 <= 3
    assert 0 < len(facts) <= 8
    assert {"Requests", "Daily budget", "Forecast", "Refused"} <= {fact.label for fact in facts}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"before": Usage()}, "Spend was at least $41.25 on Saturday; nothing was spent the day before."),
        ({"before": usage("41.25")}, "Spend was at least $41.25 on Saturday, as much as the day before."),
        (
            {"before": usage("40", unpriced_requests=1)},
            "Spend was at least $41.25 on Saturday, up 3.1% ($1.25) from at least $40.00 the day before.",
        ),
        (
            {"now": usage("0"), "before": usage("0", unpriced_requests=1)},
            "Spend was $0.00 on Saturday; at least $0.00 was spent the day before.",
        ),
        (
            {"now": Usage(), "refused": Refused()},
            "No request was stored on Saturday; $36.85 was spent the day before.",
        ),
        ({"now": Usage(), "before": Usage()}, "No request was stored on Saturday; 120 were refused."),
        (
            {"now": Usage(), "before": Usage(), "refused": Refused(requests=1)},
            "No request was stored on Saturday; 1 was refused.",
        ),
    ],
)
def test_the_headline_of_unusual_days(changes, words):
    assert sentences.headline(full_content(**changes)) == words


def test_one_of_anything_is_not_many():
    spells = tuple(
        RefusedSpell(start=MIDNIGHT, end=MIDNIGHT, reason="budget_exceeded", requests=1, cost_usd=Decimal(0))
        for _ in range(5)
    )
    arrival = Arrival(dimension="model", value="small", provider="openai", requests=1, cost_usd=Decimal(1))
    one = full_content(now=usage("50", 1), refused=Refused(requests=1, spells=spells), arrivals=(arrival,))
    mail = report_mail(report_with(one), LEAVE)
    for words in (
        "1 request, 2,400 before",
        "1 request (50.0% of what arrived) refused",
        "and 1 more time.",
        "1 request\n",
    ):
        assert words in mail.text, words
    only_refused = report_with(full_content(now=Usage(), refused=Refused(requests=1, spells=spells[:1])))
    assert only_refused.title == "Acme · Saturday 21 Nov: 1 request refused"


def test_the_executive_report_explains_the_names_of_drivers():
    mail = report_mail(report_with(full_content(ReportKind.EXECUTIVE)), LEAVE)
    for words in ("Volume: more or fewer requests, at the average cost", "Price: the same tokens cost more or less"):
        assert words in mail.text
        assert words in mail.html


@pytest.mark.parametrize("name", ["endpoint-" * 25, "\u4e2d" * 200], ids=["latin", "chinese"])
def test_mail_with_the_longest_names_is_not_clipped(kind, name):
    """Gmail shows about 102 KB of a mail and hides the rest, with it the link to unsubscribe."""
    row = Row(value=name, provider=name, now=usage("35123.12", 12_345_678), before=usage("31"))
    many = full_content(
        kind,
        name,
        change=Change(
            effects=tuple(Effect(driver=each.value, amount_usd=Decimal(-1)) for each in Driver),
            main="price",
            main_endpoint=name,
            movers=(Mover(endpoint_tag=name, before_usd=Decimal(1), now_usd=Decimal(2), driver="price"),) * 5,
        ),
        rankings=tuple(Ranking(dimension=each, rows=(row,) * RANKED_ROWS, more=9) for each in RANKED),
        arrivals=(Arrival(dimension="model", value=name, provider=name, requests=1, cost_usd=Decimal(1)),) * 8,
        unpriced_models=(f"{name}/{name}",) * 5,
        alerts=Alerts(lines=(replace(full_content(kind, name).alerts.lines[0], title=name),) * MOST_LINES, total=99),
    )
    assert len(report_mail(report_with(many, name), LEAVE).html.encode()) < 102_000


@pytest.mark.parametrize(
    ("zone", "day", "words"),
    [
        ("Europe/Berlin", date(2026, 3, 29), "Sunday, 29 March 2026 (23 hours: clocks were changed)"),
        ("Australia/Lord_Howe", date(2026, 4, 5), "Sunday, 5 April 2026 (24.5 hours: clocks were changed)"),
        ("UTC", date(2026, 3, 29), "Sunday, 29 March 2026"),
    ],
)
def test_the_window_says_when_its_day_is_not_as_long_as_others(zone, day, words):
    assert sentences.window(full_content(zone=zone, first_day=day, last_day=day)) == words

"""Mails about alerts: what they say, in text and in HTML, in light and in dark."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from django.http import HttpResponse

from alerts.alert_mail import MOST_SHOWN, alert_mail, notice_mail
from alerts.messages import AlertItem, Fact, Message
from alerts.models import Action, AlertKind, Severity
from tests.pages import page

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)
NOTE = "This was held by quiet hours until 08:00 (Europe/Berlin); it has cleared since."
REASON = "Sent to ada@example.com: as owner, you get the alerts of the workspace Acme & Söhne."


def read(html):
    return page(HttpResponse(html))


def make_item(number=1, **changes):
    return replace(
        AlertItem(
            id=str(number),
            kind=AlertKind.BUDGET_EXCEEDED,
            severity=Severity.CRITICAL,
            title="Daily budget exceeded: $52.10 of $50.00",
            text="Spend of the UTC day is above <the budget> & more.",
            facts=(Fact("So far", "$52.10"), Fact("Limit", "$50.00")),
            url=f"https://opsmeter.example/w/acme/alerts/{number}/",
            dedup_key="limit:1",
            opened_at=NOON,
            window_start=NOON,
            window_end=NOON,
            has_cleared=False,
        ),
        **changes,
    )


def make_message(first=None, *others, **changes):
    items = (first or make_item(), *others)
    return replace(
        Message(
            id="0d9b8bb5",
            action=Action.ALERT,
            severity=Severity.CRITICAL,
            workspace_id="1",
            workspace_name="Acme & Söhne",
            workspace_slug="acme",
            title=items[0].title,
            text=items[0].text,
            url=items[0].url,
            created_at=NOON,
            items=items,
            recipient="ada@example.com",
            unsubscribe_url="https://opsmeter.example/unsubscribe/token/",
        ),
        **changes,
    )


def test_the_subject_says_it_all():
    assert alert_mail(make_message(), "", REASON).subject == "Acme & Söhne: Daily budget exceeded: $52.10 of $50.00"


def test_the_subject_is_one_line_whatever_the_names_are():
    message = make_message(workspace_name="Acme\r\nBcc: all@example.com", title="a\nb")
    assert alert_mail(message, "", REASON).subject == "Acme Bcc: all@example.com: a b"


@pytest.mark.parametrize("part", ["text", "html"])
def test_both_parts_say_the_same(part):
    mail = alert_mail(make_message(), NOTE, REASON)
    said = mail.text if part == "text" else read(mail.html).text
    for each in ("$52.10 of $50.00", "above <the budget> & more", NOTE, "So far", REASON):
        assert each in said
    for link in ("/w/acme/alerts/1/", "/unsubscribe/token/", "/w/acme/settings/recipients/"):
        assert link in getattr(mail, part)


def test_html_works_without_style_sheets_and_in_the_dark():
    html = alert_mail(make_message(), "", REASON).html
    body = html[html.index("<body") :]
    assert "<script" not in html
    assert "<link" not in html
    assert 'style="' in body[body.index("<h1") :][:200]
    assert "@media (prefers-color-scheme: dark)" in html
    assert 'name="color-scheme"' in html


@pytest.mark.parametrize(
    ("message", "label", "pill"),
    [
        (make_message(), "Critical", "pill-bad"),
        (make_message(make_item(severity=Severity.WARNING)), "Warning", "pill-warn"),
        (make_message(make_item(has_cleared=True)), "Cleared", "pill-good"),
        (make_message(action=Action.RESOLVE), "Resolved", "pill-good"),
        (make_message(make_item(kind=AlertKind.RECOVERY, severity=Severity.INFO)), "Resolved", "pill-good"),
    ],
)
def test_the_label_says_how_it_stands(message, label, pill):
    assert read(alert_mail(message, "", REASON).html).one("span", pill).text == label


def test_several_are_told_one_by_one():
    items = [make_item(number, title=f"Alert number {number}.") for number in range(MOST_SHOWN + 5)]
    mail = alert_mail(make_message(*items, title="25 alerts: Alert number 0. and 24 more"), "", REASON)
    assert mail.subject == "Acme & Söhne: 25 alerts: Alert number 0. and 24 more"
    for said in (mail.text, read(mail.html).text):
        assert f"Alert number {MOST_SHOWN - 1}." in said
        assert f"Alert number {MOST_SHOWN}." not in said
        assert "And 5 more" in said


def test_a_notice_says_why_it_came_and_offers_no_way_out():
    message = make_message(
        action=Action.CHANNEL_OFF, title="The channel Ops was switched off", items=(), unsubscribe_url="",
        text="It refused a message for good.", facts=(Fact("Answer", "HTTP 410: <gone>"),),
    )  # fmt: skip
    mail = notice_mail(message, REASON)
    assert mail.subject == "Acme & Söhne: The channel Ops was switched off"
    for said in (mail.text, read(mail.html).text):
        assert "HTTP 410: <gone>" in said
        assert REASON in said
        assert "Unsubscribe" not in said

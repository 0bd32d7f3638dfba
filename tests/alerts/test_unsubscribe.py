"""Leaving by one click without signing in, and coming back."""

import logging
from urllib.parse import urlsplit

import pytest
from django.test import Client

from alerts.models import MailOptOut, MailTopic, OptOutReason
from alerts.recipients import mail_addresses
from alerts.unsubscribing import unsubscribe_url
from opsmeter_site.lib.logs import redact_text
from tests.factories import make_cast
from tests.pages import page
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db

ALERTS, SUMMARIES = MailTopic.ALERTS, MailTopic.SUMMARIES


@pytest.fixture
def browser():
    """Nobody is signed in, and forgery is looked for as in production."""
    return Client(enforce_csrf_checks=True)


def path(cast, topic=ALERTS):
    return urlsplit(unsubscribe_url(cast.workspace.pk, cast.owner.email, topic)).path


def is_subscribed(cast, topic=ALERTS):
    return cast.owner.email in mail_addresses(cast.workspace.pk, topic)


def test_the_link_is_absolute_and_always_the_same(cast, settings):
    settings.OPSMETER_URL = "https://ops.example.com"
    first, second = (unsubscribe_url(cast.workspace.pk, email, ALERTS) for email in ("ada@x.org", "ADA@x.org"))
    assert first == second
    assert first.startswith("https://ops.example.com/mail/unsubscribe/")


def test_a_scanner_that_opens_the_link_changes_nothing(cast, browser):
    response = browser.get(path(cast))
    assert response.status_code == 200
    assert is_subscribed(cast)
    assert cast.owner.email in page(response).text
    assert browser.head(path(cast)).status_code == 200
    assert is_subscribed(cast)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("", "application/x-www-form-urlencoded"),
        ("List-Unsubscribe=One-Click", "application/x-www-form-urlencoded"),
        (
            '--x\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
    ],
)
def test_one_post_without_cookies_unsubscribes(cast, browser, body, content_type):
    response = browser.post(path(cast), body, content_type=content_type)
    assert response.status_code == 200
    assert not is_subscribed(cast)
    assert is_subscribed(cast, SUMMARIES)
    assert "You are unsubscribed" in page(response).text


def test_the_buttons_of_the_pages_lead_there_and_back(cast, browser):
    for expected in ("You are unsubscribed", "You are subscribed", "You are unsubscribed"):
        found = page(browser.get(path(cast)))
        action = found.one("form").attributes["action"]
        assert expected in page(browser.post(action)).text
    assert not is_subscribed(cast)
    actions = AuditEntry.objects.filter(workspace=cast.workspace, action__startswith="recipient.").order_by("pk")
    assert [action.removeprefix("recipient.") for action in actions.values_list("action", flat=True)] == [
        "unsubscribed",
        "subscribed_again",
        "unsubscribed",
    ]


def test_the_second_click_says_the_same_and_is_noted_once(cast, browser):
    pages = [page(browser.post(path(cast))).one("main").text for _ in range(2)]
    assert pages[0] == pages[1]
    assert MailOptOut.objects.count() == 1
    assert AuditEntry.objects.filter(action="recipient.unsubscribed").count() == 1


def test_what_is_not_our_link_opens_nothing(cast, browser):
    whole = path(cast)
    token = whole.split("/")[-2]
    other = path(make_cast("pro")).split("/")[-2]
    mixed = f"{other.split(':')[0]}:{token.split(':')[1]}"
    for bad in ("nothing", token[:-1], f"{token}x", mixed, ":", "a:b"):
        for method in ("get", "post"):
            response = getattr(browser, method)(f"/mail/unsubscribe/{bad}/")
            assert response.status_code == 404
            assert "This link opens nothing" in page(response).text
        assert browser.post(f"/mail/subscribe/{bad}/").status_code == 404
    assert not MailOptOut.objects.exists()


def test_the_way_back_is_not_opened_by_a_scanner(cast, browser):
    browser.post(path(cast))
    assert browser.get(path(cast).replace("unsubscribe", "subscribe")).status_code == 405
    assert not is_subscribed(cast)


def test_a_deleted_workspace_has_no_link(cast, browser):
    link = path(cast)
    cast.workspace.delete()
    assert browser.post(link).status_code == 404


def test_leaving_counts_more_than_a_refusal_by_the_mail_server(cast, space, browser):
    MailOptOut.objects.create(workspace=space, email=cast.owner.email, topic=ALERTS, reason=OptOutReason.UNDELIVERABLE)
    assert "Mail has stopped already" in page(browser.get(path(cast))).text
    browser.post(path(cast).replace("unsubscribe", "subscribe"))
    assert not is_subscribed(cast)
    browser.post(path(cast))
    assert MailOptOut.objects.get().reason == OptOutReason.UNSUBSCRIBED


def test_no_log_line_holds_the_token(cast, browser, caplog):
    token = path(cast).split("/")[-2]
    with caplog.at_level(logging.DEBUG):
        browser.get(path(cast))
        browser.get(f"/mail/unsubscribe/{token}x/")
    assert "/mail/unsubscribe/" in caplog.text
    for record in caplog.records:
        assert token not in redact_text(record.getMessage())

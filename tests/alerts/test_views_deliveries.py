"""The log of messages: found by filters, page by page, in words, and tried again."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.urls import reverse

from alerts import outgoing
from alerts.channel_sets import email_channel
from alerts.delivery_log import PAGE_ROWS
from alerts.models import Action, Alert, Attempt, Channel, ChannelKind, Delivery, DeliveryState, Report, ReportKind
from opsmeter_site.lib.clock import utc_now
from tests.factories import make_cast
from tests.pages import page, signed_in
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db


@pytest.fixture
def channel(space):
    return Channel.objects.create(workspace=space, kind=ChannelKind.SLACK, name="Ops in Slack")


def make_alert(space, title="Spend is up"):
    now = utc_now()
    return Alert.objects.create(
        workspace=space,
        kind="spend_spike",
        severity="warning",
        scope="workspace",
        metric="usd",
        dedup_key=str(uuid4()),
        title=title,
        text=title,
        window_start=now,
        window_end=now,
        handling="sent",
        opened_at=now,
    )


def make_report(space):
    now = utc_now()
    days = {"first_day": now.date(), "last_day": now.date(), "starts_at": now, "ends_at": now, "due_at": now}
    return Report.objects.create(workspace=space, kind=ReportKind.DAILY, zone="UTC", title="Your Tuesday", **days)


def queue(channel, action=Action.TEST, state=DeliveryState.SENT, **facts):
    delivery = outgoing.queue(channel, action, **facts)
    Delivery.objects.filter(pk=delivery.pk).update(state=state)
    delivery.refresh_from_db()
    return delivery


def log(cast, person=None, **query):
    return page(signed_in(person or cast.viewer).get(reverse("deliveries", args=[cast.workspace.slug]), query))


def one(cast, delivery, person=None, **more):
    return signed_in(person or cast.viewer).get(reverse("delivery", args=[cast.workspace.slug, delivery.pk]), **more)


# --- The list ---------------------------------------------------------------------------------------------------------


def test_an_empty_log_says_what_will_be_there(cast):
    assert "Every alert and summary" in log(cast).text
    assert "sends no messages" not in log(cast).text
    assert "The Free plan sends no messages" in log(make_cast("free")).text
    assert "No message fits these filters" in log(cast, state="failed").text


def test_every_message_says_what_it_was_about(cast, space, channel):
    first, second = make_alert(space, "First"), make_alert(space, "Second")
    queue(channel, Action.ALERT, alerts=[first])
    queue(channel, Action.ALERT, alerts=[first, second])
    queue(channel, Action.RESOLVE, alerts=[second])
    queue(channel, Action.REPORT, report=make_report(space))
    queue(channel, Action.CHANNEL_OFF, about=channel)
    queue(channel, Action.CHANNEL_OFF)
    queue(channel, Action.ALERT)
    queue(channel)
    assert [row[0] for row in log(cast).rows()] == [
        "Test message",
        "Alerts that were deleted",
        "A channel was switched off",
        "“Ops in Slack” was switched off",
        "Your Tuesday",
        "Resolved: Second",
        "First and 1 more",
        "First",
    ]


def test_filters_narrow_and_nonsense_narrows_nothing(cast, space, channel):
    alert, report = make_alert(space), make_report(space)
    mail = email_channel(space.pk)
    queue(channel, Action.ALERT, DeliveryState.FAILED, alerts=[alert])
    queue(mail, Action.REPORT, report=report, recipient=cast.owner.email)
    queue(channel)
    for query, number in (
        ({}, 3),
        ({"state": "failed"}, 1),
        ({"action": "report"}, 1),
        ({"channel": str(channel.pk)}, 2),
        ({"alert": str(alert.pk)}, 1),
        ({"report": str(report.pk)}, 1),
        ({"alert": str(alert.pk), "state": "sent"}, 0),
        ({"channel": str(uuid4())}, 0),
        ({"state": "odd", "action": "odd", "channel": "odd", "alert": "%00", "report": "1"}, 3),
    ):
        assert len(log(cast, **query).rows()) == number, query
    assert "Only messages about: Spend is up" in log(cast, alert=str(alert.pk)).text
    assert "Only messages about: Your Tuesday" in log(cast, report=str(report.pk)).text


def test_pages_follow_one_another_without_gaps_also_in_one_instant(cast, space, channel):
    moment = utc_now()
    rows = [
        Delivery(
            workspace=space,
            channel=channel,
            channel_kind="slack",
            action=Action.TEST,
            created_at=moment - timedelta(seconds=number // 10),
        )
        for number in range(2 * PAGE_ROWS + 5)
    ]
    Delivery.objects.bulk_create(rows)
    client, found = signed_in(cast.viewer), []
    here = reverse("deliveries", args=[space.slug])
    url = here
    for expected in (PAGE_ROWS, PAGE_ROWS, 5):
        shown = page(client.get(url))
        links = [link.attributes["href"] for link in shown.all("a") if "/deliveries/" in link.attributes["href"]]
        found += [link for link in links if link != here]
        assert len(shown.rows()) == expected
        older = [link.attributes["href"] for link in shown.all("a") if link.text == "Older"]
        url = here + older[0] if older else ""
    assert not url
    assert len(found) == len(set(found)) == len(rows)
    for odd in ("nonsense", "1-2", "o99999999999999999999999-" + uuid4().hex, "-", "%00"):
        assert len(log(cast, cursor=odd).rows()) == PAGE_ROWS


def test_other_workspaces_have_logs_of_their_own(cast, channel):
    elsewhere = make_cast("pro")
    delivery = queue(channel)
    assert log(elsewhere).rows() == []
    assert one(elsewhere, delivery).status_code == 404
    answer = signed_in(elsewhere.owner).post(reverse("delivery-retry", args=[elsewhere.workspace.slug, delivery.pk]))
    assert answer.status_code == 404


def test_addresses_of_strangers_are_for_admins_only(cast, space):
    mail = email_channel(space.pk)
    stranger = queue(mail, state=DeliveryState.FAILED, recipient="bob@example.org")
    queue(mail, recipient=cast.owner.email)
    error = "550 <Bob@example.org>: no such user"
    Delivery.objects.filter(pk=stranger.pk).update(last_error=error)
    Attempt.objects.create(delivery=stranger, number=1, started_at=utc_now(), outcome="refused", answer=error)
    for person, sees in ((cast.viewer, False), (cast.member, False), (cast.admin, True)):
        for text in (log(cast, person).text, page(one(cast, stranger, person)).text):
            assert ("bob@example.org" in text.lower()) is sees
        assert cast.owner.email in log(cast, person).text
    assert page(one(cast, stranger)).text.count("550 <b…@example.org>: no such user") == 2


def test_the_number_of_queries_does_not_grow_with_messages(cast, space, channel, django_assert_max_num_queries):
    for number in range(12):
        queue(channel, Action.ALERT, alerts=[make_alert(space, f"Alert {number}"), make_alert(space)])
    client = signed_in(cast.viewer)
    client.get(reverse("deliveries", args=[space.slug]))
    with django_assert_max_num_queries(18):
        client.get(reverse("deliveries", args=[space.slug]))


# --- One message ------------------------------------------------------------------------------------------------------


def test_every_attempt_is_shown_with_the_answer(cast, space, channel):
    alert = make_alert(space)
    delivery = queue(channel, Action.ALERT, DeliveryState.FAILED, alerts=[alert])
    now = utc_now()
    Attempt.objects.create(
        delivery=delivery, number=1, started_at=now, duration_ms=1_240, outcome="retry", status_code=503, answer="busy"
    )
    Attempt.objects.create(
        delivery=delivery,
        number=2,
        started_at=now,
        duration_ms=9,
        outcome="refused",
        status_code=404,
        answer="<b>no</b>",
    )
    here = page(one(cast, delivery))
    rows = [[row[0], *row[2:]] for row in here.rows()]
    assert rows == [
        ["2", "Refused for good", "9 ms", "<b>no</b>"],
        ["1", "Failed, to be tried again", "1.24 s", "busy"],
    ]
    assert str(delivery.pk) in here.text
    assert reverse("alert", args=[space.slug, alert.pk]) in [each.attributes.get("href") for each in here.all("a")]


def test_the_page_looks_again_only_while_the_message_is_under_way(cast, channel):
    for state in DeliveryState:
        delivery = queue(channel, state=state)
        facts = page(one(cast, delivery)).one(id="delivery-facts")
        assert ("hx-get" in facts.attributes) is (state in {DeliveryState.WAITING, DeliveryState.SENDING})
    part = one(cast, delivery, headers={"HX-Request": "true"})
    assert b"<html" not in part.content


def test_what_a_message_waits_for_is_said(cast, channel):
    held = queue(channel, state=DeliveryState.WAITING, hold="quiet_hours")
    assert "held by quiet hours, until" in page(one(cast, held)).text
    held = queue(channel, state=DeliveryState.WAITING, hold="cooldown")
    assert "held by the cooldown, until" in page(one(cast, held)).text


def test_admins_try_a_failed_message_again(cast, channel):
    delivery = queue(channel, state=DeliveryState.FAILED)
    here = page(one(cast, delivery, cast.admin))
    (form,) = [each for each in here.all("form") if "retry" in each.attributes.get("action", "")]
    again = signed_in(cast.admin).post(form.attributes["action"], follow=True)
    assert "on its way again" in page(again).text
    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.WAITING
    assert AuditEntry.objects.filter(action="delivery.retried", actor=cast.admin).exists()


@pytest.mark.parametrize("state", ["sent", "waiting", "sending"])
def test_nobody_is_offered_to_send_twice(cast, channel, state):
    delivery = queue(channel, state=state)
    assert "Try again" not in page(one(cast, delivery, cast.owner)).text
    path = reverse("delivery-retry", args=[cast.workspace.slug, delivery.pk])
    signed_in(cast.owner).post(path)
    delivery.refresh_from_db()
    assert delivery.state == state


def test_of_a_deleted_channel_nothing_is_sent_again(cast, channel):
    delivery = queue(channel, state=DeliveryState.FAILED)
    channel.delete()
    here = page(one(cast, delivery, cast.owner))
    assert "a channel that was deleted" in here.text
    assert "Try again" not in here.text


def test_members_and_viewers_may_not_send_again(cast, channel):
    delivery = queue(channel, state=DeliveryState.FAILED)
    for person in (cast.viewer, cast.member):
        assert "Try again" not in page(one(cast, delivery, person)).text
        path = reverse("delivery-retry", args=[cast.workspace.slug, delivery.pk])
        assert signed_in(person).post(path).status_code == 403

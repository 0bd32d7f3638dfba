"""What is over resolves by itself, and those who were told hear that it is over."""

from datetime import time, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from alerts.models import Action, Alert, AlertKind, ChannelKind, Handling
from alerts.noticing import notice_crossings, raise_alerts
from alerts.recovery import recover
from alerts.services import reopen, resolve
from ingest.models import Limit, LimitCrossing, Meter
from opsmeter_site.lib.clock import utc_now
from tests.alerts.telling import (
    DAY,
    HOUR,
    MINUTE,
    NOON,
    add_channel,
    alerts_of,
    finding,
    messages_of,
    send,
    set_alerts,
    set_budget,
    spend,
    spend_in_steps,
    told,
    use_requests,
)
from tests.factories import make_workspace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_redis_used", "clock")]

NIGHT = {"quiet_from": time(22), "quiet_until": time(7)}
TOMORROW = NOON.replace(day=16, hour=0)


def exceed(opened, usd="51", **settings):
    """A daily budget of $50 is near its limit, then exceeded, and that has been told."""
    set_budget(opened, daily_limit_usd=Decimal(50), **settings)
    spend_in_steps(opened, "45", usd)
    notice_crossings(utc_now())
    send(opened)


def states(opened):
    return {alert.kind: (alert.state, alert.resolution) for alert in alerts_of(opened)}


def recovery_of(opened):
    [alert] = alerts_of(opened, kind=AlertKind.RECOVERY)
    return alert


# --- What is over -----------------------------------------------------------------------------------------------------


def test_while_the_limit_is_exceeded_nothing_is_over(opened):
    exceed(opened)
    assert recover(utc_now()) == 0
    assert states(opened) == {"budget_warning": ("open", ""), "budget_exceeded": ("open", "")}


def test_a_new_period_resolves_warning_and_limit_and_tells_one_recovery(opened, clock):
    exceed(opened)
    clock.move_to(TOMORROW)
    assert recover(utc_now()) == 2
    assert states(opened) == {
        "budget_warning": ("resolved", "A new period began"),
        "budget_exceeded": ("resolved", "A new period began"),
        "recovery": ("resolved", "A new period began"),
    }
    recovery = recovery_of(opened)
    assert recovery.recovers.kind == AlertKind.BUDGET_EXCEEDED
    assert (recovery.severity, recovery.handling, recovery.opened_at) == ("info", Handling.SENT, TOMORROW)
    assert recovery.title == "Daily budget no longer exceeded"
    assert recovery.text == (
        "A new period began. In the UTC day 2026-06-15 it was: Daily budget exceeded: $51.00 of $50.00."
    )
    assert [told(message) for message in messages_of(opened)][1:] == [["recovery"]]
    assert recover(utc_now()) == 0


def test_until_the_period_ends_nothing_is_over(opened, clock):
    exceed(opened)
    clock.move_to(TOMORROW - timedelta(seconds=1))
    assert recover(utc_now()) == 0


def test_late_events_that_exceed_a_limit_of_yesterday_are_told_and_that_it_is_over_is_not(opened, clock):
    set_budget(opened, daily_limit_usd=Decimal(50))
    spend(opened, "51")
    clock.move_to(TOMORROW)
    LimitCrossing.objects.update(crossed_at=TOMORROW)
    notice_crossings(utc_now())
    assert recover(utc_now()) == 1
    assert states(opened) == {"budget_exceeded": ("resolved", "A new period began")}
    assert "The day ended on 2026-06-16 at 00:00 UTC." in alerts_of(opened)[0].text
    assert [told(message) for message in messages_of(opened)] == [["budget_exceeded"]]


def test_a_warning_alone_is_over_without_a_word(opened, clock):
    exceed(opened, "45")
    clock.move_to(TOMORROW)
    assert recover(utc_now()) == 1
    assert states(opened) == {"budget_warning": ("resolved", "A new period began")}
    assert len(messages_of(opened)) == 1


def test_a_raised_limit_is_a_recovery_that_rests_with_the_cooldown(opened, clock):
    exceed(opened, enforcement="hard")
    clock.shift(MINUTE)
    set_budget(opened, daily_limit_usd=Decimal(100))
    assert recover(utc_now()) == 2
    assert set(states(opened).values()) == {("resolved", "The limit was changed to $100.00")}
    recovery = recovery_of(opened)
    assert (recovery.handling, recovery.held_until) == (Handling.COOLDOWN, NOON + 5 * MINUTE)
    assert recovery.text.endswith("This limit refuses no telemetry any more.")


def test_a_limit_that_is_raised_too_little_is_another_alert_and_no_recovery(opened, clock):
    exceed(opened, "80")
    clock.shift(HOUR)
    set_budget(opened, daily_limit_usd=Decimal(60))
    notice_crossings(utc_now())
    assert recover(utc_now()) == 2
    exceeded = alerts_of(opened, kind="budget_exceeded")
    assert [(alert.state, alert.resolution) for alert in exceeded] == [
        ("resolved", "The limit was changed to $60.00"),
        ("open", ""),
    ]
    assert not alerts_of(opened, kind="recovery")


def test_a_removed_limit_is_a_recovery(opened, clock):
    exceed(opened)
    set_budget(opened, daily_limit_usd=None)
    recover(utc_now())
    assert set(states(opened).values()) == {("resolved", "The limit was removed")}
    assert recovery_of(opened).recovers.kind == AlertKind.BUDGET_EXCEEDED


def test_spend_that_is_corrected_downwards_is_a_recovery_and_the_warning_stays(opened):
    exceed(opened)
    Meter.objects.filter(workspace=opened.workspace, period="day", measure="usd").update(value=Decimal(42))
    assert recover(utc_now()) == 1
    assert states(opened) == {
        "budget_warning": ("open", ""),
        "budget_exceeded": ("resolved", "What is counted was corrected to $42.00"),
        "recovery": ("resolved", "What is counted was corrected to $42.00"),
    }


def test_spend_that_is_gone_as_a_whole_counts_as_nothing(opened):
    exceed(opened)
    Meter.objects.filter(workspace=opened.workspace).delete()
    assert recover(utc_now()) == 2


def test_another_warning_threshold_ends_the_old_warning(opened):
    exceed(opened, "45")
    set_budget(opened, warning_threshold_ratio=Decimal("0.95"))
    recover(utc_now())
    assert states(opened) == {"budget_warning": ("resolved", "The warning threshold was changed")}


def test_a_plan_upgrade_ends_what_was_reached(clock):
    opened = make_workspace("pro", monthly_requests=10)
    use_requests(opened, 10)
    notice_crossings(utc_now())
    Limit.objects.filter(workspace=opened.workspace, source="billing").update(amount=100)
    recover(utc_now())
    recovery = recovery_of(opened)
    assert recovery.title == "Plan limit no longer reached"
    assert recovery.resolution == "The limit was changed to 100 requests"


def test_what_is_acknowledged_is_over_too_and_what_a_person_resolved_stays_quiet(opened, clock):
    exceed(opened)
    warning, exceeded = alerts_of(opened, kind="budget_warning")[0], alerts_of(opened, kind="budget_exceeded")[0]
    resolve(exceeded, opened.owner)
    Alert.objects.filter(pk=warning.pk).update(state="acknowledged")
    clock.move_to(TOMORROW)
    assert recover(utc_now()) == 1
    assert not alerts_of(opened, kind="recovery")


def test_an_alert_that_recovers_again_is_told_once(opened, clock):
    exceed(opened)
    set_budget(opened, daily_limit_usd=Decimal(100))
    recover(utc_now())
    Alert.objects.filter(workspace=opened.workspace, kind="budget_exceeded").update(state="open", resolved_at=None)
    assert recover(utc_now()) == 1
    assert recovery_of(opened)


@pytest.mark.parametrize("mode", ["daily", "inbox"])
def test_a_recovery_is_told_by_its_own_mode(opened, clock, mode):
    set_alerts(opened, modes={"recovery": mode})
    exceed(opened)
    clock.move_to(TOMORROW)
    recover(utc_now())
    assert recovery_of(opened).handling in (Handling.SUMMARY, Handling.INBOX)
    assert len(messages_of(opened)) == 1


def test_a_workspace_that_fails_stops_no_other(opened, clock):
    broken = make_workspace("pro")
    for each in (broken, opened):
        exceed(each)
    Alert.objects.filter(workspace=broken.workspace).update(facts={"limit_id": "gone"})
    clock.move_to(TOMORROW)
    assert recover(utc_now()) == 2
    assert [alert.state for alert in alerts_of(broken)] == ["open", "open"]
    assert recovery_of(opened)


def test_alerts_of_rules_leave_the_inbox_a_day_after_their_window(opened, clock):
    raise_alerts([finding(opened)], utc_now())
    clock.move_to(TOMORROW + DAY - MINUTE)
    assert recover(utc_now()) == 0
    clock.move_to(TOMORROW + DAY)
    assert recover(utc_now()) == 1
    assert [alert.kind for alert in alerts_of(opened, state="resolved")] == ["unit_cost"]
    assert len(messages_of(opened)) == 1


def test_looking_for_nothing_is_one_query(opened):
    with CaptureQueriesContext(connection) as queries:
        recover(utc_now())
    assert len(queries) == 1


# --- Messages that are held -------------------------------------------------------------------------------------------


def test_a_held_message_says_itself_that_it_has_cleared(opened, clock):
    set_alerts(opened, **NIGHT)
    clock.move_to(NOON.replace(hour=23))
    set_budget(opened, daily_limit_usd=Decimal(50))
    spend_in_steps(opened, "45", "51")
    notice_crossings(utc_now())
    clock.move_to(TOMORROW)
    assert recover(utc_now()) == 2
    [message] = messages_of(opened)
    assert (told(message), message.state) == (["budget_exceeded", "budget_warning"], "waiting")
    recovery = recovery_of(opened)
    assert (recovery.handling, recovery.held_until) == (Handling.QUIET_HOURS, NOON.replace(day=16, hour=7))


def test_a_recovery_in_quiet_hours_waits_for_the_morning(opened, clock):
    exceed(opened)
    set_alerts(opened, **NIGHT)
    clock.move_to(TOMORROW)
    recover(utc_now())
    assert recovery_of(opened).handling == Handling.QUIET_HOURS
    assert [told(message) for message in messages_of(opened, hold="quiet_hours")] == [["recovery"]]


# --- PagerDuty --------------------------------------------------------------------------------------------------------


def test_pagerduty_hears_that_an_incident_is_over_and_gets_none_for_the_recovery(opened, clock):
    pagerduty = add_channel(opened, ChannelKind.PAGERDUTY)
    exceed(opened)
    clock.move_to(TOMORROW)
    recover(utc_now())
    resolves = messages_of(opened, Action.RESOLVE)
    assert {message.channel for message in resolves} == {pagerduty}
    assert sorted(kind for message in resolves for kind in told(message)) == ["budget_exceeded", "budget_warning"]
    assert {message.next_attempt_at for message in resolves} == {TOMORROW}
    assert len(messages_of(opened, channel_kind="pagerduty")) == 2


def test_a_recovery_is_told_where_pagerduty_is_the_only_other_channel(opened, clock):
    add_channel(opened, ChannelKind.PAGERDUTY)
    exceed(opened)
    clock.move_to(TOMORROW)
    recover(utc_now())
    assert recovery_of(opened).handling == Handling.SENT
    assert {message.channel_kind for message in messages_of(opened) if "recovery" in told(message)} == {"email"}


def test_an_incident_that_has_not_rung_yet_does_not_ring_any_more(opened, clock):
    add_channel(opened, ChannelKind.PAGERDUTY)
    set_alerts(opened, **NIGHT)
    clock.move_to(NOON.replace(hour=23))
    set_budget(opened, daily_limit_usd=Decimal(50))
    spend(opened, "51")
    notice_crossings(utc_now())
    clock.move_to(TOMORROW)
    recover(utc_now())
    assert {message.state for message in messages_of(opened, channel_kind="pagerduty")} == {"cancelled"}
    assert not messages_of(opened, Action.RESOLVE)


def test_an_incident_that_is_being_sent_is_resolved_after_its_lease(opened, clock):
    add_channel(opened, ChannelKind.PAGERDUTY)
    raise_alerts([finding(opened)], utc_now())
    [trigger] = messages_of(opened, channel_kind="pagerduty")
    lease_ends = NOON + MINUTE
    trigger.state, trigger.attempts_made, trigger.next_attempt_at = "sending", 1, lease_ends
    trigger.save()
    resolve(alerts_of(opened)[0], opened.owner)
    assert [message.next_attempt_at for message in messages_of(opened, Action.RESOLVE)] == [lease_ends]


def test_a_deleted_pagerduty_channel_hears_nothing(opened):
    channel = add_channel(opened, ChannelKind.PAGERDUTY)
    raise_alerts([finding(opened)], utc_now())
    send(opened)
    channel.delete()
    [alert] = alerts_of(opened)
    resolve(alert, opened.owner)
    assert not messages_of(opened, Action.RESOLVE)
    assert reopen(alert, opened.owner).state == "open"

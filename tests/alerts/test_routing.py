"""Who hears of an alert, how and when."""

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

import pytest

from alerts.models import AlertKind, ChannelKind, ChannelState, Handling, Mode, Recipient, Severity
from alerts.noticing import notice_crossings, raise_alerts
from alerts.preferences import effective_mode, preferences_of
from billing.selectors import plan_features
from billing.services import change_workspace_plan
from opsmeter_site.lib.clock import utc_now
from tests.alerts.telling import (
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
)
from tests.factories import make_workspace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_redis_used", "clock")]

WARNING, CRITICAL, INFO = Severity.WARNING, Severity.CRITICAL, Severity.INFO
NIGHT = {"quiet_from": time(22), "quiet_until": time(7)}
EVENING, MORNING = NOON.replace(hour=23), NOON.replace(day=16, hour=7)


def found(opened, **changes):
    """Raise one finding; the alert as it is stored."""
    [alert] = raise_alerts([finding(opened, **changes)], utc_now())
    alert.refresh_from_db()
    return alert


def another_window(number):
    start = NOON + number * HOUR
    return {"window_start": start, "window_end": start + HOUR}


# --- Modes and plans --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "kind", "chosen", "mode"),
    [
        ("free", AlertKind.BUDGET_EXCEEDED, Mode.IMMEDIATE, Mode.INBOX),
        ("free", AlertKind.BUDGET_EXCEEDED, Mode.DAILY, Mode.INBOX),
        ("free", AlertKind.BUDGET_EXCEEDED, Mode.WEEKLY, Mode.INBOX),
        ("starter", AlertKind.BUDGET_EXCEEDED, Mode.IMMEDIATE, Mode.DAILY),
        ("starter", AlertKind.BUDGET_EXCEEDED, Mode.WEEKLY, Mode.WEEKLY),
        ("starter", AlertKind.BUDGET_EXCEEDED, Mode.INBOX, Mode.INBOX),
        ("starter", AlertKind.UNIT_COST, Mode.IMMEDIATE, Mode.INBOX),
        ("starter", AlertKind.SPEND_SPIKE, Mode.DAILY, Mode.INBOX),
        ("starter", AlertKind.RECOVERY, Mode.IMMEDIATE, Mode.DAILY),
        ("pro", AlertKind.BUDGET_EXCEEDED, Mode.IMMEDIATE, Mode.IMMEDIATE),
        ("pro", AlertKind.UNIT_COST, Mode.IMMEDIATE, Mode.IMMEDIATE),
        ("pro", AlertKind.UNIT_COST, Mode.WEEKLY, Mode.WEEKLY),
        ("enterprise", AlertKind.SPEND_SPIKE, Mode.DAILY, Mode.DAILY),
    ],
)
def test_the_mode_is_what_was_chosen_as_far_as_the_plan_goes(plan, kind, chosen, mode):
    opened = make_workspace(plan)
    set_alerts(opened, modes={kind.value: chosen.value})
    workspace_id = opened.workspace.pk
    assert effective_mode(kind, preferences_of(workspace_id), plan_features(workspace_id)) is mode


def test_without_settings_every_kind_has_its_usual_mode(opened):
    preferences = preferences_of(opened.workspace.pk)
    assert set(preferences.modes) == set(AlertKind)
    assert preferences.modes[AlertKind.UNPRICED_MODEL] is Mode.DAILY
    assert (preferences.cooldown, preferences.quiet_hours) == (timedelta(seconds=300), None)
    assert preferences.recipient_roles == ("owner", "admin")


@pytest.mark.parametrize(
    ("plan", "chosen", "handling"),
    [
        ("pro", Mode.IMMEDIATE, Handling.SENT),
        ("pro", Mode.DAILY, Handling.SUMMARY),
        ("pro", Mode.WEEKLY, Handling.SUMMARY),
        ("pro", Mode.INBOX, Handling.INBOX),
        ("starter", Mode.DAILY, Handling.SUMMARY),
        ("starter", Mode.IMMEDIATE, Handling.PLAN),
        ("free", Mode.DAILY, Handling.PLAN),
        ("free", Mode.INBOX, Handling.INBOX),
    ],
)
def test_the_inbox_says_how_it_was_told(plan, chosen, handling):
    opened = make_workspace(plan)
    set_alerts(opened, modes={"spender_over": chosen.value})
    alert = found(opened, kind=AlertKind.SPENDER_OVER)
    assert alert.handling == handling
    assert bool(messages_of(opened)) is (handling is Handling.SENT)


def test_a_new_plan_holds_from_the_next_alert_on():
    opened = make_workspace("starter")
    assert found(opened, kind=AlertKind.SPENDER_OVER).handling == Handling.PLAN
    change_workspace_plan(opened.workspace, plan_tier="pro", acting_user=None)
    assert found(opened, kind=AlertKind.SPENDER_OVER, scope="user_id:x").handling == Handling.SENT


# --- Channels and recipients ------------------------------------------------------------------------------------------


def test_every_channel_and_every_address_gets_a_message(opened):
    channels = [add_channel(opened, kind) for kind in ChannelKind if kind != ChannelKind.EMAIL]
    Recipient.objects.create(
        workspace=opened.workspace, email="cfo@example.com", added_by=opened.owner, confirmed_at=NOON
    )
    found(opened)
    messages = messages_of(opened)
    assert {message.channel for message in messages if message.channel_kind != "email"} == set(channels)
    mails = [message.recipient for message in messages if message.channel_kind == "email"]
    assert sorted(mails) == sorted(["cfo@example.com", opened.owner.email])
    assert len(messages) == len(channels) + 2


def test_a_channel_hears_only_of_what_is_bad_enough(opened):
    add_channel(opened, ChannelKind.SLACK, minimum_severity=CRITICAL)
    set_budget(opened, daily_limit_usd=Decimal(50))
    spend_in_steps(opened, "45", "51")
    notice_crossings(utc_now())
    [slack] = messages_of(opened, channel_kind="slack")
    assert told(slack) == ["budget_exceeded"]
    [mail] = messages_of(opened, channel_kind="email")
    assert told(mail) == ["budget_exceeded", "budget_warning"]


@pytest.mark.parametrize(
    "changes", [{"state": ChannelState.PAUSED}, {"state": ChannelState.OFF}, {"takes_alerts": False}]
)
def test_a_channel_that_takes_no_alerts_gets_none(opened, changes):
    add_channel(opened, ChannelKind.SLACK, **changes)
    found(opened)
    assert [message.channel_kind for message in messages_of(opened)] == ["email"]


def test_integrations_wait_for_a_plan_that_has_them(opened):
    add_channel(opened, ChannelKind.SLACK)
    opened.workspace.plan.plan.__class__.objects.filter(tier="pro").update(has_integrations=False)
    found(opened, kind=AlertKind.SPENDER_OVER)
    assert [message.channel_kind for message in messages_of(opened)] == ["email"]


def test_what_nobody_takes_says_so(opened):
    set_alerts(opened, recipient_roles=[], **NIGHT)
    alert = found(opened)
    assert (alert.handling, alert.held_until, messages_of(opened)) == (Handling.NOBODY, None, [])


# --- Cooldown ---------------------------------------------------------------------------------------------------------


def test_the_same_scope_and_metric_rests_and_is_then_told_together(opened, clock):
    found(opened, **another_window(0))
    send(opened)
    clock.shift(MINUTE)
    second = found(opened, **another_window(1))
    clock.shift(MINUTE)
    third = found(opened, **another_window(2))
    for alert in (second, third):
        assert (alert.handling, alert.held_until) == (Handling.COOLDOWN, NOON + 5 * MINUTE)
    first_message, held = messages_of(opened)
    assert first_message.alerts.count() == 1
    assert (held.hold, held.next_attempt_at, held.alerts.count()) == ("cooldown", NOON + 5 * MINUTE, 2)


def test_the_cooldown_ends_on_time(opened, clock):
    found(opened, **another_window(0))
    send(opened)
    clock.shift(5 * MINUTE)
    assert found(opened, **another_window(1)).handling == Handling.SENT


def test_the_cooldown_counts_from_when_the_message_went_out(opened, clock):
    found(opened, **another_window(0))
    clock.shift(10 * MINUTE)
    send(opened)
    clock.shift(MINUTE)
    assert found(opened, **another_window(1)).held_until == NOON + 15 * MINUTE


def test_after_a_held_message_the_cooldown_begins_again(opened, clock):
    found(opened, **another_window(0))
    send(opened)
    clock.shift(MINUTE)
    found(opened, **another_window(1))
    clock.shift(4 * MINUTE)
    send(opened)
    clock.shift(MINUTE)
    assert found(opened, **another_window(2)).held_until == NOON + 10 * MINUTE


def test_nothing_is_added_to_a_message_that_is_being_sent(opened, clock):
    found(opened, **another_window(0))
    send(opened)
    clock.shift(MINUTE)
    found(opened, **another_window(1))
    held = messages_of(opened, hold="cooldown")[0]
    held.state, held.attempts_made = "sending", 1
    held.save()
    found(opened, **another_window(2))
    assert held.alerts.count() == 1
    assert len(messages_of(opened, hold="cooldown")) == 2


def test_another_scope_or_metric_does_not_wait(opened, clock):
    found(opened)
    send(opened)
    clock.shift(MINUTE)
    assert found(opened, scope="endpoint_tag:search").handling == Handling.SENT
    assert found(opened, metric="usd.hour").handling == Handling.SENT


def test_warning_to_critical_passes_the_cooldown_and_critical_to_warning_does_not(opened, clock):
    found(opened, **another_window(0))
    send(opened)
    clock.shift(MINUTE)
    critical = found(opened, severity=CRITICAL, **another_window(1))
    assert critical.handling == Handling.SENT
    send(opened)
    clock.shift(MINUTE)
    warning = found(opened, **another_window(2))
    assert (warning.handling, warning.held_until) == (Handling.COOLDOWN, NOON + 6 * MINUTE)


def test_a_budget_that_is_exceeded_soon_after_its_warning_is_told_at_once(opened, clock):
    set_budget(opened, daily_limit_usd=Decimal(50))
    spend(opened, "45")
    notice_crossings(utc_now())
    clock.shift(timedelta(seconds=10))
    spend(opened, "55")
    notice_crossings(utc_now())
    assert [told(message) for message in messages_of(opened)] == [["budget_warning"], ["budget_exceeded"]]
    assert [message.hold for message in messages_of(opened)] == ["", ""]


def test_without_a_cooldown_nothing_rests(opened, clock):
    set_alerts(opened, cooldown_seconds=0)
    assert [found(opened, **another_window(n)).handling for n in range(3)] == [Handling.SENT] * 3


def test_what_told_nobody_anything_starts_no_cooldown(opened):
    set_alerts(opened, modes={"unit_cost": "daily"})
    found(opened, **another_window(0))
    set_alerts(opened, modes={})
    assert found(opened, **another_window(1)).handling == Handling.SENT


# --- Quiet hours ------------------------------------------------------------------------------------------------------


def test_what_can_wait_is_held_until_the_morning_and_told_in_one_message(opened, clock):
    set_alerts(opened, **NIGHT)
    add_channel(opened, ChannelKind.SLACK)
    clock.move_to(EVENING)
    found(opened)
    clock.shift(3 * HOUR)
    alert = found(opened, scope="model:x", severity=CRITICAL)
    assert (alert.handling, alert.held_until) == (Handling.QUIET_HOURS, MORNING)
    messages = messages_of(opened)
    assert [(each.hold, each.next_attempt_at, each.alerts.count()) for each in messages] == [
        ("quiet_hours", MORNING, 2)
    ] * 2
    assert {each.channel_kind for each in messages} == {"email", "slack"}


def test_pagerduty_gets_one_message_for_each_alert_in_the_morning_too(opened, clock):
    set_alerts(opened, **NIGHT)
    add_channel(opened, ChannelKind.PAGERDUTY)
    clock.move_to(EVENING)
    found(opened)
    found(opened, scope="model:x")
    assert [each.alerts.count() for each in messages_of(opened, channel_kind="pagerduty")] == [1, 1]


def test_outside_quiet_hours_nothing_waits(opened):
    set_alerts(opened, **NIGHT)
    assert found(opened).handling == Handling.SENT


def test_quiet_hours_follow_the_clocks_of_the_workspace(clock):
    opened = make_workspace("pro", timezone="America/Los_Angeles")
    set_alerts(opened, **NIGHT)
    clock.move_to(datetime(2026, 3, 8, 9, 30, tzinfo=UTC))
    # 01:30 in the night without 02:30: 07:00 is one hour sooner in UTC than the night before.
    assert found(opened).held_until == datetime(2026, 3, 8, 14, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("settings", "holds"),
    [
        ({}, ["quiet_hours"]),
        ({"enforcement": "hard"}, [""]),
        ({"enforcement": "hard", "observe_mode": True}, ["quiet_hours"]),
    ],
)
def test_a_hard_stop_passes_quiet_hours_and_takes_its_warning_along(opened, clock, settings, holds):
    set_alerts(opened, **NIGHT)
    set_budget(opened, daily_limit_usd=Decimal(50), **settings)
    clock.move_to(EVENING)
    spend_in_steps(opened, "45", "51")
    notice_crossings(utc_now())
    messages = messages_of(opened)
    assert [message.hold for message in messages] == holds
    assert told(messages[0]) == ["budget_exceeded", "budget_warning"]


def test_a_hard_stop_does_not_wait_for_its_warning_that_is_held(opened, clock):
    set_alerts(opened, **NIGHT)
    set_budget(opened, daily_limit_usd=Decimal(50), enforcement="hard")
    clock.move_to(EVENING - MINUTE)
    spend(opened, "45")
    notice_crossings(utc_now())
    clock.move_to(EVENING)
    spend(opened, "51")
    notice_crossings(utc_now())
    assert [(told(each), each.hold) for each in messages_of(opened)] == [
        (["budget_exceeded"], ""),
        (["budget_warning"], "quiet_hours"),
    ]


def test_a_warning_that_is_held_and_gets_urgent_goes_out_once(opened, clock):
    set_alerts(opened, **NIGHT)
    clock.move_to(EVENING)
    found(opened)
    raise_alerts([finding(opened, severity=CRITICAL, is_urgent=True)], utc_now())
    held, sent = sorted(messages_of(opened), key=lambda message: message.hold, reverse=True)
    assert (held.state, held.alerts.count()) == ("cancelled", 0)
    assert (sent.state, sent.hold, sent.alerts.count()) == ("waiting", "", 1)
    assert alerts_of(opened)[0].handling == Handling.SENT


def test_of_cooldown_and_quiet_hours_the_later_wins(opened, clock):
    set_alerts(opened, cooldown_seconds=600, **NIGHT)
    # The cooldown would end in the night.
    clock.move_to(NOON.replace(hour=21, minute=55))
    found(opened, **another_window(0))
    send(opened)
    clock.shift(MINUTE)
    alert = found(opened, **another_window(1))
    assert (alert.handling, alert.held_until) == (Handling.QUIET_HOURS, MORNING)
    # The cooldown of what passed quiet hours ends after them.
    clock.move_to(MORNING - MINUTE)
    found(opened, scope="model:x", is_urgent=True, **another_window(0))
    send(opened, hold="")
    alert = found(opened, scope="model:x", **another_window(1))
    assert (alert.handling, alert.held_until) == (Handling.COOLDOWN, MORNING + 9 * MINUTE)


def test_a_second_alert_of_the_night_joins_the_first(opened, clock):
    set_alerts(opened, **NIGHT)
    clock.move_to(EVENING)
    found(opened, **another_window(0))
    clock.shift(HOUR)
    alert = found(opened, **another_window(1))
    assert (alert.handling, alert.held_until) == (Handling.QUIET_HOURS, MORNING)
    [message] = messages_of(opened)
    assert message.alerts.count() == 2

"""What has happened is in the inbox, once, and on its way in the same commit."""

from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from alerts.composing import compose
from alerts.models import Alert, AlertKind, AlertState, ChannelKind, Handling, Severity
from alerts.noticing import notice_crossings, raise_alerts
from ingest.models import Limit, LimitCrossing
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


def notice():
    return notice_crossings(utc_now())


# --- Crossings --------------------------------------------------------------------------------------------------------


def test_a_warning_is_in_the_inbox_and_on_its_way(opened):
    set_budget(opened, daily_limit_usd=Decimal(50))
    spend(opened, "41.25")
    assert notice() == 1
    [alert] = alerts_of(opened)
    limit = Limit.objects.get(workspace=opened.workspace, source="budgets")
    assert (alert.kind, alert.severity, alert.state) == ("budget_warning", "warning", "open")
    assert (alert.scope, alert.metric, alert.is_urgent) == (f"limit:{limit.pk}", "usd.day", False)
    assert (alert.window_start, alert.window_end) == (NOON.replace(hour=0), NOON.replace(day=16, hour=0))
    assert alert.title == "Daily budget: 82.5% used ($41.25 of $50.00)"
    assert alert.text == (
        "Spend in the UTC day 2026-06-15 has reached 80.0% of the daily budget: $41.25 of $50.00 (82.5%). "
        "Your LLM calls keep running, and telemetry is taken (soft stop). "
        "The day ends on 2026-06-16 at 00:00 UTC."
    )
    assert alert.facts == {
        "source": "budgets",
        "budget_id": limit.source_id,
        "scope_kind": "workspace",
        "limit_id": str(limit.pk),
        "name": "Daily budget",
        "measure": "usd",
        "period": "day",
        "spend": "41.25",
        "limit": "50",
        "amount": "50",
        "share": "0.825",
        "threshold": "0.8",
        "is_enforced": False,
    }
    [message] = messages_of(opened)
    assert (message.recipient, message.channel_kind, message.hold) == (opened.owner.email, "email", "")
    assert (message.next_attempt_at, alert.handling, alert.held_until) == (NOON, Handling.SENT, None)


def test_a_crossing_is_noticed_once(opened):
    set_budget(opened, daily_limit_usd=Decimal(50))
    spend(opened, "41.25")
    assert [notice(), notice()] == [1, 0]
    assert LimitCrossing.objects.get(limit__workspace=opened.workspace).claimed_at == NOON
    assert len(alerts_of(opened)) == len(messages_of(opened)) == 1


def test_warning_and_limit_crossed_at_once_are_one_alert_about_the_limit(opened):
    set_budget(opened, daily_limit_usd=Decimal(50))
    spend(opened, "51.2")
    assert [notice(), notice()] == [2, 0]
    [exceeded] = alerts_of(opened)
    assert (exceeded.kind, exceeded.severity) == ("budget_exceeded", "critical")
    assert exceeded.title == "Daily budget exceeded: $51.20 of $50.00"
    assert exceeded.text == (
        "Spend in the UTC day 2026-06-15 is above the daily budget: $51.20 of $50.00 (102.4%). "
        "Passed at the same time: 80.0%. "
        "Your LLM calls keep running, and telemetry is taken (soft stop). "
        "The day ends on 2026-06-16 at 00:00 UTC."
    )
    [message] = messages_of(opened)
    assert told(message) == ["budget_exceeded"]
    assert compose(message).title == exceeded.title


def test_warning_and_limit_crossed_one_after_the_other_are_two_alerts_the_worst_first(opened):
    set_budget(opened, daily_limit_usd=Decimal(50))
    spend_in_steps(opened, "45", "51.2")
    assert notice() == 2
    [message] = messages_of(opened)
    assert told(message) == ["budget_exceeded", "budget_warning"]
    assert compose(message).title == "2 alerts: Daily budget exceeded: $51.20 of $50.00 and 1 more"


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "lowered"])
def test_a_budget_that_is_over_when_it_is_saved_is_one_alert(opened, is_new):
    spend(opened, "30")
    if not is_new:
        set_budget(opened, daily_limit_usd=Decimal(100))
    set_budget(opened, daily_limit_usd=Decimal(10))
    assert notice() == 2
    [exceeded], [message] = alerts_of(opened), messages_of(opened)
    assert exceeded.title == "Daily budget exceeded: $30.00 of $10.00"
    assert told(message) == ["budget_exceeded"]
    assert exceeded.text.count("Passed at the same time: 80.0%.") == 1
    assert LimitCrossing.objects.filter(limit__workspace=opened.workspace).count() == 2


def test_day_and_month_of_one_workspace_share_a_message_too(opened):
    set_budget(opened, daily_limit_usd=Decimal(50), monthly_limit_usd=Decimal(60))
    spend(opened, "70")
    assert notice() == 4
    [message] = messages_of(opened)
    assert told(message) == ["budget_exceeded", "budget_exceeded"]
    monthly = Alert.objects.get(workspace=opened.workspace, metric="usd.month", severity="critical")
    assert "Spend in the UTC month 2026-06 is above the monthly budget" in monthly.text
    assert "The month ends on 2026-07-01 at 00:00 UTC." in monthly.text


def test_pagerduty_gets_a_message_for_each_alert(opened):
    add_channel(opened, ChannelKind.PAGERDUTY)
    set_budget(opened, daily_limit_usd=Decimal(50))
    spend_in_steps(opened, "45", "51")
    notice()
    assert [told(each) for each in messages_of(opened, channel_kind="pagerduty")] in (
        [["budget_exceeded"], ["budget_warning"]],
        [["budget_warning"], ["budget_exceeded"]],
    )


@pytest.mark.parametrize(
    ("settings", "is_urgent", "sentence"),
    [
        ({}, False, "and telemetry is taken (soft stop)."),
        (
            {"enforcement": "hard"},
            True,
            "telemetry is refused with 402 until the limit is raised or the UTC day ends.",
        ),
        ({"enforcement": "hard", "observe_mode": True}, False, "observe mode is on, so the hard stop refuses nothing."),
        ({"observe_mode": True}, False, "and telemetry is taken (soft stop)."),
    ],
)
def test_an_exceeded_budget_says_what_happens_now(opened, settings, is_urgent, sentence):
    set_budget(opened, daily_limit_usd=Decimal(50), **settings)
    spend(opened, "51")
    notice()
    exceeded = Alert.objects.get(workspace=opened.workspace, kind=AlertKind.BUDGET_EXCEEDED)
    assert exceeded.severity == Severity.CRITICAL
    assert exceeded.is_urgent is is_urgent
    assert "Your LLM calls keep running" in exceeded.text
    assert sentence in exceeded.text


def test_a_warning_of_a_hard_stop_is_not_urgent_and_says_what_will_happen(opened):
    set_budget(opened, daily_limit_usd=Decimal(50), enforcement="hard")
    spend(opened, "45")
    notice()
    [alert] = alerts_of(opened)
    assert not alert.is_urgent
    assert "Above the limit it is refused with 402 (hard stop)." in alert.text


def test_plan_limits_are_near_and_reached(opened):
    small = make_workspace("pro", monthly_requests=10)
    use_requests(small, 8)
    notice()
    [near] = alerts_of(small)
    assert (near.kind, near.severity, near.metric) == ("plan_limit_near", "warning", "requests.month")
    assert near.title == "Plan limit: 80.0% used (8 of 10 requests)"
    use_requests(small, 10)
    notice()
    reached = alerts_of(small, kind="plan_limit_reached")[0]
    assert (reached.severity, reached.is_urgent) == ("critical", True)
    assert reached.title == "Plan limit reached: 10 of 10 requests"
    assert "until the plan is upgraded or the UTC month ends." in reached.text


def test_a_plan_limit_is_enforced_in_observe_mode_too(opened):
    small = make_workspace("pro", monthly_requests=10)
    set_budget(small, observe_mode=True)
    use_requests(small, 10)
    notice()
    assert alerts_of(small, kind="plan_limit_reached")[0].is_urgent


def test_amounts_that_look_the_same_are_written_out(opened):
    set_budget(opened, daily_limit_usd=Decimal(50))
    spend(opened, "50.000000000001")
    notice()
    [exceeded] = alerts_of(opened, kind="budget_exceeded")
    assert exceeded.title == "Daily budget exceeded: $50.000000000001 of $50.00"


def test_a_raised_limit_that_is_crossed_again_alerts_again(opened, clock):
    set_budget(opened, daily_limit_usd=Decimal(50))
    spend(opened, "51")
    notice()
    send(opened)
    clock.shift(HOUR)
    set_budget(opened, daily_limit_usd=Decimal(100))
    spend(opened, "101")
    assert notice() == 2
    assert [told(message) for message in messages_of(opened)] == [["budget_exceeded"]] * 2


def test_a_new_day_alerts_again(opened, clock):
    set_budget(opened, daily_limit_usd=Decimal(50))
    spend(opened, "45")
    notice()
    clock.shift(DAY)
    spend(opened, "45")
    assert notice() == 1
    assert len(messages_of(opened)) == 2


def test_what_was_rolled_back_is_noticed_by_the_next(opened):
    set_budget(opened, daily_limit_usd=Decimal(50))
    spend(opened, "45")
    with transaction.atomic():
        notice()
        transaction.set_rollback(True)
    assert not alerts_of(opened)
    assert notice() == 1
    assert len(alerts_of(opened)) == len(messages_of(opened)) == 1


def test_a_workspace_that_fails_stops_no_other_and_is_tried_again(opened):
    broken = make_workspace("pro")
    for each in (broken, opened):
        set_budget(each, daily_limit_usd=Decimal(50))
        spend(each, "45")
    limits = Limit.objects.filter(workspace=broken.workspace, source="budgets")
    limits.update(period="eon")
    assert notice() == 1
    assert (len(alerts_of(opened)), len(alerts_of(broken))) == (1, 0)
    limits.update(period="day")
    assert notice() == 1
    assert len(alerts_of(broken)) == len(messages_of(broken)) == 1


def test_a_thousand_crossings_of_one_workspace_are_one_message(opened):
    limits = Limit.objects.bulk_create(
        Limit(
            workspace=opened.workspace,
            name=f"Budget {n}",
            measure="usd",
            period="day",
            amount=1,
            thresholds=[1],
            enforce=False,
            source="test",
            source_id=str(n),
        )
        for n in range(1_000)
    )
    spend(opened, "2")
    assert notice() == len(limits)
    [message] = messages_of(opened)
    assert message.alerts.count() == len(limits)


def test_crossings_of_many_workspaces_are_each_told_in_their_own():
    several = [make_workspace("pro") for _ in range(5)]
    for each in several:
        set_budget(each, daily_limit_usd=Decimal(50))
        spend(each, "51")
    assert notice() == 10
    assert all(len(alerts_of(each)) == len(messages_of(each)) == 1 for each in several)


def test_looking_for_nothing_is_one_query():
    with CaptureQueriesContext(connection) as queries:
        notice()
    assert sum("SELECT" in query["sql"] for query in queries) == 1


# --- Plans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "handling", "messages"),
    [("free", Handling.PLAN, 0), ("starter", Handling.PLAN, 0), ("pro", Handling.SENT, 1), ("team", Handling.SENT, 1)],
)
def test_every_plan_has_the_inbox_and_pro_hears_at_once(plan, handling, messages):
    opened = make_workspace(plan)
    set_budget(opened, daily_limit_usd=Decimal(50))
    spend(opened, "45")
    notice()
    assert [alert.handling for alert in alerts_of(opened)] == [handling]
    assert len(messages_of(opened)) == messages


# --- Findings ---------------------------------------------------------------------------------------------------------


def test_findings_of_several_workspaces_in_one_call(opened):
    other = make_workspace("pro")
    alerts = raise_alerts([finding(opened), finding(other), finding(opened, scope="model:x")], utc_now())
    assert len(alerts) == 3
    assert (len(alerts_of(opened)), len(alerts_of(other))) == (2, 1)
    assert (len(messages_of(opened)), len(messages_of(other))) == (1, 1)


def test_a_repeat_is_counted_and_not_told_again(opened, clock):
    raise_alerts([finding(opened)], utc_now())
    clock.shift(HOUR)
    assert raise_alerts([finding(opened), finding(opened)], utc_now()) == []
    [alert] = alerts_of(opened)
    assert (alert.occurrences, alert.opened_at, alert.last_occurred_at) == (3, NOON, NOON + HOUR)
    assert len(messages_of(opened)) == 1


def test_the_same_twice_in_one_call_is_one_alert(opened):
    assert len(raise_alerts([finding(opened), finding(opened)], utc_now())) == 1
    assert alerts_of(opened)[0].occurrences == 2


def test_another_scope_metric_or_window_is_another_alert(opened):
    later = {"window_start": NOON, "window_end": NOON + HOUR}
    findings = [
        finding(opened),
        finding(opened, scope="model:x"),
        finding(opened, metric="usd"),
        finding(opened, **later),
    ]
    assert len(raise_alerts(findings, utc_now())) == 4


def test_a_repeat_that_is_worse_is_told_at_once_and_opens_the_alert_again(opened, clock):
    set_alerts(opened, cooldown_seconds=300)
    raise_alerts([finding(opened)], utc_now())
    Alert.objects.filter(workspace=opened.workspace).update(state=AlertState.ACKNOWLEDGED)
    send(opened)
    clock.shift(MINUTE)
    worse = finding(opened, severity=Severity.CRITICAL, title="checkout costs $3.00 a request")
    assert raise_alerts([worse], utc_now()) == []
    [alert] = alerts_of(opened)
    assert (alert.severity, alert.state, alert.title) == ("critical", "open", "checkout costs $3.00 a request")
    assert [message.next_attempt_at for message in messages_of(opened)] == [NOON, NOON + MINUTE]
    assert alert.handling == Handling.SENT


def test_a_repeat_that_is_better_changes_nothing(opened):
    raise_alerts([finding(opened, severity=Severity.CRITICAL)], utc_now())
    raise_alerts([finding(opened)], utc_now())
    assert alerts_of(opened)[0].severity == Severity.CRITICAL
    assert len(messages_of(opened)) == 1


def test_what_a_person_has_resolved_is_only_counted(opened):
    [alert] = raise_alerts([finding(opened)], utc_now())
    Alert.objects.filter(pk=alert.pk).update(state="resolved", resolved_by=opened.owner, resolved_at=NOON)
    assert raise_alerts([finding(opened)], utc_now()) == []
    [alert] = alerts_of(opened)
    assert (alert.state, alert.occurrences) == ("resolved", 2)


def test_what_a_person_has_resolved_and_gets_worse_is_another_alert(opened):
    [alert] = raise_alerts([finding(opened)], utc_now())
    Alert.objects.filter(pk=alert.pk).update(state="resolved", resolved_by=opened.owner, resolved_at=NOON)
    assert len(raise_alerts([finding(opened, severity=Severity.CRITICAL)], utc_now())) == 1


def test_what_has_resolved_by_itself_and_comes_back_is_another_alert(opened):
    [alert] = raise_alerts([finding(opened)], utc_now())
    Alert.objects.filter(pk=alert.pk).update(state="resolved", resolved_at=NOON)
    assert len(raise_alerts([finding(opened)], utc_now())) == 1


def test_a_finding_of_a_workspace_that_is_gone_is_left_out(opened):
    assert raise_alerts([finding(opened, workspace_id=uuid4()), finding(opened)], utc_now()) == alerts_of(opened)

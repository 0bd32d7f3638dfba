"""Alerts about limits on a scope end when what they count, or their amount in force, says so."""

from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from alerts.limit_counts import counted_values
from alerts.noticing import notice_crossings
from alerts.recovery import recover
from alerts.value_texts import MOST_SENT_A_DAY
from ingest import meters
from ingest.models import Limit, LimitAdjustment, Meter, ScopeKind
from ingest.services import drop_limit
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import day_of
from tests.alerts.telling import HOUR, MINUTE, alerts_of, limit_on, messages_of, send, set_budget, spend, spend_on

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_redis_used", "clock")]

TENANT = ScopeKind.TENANT_ID.value
OVER_ONLY = {"thresholds": (Decimal(1),)}


def notice():
    return notice_crossings(utc_now())


def resolutions(opened):
    return [alert.resolution for alert in alerts_of(opened) if alert.kind != "recovery"]


def exceed(opened, value="acme", **changes):
    """A limit of $50 is exceeded, and that has been told."""
    limit = limit_on(opened, TENANT, value, **OVER_ONLY | changes)
    spend_on(opened, TENANT, acme="51", globex="52")
    notice()
    send(opened)
    return limit


def adjust(limit, usd, scope_value=""):
    start = day_of(utc_now()).start
    LimitAdjustment.objects.create(limit=limit, period_start=start, scope_value=scope_value, usd=Decimal(usd))


def test_other_scopes_and_the_workspace_do_not_matter(opened):
    exceed(opened)
    spend(opened, "1")
    spend_on(opened, TENANT, globex="1")
    assert recover(utc_now()) == 0


def test_spend_that_is_priced_again_and_lower_is_a_recovery(opened):
    exceed(opened)
    Meter.objects.filter(workspace=opened.workspace, scope_value="acme").update(value=Decimal(42))
    assert recover(utc_now()) == 1
    assert resolutions(opened) == ["What is counted was corrected to $42.00"]
    [recovery] = alerts_of(opened, kind="recovery")
    assert recovery.title == "The cap (Tenant acme) no longer exceeded"


def test_an_adjustment_is_a_recovery(opened):
    limit = exceed(opened)
    adjust(limit, "-10")
    recover(utc_now())
    assert resolutions(opened) == ["What is counted was corrected to $41.00"]


def test_estimates_count(opened):
    limit_on(opened, TENANT, "acme", **OVER_ONLY, unpriced="estimate", estimate_usd_per_1m=Decimal(2))
    spend_on(opened, TENANT, acme="49")
    acme = Meter.objects.filter(workspace=opened.workspace, scope_value="acme")
    acme.update(unpriced_tokens=1_000_000)
    meters.record_crossings(opened.workspace.pk, utc_now())
    assert notice() == 1
    assert recover(utc_now()) == 0
    acme.update(unpriced_tokens=0)
    recover(utc_now())
    assert resolutions(opened) == ["What is counted was corrected to $49.00"]


def test_a_threshold_in_usd_is_over_when_it_is_not_reached_any_more(opened):
    limit_on(opened, TENANT, "acme", **OVER_ONLY, thresholds_usd=(Decimal("33.34"),))
    spend_on(opened, TENANT, acme="33.34")
    notice()
    assert recover(utc_now()) == 0
    spend_on(opened, TENANT, acme="33.33")
    recover(utc_now())
    assert resolutions(opened) == ["What is counted was corrected to $33.33"]


def test_a_threshold_in_usd_that_is_gone_ends_its_warning(opened):
    limit = limit_on(opened, TENANT, "acme", **OVER_ONLY, thresholds_usd=(Decimal(30),))
    spend_on(opened, TENANT, acme="31")
    notice()
    Limit.objects.filter(pk=limit.pk).update(thresholds_usd=[])
    recover(utc_now())
    assert resolutions(opened) == ["The warning threshold was changed"]


def raise_to(limit, usd, until):
    Limit.objects.filter(pk=limit.pk).update(raised_amount=Decimal(usd), raised_until=until)


def test_a_raise_that_lifts_the_limit_is_a_recovery_that_says_until_when(opened):
    limit = exceed(opened)
    raise_to(limit, "80", utc_now() + 6 * HOUR)
    recover(utc_now())
    assert resolutions(opened) == ["The limit was raised to $80.00 until 2026-06-15 18:00 UTC"]
    assert alerts_of(opened, kind="recovery")


def test_a_raise_that_is_too_small_is_another_alert_and_no_recovery(opened):
    limit = exceed(opened)
    raise_to(limit, "50.5", utc_now() + 6 * HOUR)
    meters.record_crossings(opened.workspace.pk, utc_now())
    assert notice() == 1
    assert recover(utc_now()) == 1
    assert not alerts_of(opened, kind="recovery")
    assert sorted(alert.state for alert in alerts_of(opened)) == ["open", "resolved"]


def test_the_end_of_a_raise_tells_what_was_not_told_before(opened, clock):
    limit = limit_on(opened, TENANT, "acme", **OVER_ONLY, raised_amount=Decimal(80), raised_until=utc_now() + HOUR)
    spend_on(opened, TENANT, acme="60")
    assert notice() == 0
    clock.shift(HOUR)
    meters.record_crossings(opened.workspace.pk, utc_now(), [limit])
    assert notice() == 1
    assert alerts_of(opened)[0].title == "The cap (Tenant acme) exceeded: $60.00 of $50.00"
    assert recover(utc_now()) == 0


def test_the_end_of_a_raise_repeats_nothing_that_was_told_before_it(opened, clock):
    limit = exceed(opened)
    raise_to(limit, "80", utc_now() + HOUR)
    recover(utc_now())
    clock.shift(HOUR)
    meters.record_crossings(opened.workspace.pk, utc_now())
    assert notice() == 0


def test_what_exceeded_a_raised_limit_is_over_when_the_raise_is(opened, clock):
    limit_on(opened, TENANT, "acme", **OVER_ONLY, raised_amount=Decimal(80), raised_until=utc_now() + HOUR)
    spend_on(opened, TENANT, acme="90")
    notice()
    assert recover(utc_now()) == 0
    clock.shift(HOUR)
    meters.record_crossings(opened.workspace.pk, utc_now())
    notice()
    assert recover(utc_now()) == 1
    assert resolutions(opened) == ["The limit was changed to $50.00", ""]
    assert not alerts_of(opened, kind="recovery")


def test_a_removed_limit_is_a_recovery(opened):
    limit = exceed(opened)
    drop_limit(opened.workspace.pk, "budgets", limit.source_id)
    recover(utc_now())
    assert resolutions(opened) == ["The limit was removed"]


# --- Each value -------------------------------------------------------------------------------------------------------


def test_it_is_over_when_no_value_is_over_any_more(opened):
    exceed(opened, value="", enforce=True)
    spend_on(opened, TENANT, globex="40")
    assert recover(utc_now()) == 0
    spend_on(opened, TENANT, acme="41", later="99")
    assert recover(utc_now()) == 1
    [recovery] = alerts_of(opened, kind="recovery")
    assert recovery.title == "The cap (2 tenants) no longer exceeded"
    assert recovery.text.endswith("This limit refuses no telemetry of theirs any more.")


def test_one_value_can_be_adjusted(opened):
    limit = exceed(opened, value="")
    adjust(limit, "-5", "globex")
    assert recover(utc_now()) == 0
    adjust(limit, "-5", "acme")
    assert recover(utc_now()) == 1


def test_what_was_told_in_the_inbox_only_ends_in_silence(opened, clock):
    limit_on(opened, TENANT, **OVER_ONLY)
    for n in range(MOST_SENT_A_DAY + 1):
        clock.shift(10 * MINUTE)
        spend_on(opened, TENANT, **{f"t{n:02}": "51"})
        notice()
        send(opened)
    quiet = alerts_of(opened)[-1]
    spend_on(opened, TENANT, t20="1")
    assert recover(utc_now()) == 1
    quiet.refresh_from_db()
    assert quiet.state == "resolved"
    assert not alerts_of(opened, kind="recovery")
    assert len(messages_of(opened)) == MOST_SENT_A_DAY


# --- How it is counted ------------------------------------------------------------------------------------------------


def test_it_counts_as_ingest_does(opened):
    set_budget(opened, monthly_limit_usd=Decimal(100))
    spend(opened, "7")
    one = limit_on(opened, TENANT, "acme", unpriced="estimate", estimate_usd_per_1m=Decimal(2))
    each = limit_on(opened, TENANT, period="month", name="Each")
    spend_on(opened, TENANT, acme="51", globex="52")
    Meter.objects.filter(workspace=opened.workspace, scope_value="acme").update(unpriced_tokens=500_000)
    adjust(one, "-3")
    LimitAdjustment.objects.create(
        limit=each, period_start=day_of(utc_now()).start.replace(day=1), scope_value="globex", usd=Decimal(4)
    )
    limits = Limit.objects.filter(workspace=opened.workspace)
    expected = {(limit.pk, value): usd for limit in limits for value, usd in meters.counted(limit, utc_now()).items()}
    asked = {limit.pk: (limit, [value for pk, value in expected if pk == limit.pk]) for limit in limits}
    assert counted_values(asked, utc_now()).items() >= expected.items()
    assert {usd for (pk, _), usd in expected.items() if pk in (one.pk, each.pk)} == {49, 51, 56}


def test_many_limits_take_no_more_queries_than_one(opened):
    numbers = []
    for more in (1, 5):
        for _ in range(more):
            exceed(opened, value="")
        with CaptureQueriesContext(connection) as queries:
            assert recover(utc_now()) == 0
        numbers.append(len(queries))
    assert numbers[0] == numbers[1]

"""Crossings of limits on a scope are told by its name; those of limits on each value together, and not without end."""

from dataclasses import fields
from decimal import Decimal

import pytest
from django.urls import reverse

from alerts.alert_facts import facts_of, figures_of
from alerts.composing import compose
from alerts.models import Handling
from alerts.noticing import notice_crossings
from alerts.recovery import recover
from alerts.telling import scope_in_words
from alerts.value_texts import MOST_KEPT, MOST_SENT_A_DAY
from alerts.what_changed import what_changed
from ingest import meters
from ingest.models import LimitCrossing, Meter, ScopeKind
from ingest.services import LimitSpec, put_limit
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import day_of
from tests.alerts.telling import (
    DAY,
    HOUR,
    MINUTE,
    NOON,
    alerts_of,
    kinds_of,
    limit_on,
    messages_of,
    send,
    set_budget,
    spend_on,
    told,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_redis_used", "clock")]

TENANT = ScopeKind.TENANT_ID.value
# What is set, what is spent, and the kind of the alert that it makes.
THRESHOLDS = {
    "share": ({"thresholds": (Decimal("0.6"), Decimal(1))}, "30", "budget_warning"),
    "usd": ({"thresholds": (Decimal(1),), "thresholds_usd": (Decimal(40),)}, "40", "budget_warning"),
    "over": ({"thresholds": (Decimal(1),)}, "50.01", "budget_exceeded"),
}


def notice():
    return notice_crossings(utc_now())


def value_of(opened, kind):
    """A value that events may have."""
    return {"api_key_id": str(opened.api_key.pk), "environment": "prod"}.get(kind, "acme")


# --- One scope --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_each_value", [False, True], ids=["one", "each"])
@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("kind", ScopeKind.values)
def test_every_scope_and_threshold_is_told_once(opened, kind, threshold, is_each_value):
    changes, usd, alert_kind = THRESHOLDS[threshold]
    value = value_of(opened, kind)
    limit_on(opened, kind, "" if is_each_value else value, **changes)
    spend_on(opened, kind, **{value: usd, "another": "0.01"})
    assert [notice(), notice()] == [1, 0]
    [alert] = alerts_of(opened)
    shown = opened.api_key.name if kind == ScopeKind.API_KEY_ID else value
    scope = f"{ScopeKind(kind).label} {shown}"
    assert alert.kind == alert_kind
    assert alert.title.startswith(f"The cap ({scope})")
    assert shown in alert.text
    assert scope_in_words(alert) == f"The cap ({scope})"
    assert alert.facts["scope_value"] == value
    spend_on(opened, kind, **{value: str(Decimal(usd) + 1)})
    assert notice() == 0
    assert len(messages_of(opened)) == 1


def test_a_share_an_amount_and_the_limit_are_said_as_they_were_set(opened, clock):
    limit_on(opened, TENANT, "acme", thresholds_usd=(Decimal("32.5"),), enforce=True)
    for usd in ("33", "42", "50.5"):
        clock.shift(MINUTE)
        spend_on(opened, TENANT, acme=usd)
        assert notice() == 1
    assert [alert.text.partition(":")[0] for alert in alerts_of(opened, kind="budget_warning")] == [
        "Spend of tenant acme in the UTC day 2026-06-15 has reached $32.50 of the budget “The cap”",
        "Spend of tenant acme in the UTC day 2026-06-15 has reached 80.0% of the budget “The cap”",
    ]
    [exceeded] = alerts_of(opened, kind="budget_exceeded")
    assert exceeded.title == "The cap (Tenant acme) exceeded: $50.50 of $50.00"
    assert exceeded.is_urgent
    assert "matching telemetry is refused with 402" in exceeded.text


def test_thresholds_of_one_scope_that_are_passed_at_once_are_one_alert(opened):
    limit_on(opened, TENANT, "acme", thresholds_usd=(Decimal("32.5"), Decimal(40)))
    spend_on(opened, TENANT, acme="42")
    assert notice() == 3
    [alert] = alerts_of(opened)
    assert alert.title == "The cap (Tenant acme): 84.0% used ($42.00 of $50.00)"
    assert "has reached 80.0% of the budget" in alert.text
    assert "Passed at the same time: $32.50, $40.00." in alert.text


def test_a_threshold_that_is_set_below_spend_is_told_although_a_higher_one_was(opened, clock):
    limit = limit_on(opened, TENANT, "acme")
    spend_on(opened, TENANT, acme="42")
    notice()
    clock.shift(MINUTE)
    put_again(opened, limit, thresholds=(Decimal("0.6"), Decimal("0.8"), Decimal(1)))
    assert notice() == 1
    assert alerts_of(opened)[-1].title == "The cap (Tenant acme): past 60.0%, 84.0% used ($42.00 of $50.00)"


# Each changes what the amount in force is.
OTHER_AMOUNTS = {
    "raised": {"raised_amount": Decimal(100), "raised_until": NOON + 6 * HOUR},
    "larger": {"amount": Decimal(80)},
    "smaller": {"amount": Decimal(42)},
}


@pytest.mark.parametrize("is_each_value", [False, True], ids=["one", "each"])
@pytest.mark.parametrize("other", OTHER_AMOUNTS)
def test_a_threshold_in_usd_is_told_once_a_period_whatever_the_limit_is(opened, clock, other, is_each_value):
    limit = limit_on(
        opened, TENANT, "" if is_each_value else "acme", thresholds=(Decimal(1),), thresholds_usd=(Decimal(40),)
    )
    spend_on(opened, TENANT, acme="40.5")
    assert notice() == 1
    assert "has reached $40.00 of the budget “The cap”: $40.50 of $50.00" in alerts_of(opened)[0].text
    clock.shift(MINUTE)
    limit = put_again(opened, limit, **OTHER_AMOUNTS[other])
    assert [notice(), recover(utc_now())] == [0, 0]
    spend_on(opened, TENANT, acme="41")
    put_again(opened, limit, amount=Decimal(50), raised_amount=None, raised_until=None)
    assert [notice(), recover(utc_now())] == [0, 0]
    assert len(alerts_of(opened, state="open")) == len(messages_of(opened)) == 1
    clock.shift(DAY)
    spend_on(opened, TENANT, acme="40.5")
    assert notice() == 1


def put_again(opened, limit, **changes):
    """The same limit, saved with changes."""
    limit.refresh_from_db()
    spec = {field.name: getattr(limit, field.name) for field in fields(LimitSpec)}
    return put_limit(opened.workspace.pk, limit.source, LimitSpec(**spec | changes))


def test_a_name_that_says_its_scope_is_not_said_twice(opened):
    limit_on(opened, TENANT, "acme", name="Tenant acme, daily")
    spend_on(opened, TENANT, acme="45")
    notice()
    assert alerts_of(opened)[0].title == "Tenant acme, daily: 90.0% used ($45.00 of $50.00)"


def test_programs_get_scope_and_value_as_they_were_sent(opened):
    limit = limit_on(opened, TENANT, "007")
    spend_on(opened, TENANT, **{"007": "45"})
    notice()
    [alert] = alerts_of(opened)
    figures = figures_of(alert)
    assert (figures["scope_kind"], figures["scope_value"], figures["budget_id"]) == (
        "tenantId",
        "007",
        limit.source_id,
    )
    assert figures["spend"] == 45
    assert {fact.label: fact.value for fact in facts_of(alert, opened.workspace.timezone)}["Scope"] == "Tenant 007"


def test_a_raised_limit_says_which_amount_is_in_force_and_until_when(opened):
    limit_on(opened, TENANT, "acme", raised_amount=Decimal(60), raised_until=utc_now() + 6 * HOUR)
    spend_on(opened, TENANT, acme="61")
    notice()
    [exceeded] = alerts_of(opened, kind="budget_exceeded")
    assert exceeded.title == "The cap (Tenant acme) exceeded: $61.00 of $60.00"
    assert "The limit is raised from $50.00 until 2026-06-15 18:00 UTC." in exceeded.text
    assert exceeded.facts["amount"] == "60"


def test_estimates_are_said(opened):
    limit_on(opened, TENANT, "acme", unpriced="estimate", estimate_usd_per_1m=Decimal(3))
    spend_on(opened, TENANT, acme="45")
    notice()
    assert "Tokens without a price are counted at $3.00 per 1M." in alerts_of(opened)[0].text


def test_observe_mode_is_said_of_scoped_budgets_too(opened):
    set_budget(opened, observe_mode=True)
    limit_on(opened, TENANT, "acme", enforce=True)
    spend_on(opened, TENANT, acme="51")
    notice()
    [exceeded] = alerts_of(opened, kind="budget_exceeded")
    assert not exceeded.is_urgent
    assert "observe mode is on" in exceeded.text


def test_an_alert_leads_to_its_budget_in_page_and_mail(opened, client):
    limit = limit_on(opened, TENANT, "acme")
    spend_on(opened, TENANT, acme="45")
    notice()
    [alert], [message] = alerts_of(opened), messages_of(opened)
    path = reverse("budget", args=[opened.workspace.slug, limit.source_id])
    client.force_login(opened.owner)
    page = client.get(reverse("alert", args=[opened.workspace.slug, alert.pk])).content.decode()
    assert f'href="{path}"' in page
    assert "In the whole workspace: " in page
    mail = compose(message).mail
    assert f'{path}"' in mail.html
    assert f"The budget: http://127.0.0.1:8000{path}\n" in mail.text


def test_what_moved_spend_looks_at_the_scope_where_sums_know_it(opened):
    limit_on(opened, ScopeKind.ENDPOINT_TAG.value, "chat")
    spend_on(opened, ScopeKind.ENDPOINT_TAG.value, chat="45")
    notice()
    alert = alerts_of(opened)[0]
    found = what_changed(alert, opened.workspace.policy, opened.workspace.timezone, utc_now())
    assert "endpoint=chat" in found.query
    assert "In the whole workspace" not in found.sentence


# --- Each value -------------------------------------------------------------------------------------------------------


def test_values_that_cross_together_are_one_alert_that_names_the_largest(opened):
    limit_on(opened, TENANT)
    spend_on(opened, TENANT, **{f"t{n:02}": f"{51 + n}" for n in range(37)}, small="42")
    # Warning and limit of 37, of which the limit is told, and the warning of one more.
    assert notice() == 75
    [exceeded] = alerts_of(opened, kind="budget_exceeded")
    assert exceeded.title == "The cap exceeded by 37 tenants, most by t36 ($87.00 of $50.00)"
    assert "for 37 tenants: t36 $87.00, t35 $86.00" in exceeded.text
    assert "t27 $78.00 and 27 more." in exceeded.text
    assert "t26 " not in exceeded.text
    assert len(exceeded.facts["scope_values"]) == 37
    [warning] = alerts_of(opened, kind="budget_warning")
    assert warning.title == "The cap (Tenant small): 84.0% used ($42.00 of $50.00)"
    [message] = messages_of(opened)
    assert told(message) == ["budget_exceeded", "budget_warning"]


def test_thousands_of_values_at_once_are_one_message_of_bounded_size(opened):
    limit = limit_on(opened, TENANT, thresholds_usd=(Decimal(30),))
    start = day_of(utc_now()).start
    key = {"workspace": opened.workspace, "measure": "usd", "period": "day", "period_start": start}
    Meter.objects.bulk_create(
        Meter(**key, scope_kind=TENANT, scope_value=f"{n:05}{'x' * 195}", value=Decimal(51 + n)) for n in range(2_000)
    )
    meters.record_crossings(opened.workspace.pk, utc_now(), [limit])
    assert [notice(), notice()] == [6_000, 0]
    [exceeded], [message] = alerts_of(opened), messages_of(opened)
    assert exceeded.title.startswith("The cap exceeded by 2,000 tenants, most by 01999xxx")
    assert len(exceeded.facts["scope_values"]) == MOST_KEPT
    assert len(compose(message).mail.html) < 30_000
    assert recover(utc_now()) == 0


def test_later_values_are_another_alert_that_names_only_them(opened, clock):
    limit_on(opened, TENANT, thresholds=(Decimal(1),))
    spend_on(opened, TENANT, acme="51", globex="52")
    notice()
    send(opened)
    clock.shift(HOUR)
    spend_on(opened, TENANT, acme="60", initech="53")
    assert notice() == 1
    first, second = alerts_of(opened)
    assert first.facts["scope_values"] == ["globex", "acme"]
    assert second.facts["scope_values"] == ["initech"]
    assert second.title == "The cap (Tenant initech) exceeded: $53.00 of $50.00"
    assert "acme" not in second.text
    assert first.dedup_key != second.dedup_key
    assert len(messages_of(opened)) == 2


def test_a_warning_that_turns_critical_goes_through_at_once(opened, clock):
    limit_on(opened, TENANT)
    spend_on(opened, TENANT, acme="45")
    notice()
    send(opened)
    clock.shift(MINUTE)
    spend_on(opened, TENANT, acme="51")
    notice()
    assert kinds_of(opened) == ["budget_exceeded", "budget_warning"]
    assert [alert.handling for alert in alerts_of(opened)] == [Handling.SENT, Handling.SENT]
    assert len(messages_of(opened)) == 2


def cross_one_after_the_other(opened, clock, number):
    """So many tenants, an hour's third apart."""
    for n in range(number):
        clock.shift(20 * MINUTE)
        spend_on(opened, TENANT, **{f"t{n:02}": "51"})
        notice()
        send(opened)


def test_so_many_alerts_a_day_are_sent_and_the_rest_is_one_in_the_inbox(opened, clock):
    limit_on(opened, TENANT, thresholds=(Decimal(1),))
    cross_one_after_the_other(opened, clock, MOST_SENT_A_DAY + 3)
    alerts = alerts_of(opened)
    assert [alert.handling for alert in alerts] == [Handling.SENT] * MOST_SENT_A_DAY + [Handling.INBOX]
    assert len(messages_of(opened)) == MOST_SENT_A_DAY
    rest = alerts[-1]
    assert (rest.occurrences, rest.facts["scope_values"]) == (3, ["t20", "t21", "t22"])
    assert rest.title == "The cap exceeded by more tenants"
    assert not LimitCrossing.objects.filter(claimed_at=None).exists()


def test_the_next_day_is_told_again(opened, clock):
    limit_on(opened, TENANT, thresholds=(Decimal(1),), period="month")
    cross_one_after_the_other(opened, clock, MOST_SENT_A_DAY + 1)
    clock.shift(DAY)
    spend_on(opened, TENANT, later="51")
    notice()
    assert alerts_of(opened)[-1].handling == Handling.SENT
    assert len(messages_of(opened)) == MOST_SENT_A_DAY + 1


def test_limits_on_the_same_dimension_are_told_apart(opened):
    limit_on(opened, TENANT, thresholds=(Decimal(1),))
    limit_on(opened, TENANT, name="The other", amount=Decimal(20), thresholds=(Decimal(1),))
    spend_on(opened, TENANT, acme="51", globex="30")
    notice()
    assert {alert.title.partition(" exceeded")[0] for alert in alerts_of(opened)} == {
        "The cap (Tenant acme)",
        "The other",
    }

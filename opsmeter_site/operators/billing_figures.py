"""The figures of billing on the console's first page: what the provider said that led nowhere, and who pays how."""

from datetime import datetime

from django.conf import settings
from django.db.models import Count, Min, Q
from django.urls import reverse

from billing import lateness
from billing.metrics import refused_counts
from billing.models import BillingEvent, ChangeRequest, EventState, PlanVariant, Status, Subscription
from billing.providers import is_billing_on
from opsmeter_site.lib import formats
from opsmeter_site.operators.figures import BAD, DAY, WARN, Figure


def of_billing(now: datetime) -> list[Figure]:
    """Whether people can pay here, and whether there is anything that they can choose."""
    if not is_billing_on():
        return [_off()]
    offered = PlanVariant.objects.filter(is_offered=True).count()
    return [
        Figure("Billing", "test mode" if settings.LEMONSQUEEZY_TEST_MODE else "on", "of this server"),
        Figure(
            "Variants on offer",
            formats.count(offered),
            "now",
            f"{reverse('admin:billing_planvariant_changelist')}?is_offered__exact=1",
            "" if offered else BAD,
        ),
    ]


def _off() -> Figure:
    """Without billing nobody is asked how a subscription stands, so there should be none."""
    left = Subscription.objects.filter(lateness.LIVE).count()
    if left:
        where = reverse("admin:billing_subscription_changelist")
        return Figure("Billing", "off", f"live subscriptions that nobody follows: {formats.count(left)}", where, BAD)
    return Figure("Billing", "off", "operators set plans", reverse("admin:billing_workspaceplan_changelist"))


def of_events(now: datetime) -> list[Figure]:
    """The provider's messages that wait, need somebody, or could not be processed."""
    if not is_billing_on():
        return []
    found = BillingEvent.objects.filter(state__in=[EventState.WAITING, EventState.PARKED, EventState.FAILED]).aggregate(
        waiting=Count("pk", filter=Q(state=EventState.WAITING)),
        oldest=Min("received_at", filter=Q(state=EventState.WAITING)),
        parked=Count("pk", filter=Q(state=EventState.PARKED)),
        failed=Count("pk", filter=Q(state=EventState.FAILED)),
    )
    oldest = found["oldest"]
    is_late = oldest is not None and now - oldest > lateness.EVENT_IS_LATE_AFTER
    where = reverse("admin:billing_billingevent_changelist")
    return [
        Figure(
            "Provider's messages waiting",
            formats.count(found["waiting"]),
            f"the oldest {formats.ago(oldest, now)}" if oldest else "now",
            f"{where}?state__exact=waiting",
            BAD if is_late else "",
        ),
        Figure(
            "Messages that need an operator",
            formats.count(found["parked"]),
            "now",
            f"{where}?state__exact=parked",
            BAD if found["parked"] else "",
        ),
        Figure(
            "Messages failed for good",
            formats.count(found["failed"]),
            "now",
            f"{where}?state__exact=failed",
            BAD if found["failed"] else "",
        ),
    ]


def of_refused_webhooks(now: datetime) -> list[Figure]:
    """Messages that were no message of the provider: only counted, by day."""
    if not is_billing_on():
        return []
    found = [(name, refused_counts(day)) for name, day in (("today", now.date()), ("yesterday", (now - DAY).date()))]
    return [
        Figure(f"Webhooks refused {name}", formats.count(sum(counts.values())), f"UTC{_reasons(counts)}")
        for name, counts in found
    ]


def _reasons(counts: dict[str, int]) -> str:
    named = (f"{formats.count(number)} {reason}" for reason, number in sorted(counts.items()))
    return f": {', '.join(named)}" if counts else ""


def of_subscriptions(now: datetime) -> list[Figure]:
    """Who pays, who is late, and what nobody has noticed."""
    if not is_billing_on():
        return []
    found = Subscription.objects.aggregate(
        live=Count("pk", filter=lateness.LIVE),
        past_due=Count("pk", filter=Q(status=Status.PAST_DUE)),
        unpaid=Count("pk", filter=Q(status=Status.UNPAID)),
        unmatched=Count("pk", filter=lateness.LIVE & Q(workspace=None)),
        unchecked=Count("pk", filter=lateness.check_is_late(now)),
        twice=Count("workspace", filter=lateness.is_paid_twice(), distinct=True),
        unmapped=Count("pk", filter=lateness.is_unmapped()),
    )
    late_requests = ChangeRequest.objects.filter(lateness.request_is_late(now)).count()
    where = reverse("admin:billing_subscription_changelist")
    requests = reverse("admin:billing_changerequest_changelist")

    def figure(label: str, number: int, query: str, tone: str = "", window: str = "now") -> Figure:
        return Figure(label, formats.count(number), window, f"{where}?{query}", tone if number else "")

    return [
        figure("Live subscriptions", found["live"], "status__in=on_trial,active,paused,past_due,unpaid,cancelled"),
        figure("Past due", found["past_due"], f"status__exact={Status.PAST_DUE}"),
        figure("Unpaid", found["unpaid"], f"status__exact={Status.UNPAID}", WARN),
        figure("Subscriptions without a workspace", found["unmatched"], "needs=workspace", BAD),
        figure("Subscriptions without a plan", found["unmapped"], "needs=variant", BAD, "their variant is not mapped"),
        figure("Workspaces that pay twice", found["twice"], "needs=twice", WARN),
        figure("Subscriptions not checked", found["unchecked"], "needs=check", BAD, "for 2 days"),
        Figure(
            "Requests not confirmed",
            formats.count(late_requests),
            "for 10 minutes",
            f"{requests}?due=late",
            WARN if late_requests else "",
        ),
    ]
